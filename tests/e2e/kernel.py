# SPDX-License-Identifier: Apache-2.0
"""The kernel engine, as people meet it: the same answers and the same errors as in the process, and what it says where it
cannot run.  Skipped as a whole, with the reason, where the machine has no such engine."""
import ctypes
import itertools
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time

import functions
import tap
from tap import LIO, SBPF, Skip, run

KERNEL = ("--engine", "kernel")
# So many answers of each test of the shipped functions are asked for, each cut in another way than the one before:
# each is a process that has its programs verified anew.
ASKED = int(os.environ.get("KERNEL_ASKED", "3"))
CUTS = itertools.cycle([(), ("--chunk", "4K", "--threads", "3"), ("--chunk", "10007", "--threads", "1"),
                        ("--chunk", "100K", "--threads", "2")])
CODE = {
    "strays": 'LAMBDA_MAP(strays) { (void)ctx; *(volatile char *)96 = 1; return 0; }',
    "overruns": """LAMBDA_FOLD(overruns, struct { uint64_t sum; }) {
        for (uint64_t i = 0; i < 1 << 20; i++) st->sum += ctx->in[i]; return 0; }""",
    "forges": """LAMBDA_MAP(forges) { *(volatile uint64_t *)&((struct lambda_ctx *)ctx)->in_len = 0; return 0; }""",
    "fails": 'LAMBDA_MAP(fails) { (void)ctx; return -EDOM; }',
    "loops": """LAMBDA_MAP(loops) { volatile uint64_t n = 0;
        while (ctx) n++; return (int64_t)n; }""",
    # Longer than the kernel lets one run take, but not than its fuel.
    "ponders": """LAMBDA_OUTPUT("n:u64");
        LAMBDA_MAP(ponders) { uint64_t x = ctx->offset;
            for (uint64_t i = 0; i < 450000000; i++) x = (x ^ i) * 0x9e3779b97f4a7c15 + (x >> 29);
            *(uint64_t *)ctx->out = x; return 8; }""",
    "carries": """LAMBDA_RECORD_FIXED(8); LAMBDA_OUTPUT("n:u64");
        struct s { uint64_t x, calls; };
        LAMBDA_FOLD(carries, struct s) {
            st->x = (st->x + ctx->in[0] + ctx->in_len) * 31;
            if (st->calls++ == 2)
                for (uint64_t i = 0; i < 450000000; i++) st->x = (st->x ^ i) * 0x9e3779b97f4a7c15 + (st->x >> 29);
            return 0; }""",
    "says": 'LAMBDA_OUTPUT("text"); LAMBDA_MAP(says) { lambda_trace("so it is", 8); (void)ctx; return 0; }',
}


def missing():
    status, out, err = run(LIO, "features", "--json")
    assert status == 0, err
    by = {f["name"]: f for f in json.loads(out)["features"]}
    return by["kernel engine"]["missing"]


def tmp(name):
    return os.path.join(os.environ["T"], name)


def compiled(name):
    path = tmp(name + ".o")
    if not os.path.exists(path):
        with open(tmp(name + ".c"), "w", encoding="ascii") as f:
            f.write("#include <errno.h>\n#include <lambdaio/function.h>\n" + CODE[name] + "\n")
        status, _, err = run(LIO, "cc", tmp(name + ".c"), "-o", path)
        assert status == 0, err
    return path


def data(n=100_000, seed=5):
    return functions.temp(random.Random(seed).randbytes(n))


def both(*argv):
    """Status, output and error line of a run on the user engine, which the kernel's must be, too."""
    user, kernel = run(LIO, "run", *argv, "--engine", "user"), run(LIO, "run", *argv, *KERNEL)
    assert user == kernel, f"{argv}: {user} is not {kernel}"
    return user


# ---- the same answers ----

