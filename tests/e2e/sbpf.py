# SPDX-License-Identifier: Apache-2.0
"""sbpf as people and scripts meet it: every command but plugin (tests/conformance), every error's one line."""
import json
import os
import re
import shutil
import subprocess

from tap import SBPF, SRC, Skip, main, run

LINE = re.compile(r"^sbpf: .+ \([A-Z0-9]+\); .+\n$")
SUM = """
typedef unsigned long long u64;
static __attribute__((noinline)) u64 weight(u64 byte, u64 at) { return byte * (at + 1); }
u64 sum(const unsigned char *p, u64 n) { u64 s = 0; for (u64 i = 0; i < n; i++) s += weight(p[i], i); return s; }
"""
TWO = SUM + "u64 other(const unsigned char *p, u64 n) { return n; }\n"
BAD = "int bad(void) { int x; asm volatile(\"%0 = r7\" : \"=r\"(x)); return x; }\n"
FAULT = "int fault(int *p) { return p[1 << 20]; }\n"
FOLD = """
#include <lambdaio/function.h>
LAMBDA_RECORD_FIXED(8);
LAMBDA_ARGS("times:u64=3");
struct s { uint64_t sum, calls; };
LAMBDA_FOLD(adder, struct s) {
    st->sum = st->calls++;                       /* the state is zero at each pass */
    for (uint64_t i = 0; i + 8 <= ctx->in_len; i += 8) st->sum += *(uint64_t *)(ctx->in + i) & 0xff;
    ctx->in[0]++;                                /* and what it scribbles on is put back */
    return (int64_t)(st->sum * *(uint64_t *)ctx->arg);
}
LAMBDA_MERGE(adder, struct s) { st->sum += other->sum; return 0; }
"""


def compiled(name, source):
    """The object of @source, compiled once."""
    path = os.path.join(os.environ["T"], name)
    clang = next((c for c in ("clang-19", "clang-16", "clang-14", "clang") if shutil.which(c)), None)
    if not clang:
        raise Skip("no clang here")
    if not os.path.exists(path + ".o"):
        with open(path + ".c", "w", encoding="utf-8") as f:
            f.write(source)
        subprocess.run([clang, "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-ffreestanding", f"-I{SRC}/include", "-isystem",
                        f"{SRC}/include/lambdaio/libc", "-c", path + ".c", "-o", path + ".o"], check=True)
    return path + ".o"


def data(name, content):
    path = os.path.join(os.environ["T"], name)
    with open(path, "wb") as f:
        f.write(content)
    return path


def output(*args, stdin=b""):
    status, out, err = run(SBPF, *args, stdin=stdin)
    assert status == 0 and err == "", (status, out, err)
    return out.decode()


def refused(*args, stdin=b""):
    status, out, err = run(SBPF, *args, stdin=stdin)
    assert status == 2 and out == b"" and LINE.match(err), (status, out, err)
    return err


def test_verify_says_what_an_object_holds():
    text = output("verify", compiled("sum", SUM))
    assert ": ok\n" in text and "2 functions" in text and "entry sum (.text)" in text, text


def test_verify_says_where_and_why_an_object_is_refused():
    err = refused("verify", compiled("bad", BAD))
    assert "r7 is read before it is written" in err and "bad.c:1" in err and "(EINVAL)" in err, err


def test_run_prints_r0_over_memory_in_hex_from_a_file_and_from_standard_input():
    obj = compiled("sum", SUM)
    assert output("run", obj, "0102 03") == "0xe\n"
    assert output("run", obj, "--memory", data("three", b"\1\2\3")) == "0xe\n"
    assert output("run", obj, "--memory", "-", stdin=b"\1\2\3") == "0xe\n"
    assert output("run", obj) == "0x0\n"


def test_run_gives_the_same_on_every_tier():
    for tier in ("interp", "template", "llvm"):
        status, out, err = run(SBPF, "run", compiled("sum", SUM), "ff" * 100, "--tier", tier)
        assert (status, out) == (0, b"0x13a646\n") or "EOPNOTSUPP" in err, (tier, out, err)


def test_an_entry_is_chosen_by_name_where_there_are_several():
    obj = compiled("two", TWO)
    assert output("run", obj, "010101", "--entry", "other") == "0x3\n"
    assert "sum, other" in refused("run", obj, "010101")
    assert "no entry nobody" in refused("run", obj, "--entry", "nobody")


def test_a_fault_is_one_line_with_source_line_and_address():
    err = refused("run", compiled("fault", FAULT), "00")
    assert "(EFAULT)" in err and "fault.c:1" in err and "0x" in err, err


def test_fuel_ends_what_takes_too_long():
    assert "(ETIME)" in refused("run", compiled("sum", SUM), "00" * 1000, "--fuel", "100")


def test_disasm_prints_an_instruction_a_line_with_its_source():
    text = output("disasm", compiled("sum", SUM))
    assert "sum:" in text and "exit" in text and "sum.c:" in text, text


def test_bench_measures_a_plain_entry_in_a_versioned_document():
    obj, file = compiled("sum", SUM), data("short", b"\1\0")
    for tier in ("interp", "template"):
        status, out, err = run(SBPF, "bench", obj, file, "--tier", tier, "--json")
        if "EOPNOTSUPP" in err:
            continue
        doc = json.loads(out)
        assert status == 0 and doc["schema"] == "sbpf-bench/1" and doc["tier"] == tier, doc
        assert doc["bytes"] == 1 << 20 and doc["r0"] == hex((1 << 19) ** 2), doc  # the file repeated to 1 MiB
        assert 0 < doc["ns_per_byte"]["best"] <= doc["ns_per_byte"]["median"], doc
        assert doc["compile_ns"] >= 0 and doc["code_bytes"] > 0 and doc["fuel"] is True, doc


def test_bench_gives_a_function_its_context_anew_for_each_pass():
    obj, file = compiled("fold", FOLD), data("bytes", b"\2" + b"\0" * 7)
    want = (1 << 17) * 2
    assert json.loads(output("bench", obj, file, "--json"))["r0"] == hex(want * 3)
    assert json.loads(output("bench", obj, file, "times=5", "--json"))["r0"] == hex(want * 5)
    assert f"r0 = {want * 3:#x}" in output("bench", obj, file)


def test_bench_refuses_what_it_cannot_measure():
    obj = compiled("sum", SUM)
    assert "empty" in refused("bench", obj, data("empty", b""))
    assert "arguments" in refused("bench", obj, data("short", b"\1\0"), "a=1")
    assert "(ENOENT)" in refused("bench", obj, "/nonexistent/file")
    assert "(EISDIR)" in refused("bench", obj, os.environ["T"])


def test_wrong_words_and_files_get_one_line():
    obj = compiled("sum", SUM)
    for args in ((), ("nothing",), ("verify",), ("verify", obj, "more"), ("run", obj, "--tier", "fast"),
                 ("run", obj, "--tier"), ("run", obj, "--fuel", "-1"), ("run", obj, "--fuel", "1x"), ("run", obj, "--json"),
                 ("run", obj, "--unknown"), ("run", obj, "zz"), ("run", obj, "00", "--memory", obj),
                 ("verify", os.environ["T"]), ("verify", "/nonexistent"), ("verify", data("junk", b"junk\n" * 9)),
                 ("disasm", data("a\nb", b""))):
        refused(*args)


def test_help_shows_every_command_with_examples():
    text = output("--help")
    for name in ("verify", "run", "disasm", "bench", "plugin"):
        assert f"\n  {name} " in text, name
        about = output(name, "--help")
        assert about.startswith(f"Usage: sbpf {name} ") and "Examples:\n" in about, about


main()