def answers(test):
    """A test of the shipped functions' answers, which come from the kernel."""
    def in_kernel():
        kept, asked = (functions.same, functions.CUTS[:]), itertools.count()

        def same(want, function, path, *args, cuts=None):
            options = KERNEL + next(CUTS)
            if next(asked) >= ASKED:
                return
            got = functions.lio(function, path, *args, options=options)
            assert got == want, (f"{function} {path} {args} {options}: got {len(got)} bytes "
                                 f"{got[:200]!r}, want {len(want)} bytes {want[:200]!r}")

        functions.same = same
        functions.CUTS[:] = [KERNEL + next(CUTS) for _ in range(4)]
        try:
            test()
        finally:
            functions.same, functions.CUTS[:] = kept
    return in_kernel


# What they promise of the answers; not of the law, of arguments, and of being there.
for _name, _test in list(vars(functions).items()):
    if _name.startswith("test_") and not re.search("refuse|law|shipped|writes_into", _name):
        globals()["test_in_the_kernel_" + _name[5:]] = answers(_test)


def test_output_of_a_function_in_the_kernel_is_stored_by_lio_write():
    pairs = random.Random(8)
    runs = [(pairs.randrange(1, 50), pairs.randrange(2)) for _ in range(200)]
    source = functions.temp(b"".join(struct.pack("<2I", *r) for r in runs), "runs")
    stored = []
    for engine in ("user", "kernel"):
        path = functions.temp(b"\xee" * 20_000, "stored")
        status, _, err = run(LIO, "write", "bitmap", source, path, "--engine", engine)
        assert status == 0, err
        stored.append(functions.content(path))
    assert stored[0] == stored[1]


def test_standard_input_is_read_in_order():
    text = b"one\nlambda two\nthree lambda\n" * 20_000
    got = [run(LIO, "run", "grep", "-", "lambda", "--raw", "--engine", e, stdin=text) for e in ("user", "kernel")]
    assert got[0] == got[1] and got[0][0] == 0, got


# ---- the same errors ----

def test_errors_of_functions_read_the_same():
    path = data()
    for name in ("strays", "forges", "fails", "overruns"):
        status, out, err = both(compiled(name), path, "--threads", "1")
        assert status == 2 and out == b"" and err.count("\n") == 1, err


def test_an_endless_function_ends_with_its_fuel_or_its_time():
    path = data(1000)
    status, _, err = run(LIO, "run", compiled("loops"), path, *KERNEL)
    assert status == 2 and "ETIME" in err, err
    status, _, err = run(LIO, "run", compiled("loops"), path, *KERNEL, "--timeout", "50ms", "--fuel", str(10**15))
    assert status == 2 and "ETIME" in err and "fuel" not in err, err


def test_an_interrupt_ends_it():
    p = subprocess.Popen([LIO, "run", compiled("loops"), data(1000), *KERNEL], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    time.sleep(0.1)
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=60)
    assert p.returncode != 0


def test_a_run_that_the_kernel_ends_is_repeated_and_said():
    path = data(4000)
    for name, *cut in (("ponders",), ("carries", "--chunk", "1000", "--threads", "1"),
                       ("carries", "--chunk", "1000", "--threads", "2")):
        argv = (compiled(name), path, "--raw", "--fuel", "20000000000", *cut)
        user, kernel = run(LIO, "run", *argv, "--engine", "user"), run(LIO, "run", *argv, *KERNEL, "--explain")
        assert user[:2] == kernel[:2] and user[0] == 0, (name, cut, user, kernel)
        assert "took too long for the kernel" in kernel[2], kernel[2]


# ---- what it says of itself ----

def test_what_a_run_was_is_told():
    status, out, err = run(LIO, "run", "count", data(), *KERNEL, "--json")
    assert status == 0, err
    result = json.loads(out)["result"]
    assert (result["engine"], result["tier"], result["io"]) == ("kernel", "kernel", "pread"), result
    assert result["compile_ns"] > 0 and "kernel engine: as asked" in result["why"], result


def test_auto_does_not_choose_it():
    status, out, err = run(LIO, "run", "count", data(), "--json")
    assert status == 0 and json.loads(out)["result"]["engine"] == "user", err


def test_a_tier_of_another_engine_is_refused():
    status, _, err = run(LIO, "run", "count", data(), *KERNEL, "--tier", "template")
    assert status == 2 and "EINVAL" in err and "engine kernel" in err, err


def test_what_functions_say_is_shown():
    status, _, err = run(LIO, "run", compiled("says"), data(100), *KERNEL, "--trace")
    assert status in (0, 1) and "so it is" in err, err


def test_it_is_measured_beside_the_others():
    status, out, err = run(LIO, "bench", "stats64", data(), "--tier", "template,kernel", "--repeat", "2", "--json")
    assert status == 0, err
    runs = json.loads(out)["runs"]
    assert [r["tier"] for r in runs] == ["template", "kernel"], runs
    status, out, err = run(LIO, "bench", "stats64", data(), *KERNEL, "--repeat", "2", "--json")
    assert status == 0 and [r["tier"] for r in json.loads(out)["runs"]] == ["kernel"], err
    count = os.path.join(os.path.dirname(LIO), "..", "functions", "count.o")
    if os.path.exists(count):
        status, out, err = run(SBPF, "bench", count, data(), "--tier", "kernel", "--json")
        assert status == 0 and json.loads(out)["tier"] == "kernel", err


# ---- rights ----

def without(*caps):
    return ["setpriv", "--inh-caps=" + ",".join("-" + c for c in caps),
            "--bounding-set=" + ",".join("-" + c for c in caps), LIO]


def test_without_a_capability_one_line_says_which():
    if subprocess.run(["setpriv", "--bounding-set=-bpf", "true"], capture_output=True, check=False).returncode:
        raise Skip("setpriv cannot drop capabilities here")
    for caps, name in ((("bpf", "sys_admin"), "CAP_BPF"), (("perfmon", "sys_admin"), "CAP_PERFMON"), (("all",), "CAP_BPF")):
        status, out, err = run(*without(*caps), "run", "count", data(), *KERNEL)
        assert status == 2 and out == b"" and err.count("\n") == 1, (caps, err)
        assert name in err and "EOPNOTSUPP" in err, (caps, err)
        status, out, err = run(*without(*caps), "features", "--json")
        assert status == 0, err
        by = {f["name"]: f for f in json.loads(out)["features"]}
        assert not by["kernel engine"]["available"] and name in by["kernel engine"]["missing"], by
        assert not by[name]["available"], by[name]
        status, _, err = run(*without(*caps), "run", "count", data())
        assert status == 0, err


def test_features_have_a_row_for_each_requirement():
    status, out, err = run(LIO, "features", "--json")
    assert status == 0, err
    names = [f["name"] for f in json.loads(out)["features"]]
    for part in ("CAP_BPF", "CAP_PERFMON", "bpf(2)", "JIT", "arena", "may_goto", "type information"):
        assert any(part in n for n in names), (part, names)


# ---- what is left behind ----

def kernel_log():
    """What the kernel has logged, or None: klogctl(3), of which 3 reads all and 10 asks how much that is at most."""
    libc = ctypes.CDLL(None)
    size = libc.klogctl(10, None, 0)
    buf = ctypes.create_string_buffer(max(size, 1))
    n = libc.klogctl(3, buf, size)
    return buf.raw[:n].decode(errors="replace").splitlines() if n >= 0 else None


LOG_BEFORE = kernel_log()


def test_the_kernel_has_nothing_to_complain_of():
    if LOG_BEFORE is None:
        raise Skip("the kernel's log is not ours to read")
    new = set(kernel_log()) - set(LOG_BEFORE)
    # Other tests run at the same time: what the kernel says of these programs' processes.
    bad = [line for line in new if re.search(r"Comm: (lio|sbpf)\b|\[(lio|sbpf):\d+\]|\b(lio|sbpf)\[\d+\]", line)]
    assert not bad, "\n".join(bad)


if __name__ == "__main__":
    why = missing()
    if why:
        print(f"1..1\nok 1 - the kernel engine # SKIP {why}")
        sys.exit(0)
    tap.main()
