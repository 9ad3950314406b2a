# SPDX-License-Identifier: Apache-2.0
"""lio as people, scripts and programs meet it: every command, every option, every error's one line."""
import base64
import gzip
import json
import os
import pty
import re
import select
import shutil
import signal
import stat
import struct
import subprocess
import time

import tap
from tap import LIO, SRC, Skip, run

LINE = re.compile(r"^lio: .+ \([A-Z0-9?]+\)(; .+)?\n$")
COMMANDS = ["run", "write", "cc", "test", "info", "functions", "explain", "features", "bench", "ls", "stat",
            "cat", "put", "rm", "mkdir", "mv", "mount", "device"]
NUMBERS = [3, -7, 1 << 40, -(1 << 50), 12]
WORDS = b"apple\nbanana tcp\ncherry\ntcp date\nelderberry"

FUNCTIONS = {
    # What it is given depends on the cut: breaks a map's law.
    "liar": """LAMBDA_OUTPUT("n:u64");
        LAMBDA_MAP(liar) { *(uint64_t *)ctx->out = ctx->in_len; return 8; }""",
    # A merge that forgets one side.
    "forgets": """struct s { uint64_t n; };
        LAMBDA_OUTPUT("n:u64");
        LAMBDA_FOLD(forgets, struct s) { st->n += ctx->in_len; return 0; }
        LAMBDA_MERGE(forgets, struct s) { (void)st; (void)other; return 0; }""",
    "measures": """LAMBDA_ARGS("blob:text"); LAMBDA_OUTPUT("n:u64");
        LAMBDA_MAP(measures) { lambda_store64(ctx->out, ctx->arg_len); return 8; }""",
    "takes": 'LAMBDA_ARGS("k:u8 w:i16[3]=1,2,3"); LAMBDA_MAP(takes) { (void)ctx; return 0; }',
    "fails": 'LAMBDA_MAP(fails) { (void)ctx; return -EDOM; }',
    "strays": 'LAMBDA_MAP(strays) { (void)ctx; *(volatile char *)96 = 1; return 0; }',
    "loops": """LAMBDA_MAP(loops) { volatile uint64_t n = 0; lambda_trace("round and round", 15);
        while (ctx) n++; return (int64_t)n; }""",
    "greets": 'LAMBDA_OUTPUT("text"); LAMBDA_MAP(greets) { (void)ctx; lambda_trace("hi\\033", 3); return 0; }',
    "copies": 'LAMBDA_MAP(copies) { lambda_memcpy(ctx->out, ctx->in, ctx->in_len); return (int64_t)ctx->in_len; }',
    # Copies, then fails on the last piece: output there was must not be shown.
    "late": """LAMBDA_MAP(late) { lambda_memcpy(ctx->out, ctx->in, ctx->in_len);
        return ctx->flags & LAMBDA_LAST ? -EIO : (int64_t)ctx->in_len; }""",
    "lines": """LAMBDA_RECORD_DELIM('\\n'); LAMBDA_OUTPUT("text");
        LAMBDA_MAP(lines) { lambda_memcpy(ctx->out, ctx->in, ctx->in_len); return (int64_t)ctx->in_len; }""",
    "halves": 'LAMBDA_OUTPUT("n:u64"); LAMBDA_MAP(halves) { (void)ctx; return 12; }',
    "rows": """LAMBDA_OUTPUT("name:text pair:u16[2] x:f64 big:u64");
        LAMBDA_MAP(rows) {
            static const uint8_t row[] = "\\3\\0\\0\\0a\\tb\\1\\0\\2\\0\\0\\0\\0\\0\\0\\0\\xf8\\x7f\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff"
                "\\1\\0\\0\\0\\xff\\3\\0\\4\\0\\0\\0\\0\\0\\0\\0\\xe0\\x3f\\1\\0\\0\\0\\0\\0\\0";
            lambda_memcpy(ctx->out, row, sizeof(row)); return sizeof(row); }""",
}


# ---- what the tests lean on ----

def tmp(name):
    return os.path.join(os.environ["T"], name)


def file(name, data):
    with open(tmp(name), "wb") as f:
        f.write(data)
    return tmp(name)


def words():
    return file("words", WORDS)


def numbers():
    return file("numbers", struct.pack(f"<{len(NUMBERS)}q", *NUMBERS))


def function(name):
    """A function of FUNCTIONS, compiled once."""
    path = tmp(name + ".o")
    if not os.path.exists(path):
        source = file(name + ".c", ("#include <errno.h>\n#include <lambdaio/function.h>\n"
                                    + FUNCTIONS[name] + "\n").encode())
        status, _, err = run(LIO, "cc", source, "-o", path)
        assert status == 0, err
    return path


def lio(*argv, status=0, **kw):
    got, out, err = run(LIO, *argv, **kw)
    assert got == status, f"status {got} instead of {status}: {argv}\n{err}"
    if status < 2 and not any(a in ("--explain", "--trace") for a in argv):
        assert err == "", err
    return out


def fails(pattern, *argv, **kw):
    """Status 2, nothing printed, and one line that names what, why and the error."""
    status, out, err = run(LIO, *argv, **kw)
    assert status == 2, f"status {status}: {argv}\n{err}"
    assert out == b"", out
    assert LINE.match(err), f"not one line of the form: {err!r}"
    assert re.search(pattern, err), f"{pattern!r} is not in {err!r}"
    return err


def document(*argv, status=0, **kw):
    return json.loads(lio(*argv, "--json", status=status, **kw))


def on_terminal(*argv, stderr_too=False, feed=None):
    """Standard output (or both) on a terminal; returns (status, text) with plain newlines."""
    master, slave = pty.openpty()
    p = subprocess.Popen([LIO, *map(str, argv)], stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL if stderr_too else slave,
                         stderr=slave if stderr_too else subprocess.PIPE)
    os.close(slave)
    text = b""
    while True:
        if feed and not p.stdin.closed and feed(p.stdin, text):
            p.stdin.close()
        if not select.select([master], [], [], 0.05 if feed else 60)[0]:
            continue
        try:
            data = os.read(master, 65536)
        except OSError:
            break
        if not data:
            break
        text += data
    os.close(master)
    p.wait()
    return p.returncode, text.decode().replace("\r\n", "\n")


# ---- help ----

def test_help_teaches_what_it_is_and_where_to_read_on():
    text = lio("--help").decode()
    for word in ["Examples:", "Commands:", "Exit status", "Read on", *COMMANDS]:
        assert word in text, word
    assert text == lio("help").decode() == lio("-h").decode()
    assert "completion" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_lio_alone_shows_the_help_and_fails():
    status, out, err = run(LIO)
    assert (status, out) == (2, b"") and "Commands:" in err


def test_every_command_explains_its_options_with_examples():
    for c in COMMANDS + ["completion"]:
        text = lio(c, "--help").decode()
        assert text.startswith(f"Usage: lio {c}") and "Examples:" in text
        assert text == lio("help", c).decode() == lio(c, "-h").decode()
    assert all(f"--{o}" in lio("run", "--help").decode() for o in
               "engine tier raw json explain offset length chunk threads fuel timeout memory max-output decompress io "
               "quiet trace".split())


def test_version_is_one_line():
    assert re.fullmatch(rb"lio \d+\.\d+\.\d+\n", lio("--version"))


def test_unknown_commands_and_options_suggest_the_nearest():
    fails(r'rnu: there is no such command \(EINVAL\); did you mean "lio run"\?', "rnu")
    fails(r'"lio --help" lists them', "zzzzzzz")
    fails(r"--verbos: there is no such option before a command", "--verbos")
    fails(r"there is no option --teir \(EINVAL\); did you mean --tier\?", "run", "count", words(), "--teir", "interp")
    fails(r"there is no option -x \(EINVAL\)", "run", "count", words(), "-x")
    fails(r"--raw: it takes no value", "run", "count", words(), "--raw=yes")


# ---- words and values ----

def test_missing_and_extra_words_show_the_usage():
    fails(r"run: nothing was given \(EINVAL\); usage: lio run FUNCTION FILE", "run")
    fails(r"run: something is missing", "run", "count")
    fails(r"write: something is missing", "write", "bitmap", words())
    fails(r"info: grep: one word too many", "info", "count", "grep")
    fails(r"--tier: its value auto\|interp\|template\|llvm is missing", "run", "count", words(), "--tier")


def test_values_of_options_are_checked():
    f = words()
    for option, value, why in [
            ("--tier", "fast", "not one of auto|interp|template|llvm"), ("--engine", "gpu", "not one of auto|user"),
            ("--io", "dma", "not one of auto|mmap|pread"), ("--decompress", "yes", "not one of auto|none"),
            ("--offset", "-1", "not a number of bytes"), ("--length", "1X", "not a number of bytes"),
            ("--length", "1KB", "not a number of bytes"), ("--chunk", "0", "0 is too small"),
            ("--threads", "two", "not a whole number"), ("--threads", "0", "0 is too small"),
            ("--threads", "5000000000", "threads"), ("--fuel", "1e6", "not a whole number"),
            ("--timeout", "5h", "not a time"), ("--timeout", "0s", "0 is too small"),
            ("--memory", "99999999999999999999", "too large"), ("--memory", "16777216T", "too large"),
            ("--max-output", "", "not a number of bytes")]:
        fails(re.escape(why), "run", "count", f, option, value)


def test_sizes_are_powers_of_1024_and_options_may_stand_anywhere():
    f = file("4k", b"x" * 4096)
    for argv in [["--length", "1K", "count", f], ["count", "--length=1k", f], ["count", f, "--length", "1024"]]:
        assert lio("run", *argv) == b"0\t1\t1024\n"


def test_two_dashes_end_the_options():
    f = file("dash", b"--json\nother\n")
    assert lio("run", "--", "grep", f, "--json") == b"--json\n"
    assert lio("run", "grep", f, "pattern=--json") == b"--json\n"
    assert lio("run", "grep", file("minus", b"a-5\n"), "-5") == b"a-5\n"
    os.rename(tmp("dash"), tmp("-dash"))
    assert subprocess.run([LIO, "run", "grep", "--", "-dash", "other"], cwd=os.environ["T"],
                          capture_output=True, check=True).stdout == b"other\n"


# ---- run ----

def test_text_is_printed_as_it_is():
    assert lio("run", "grep", words(), "tcp") == b"banana tcp\ntcp date\n"
    assert lio("run", function("lines"), file("odd", b"\xff\0a\n\n b")) == b"\xff\0a\n\n b"


def test_nothing_found_is_status_1_and_a_fold_always_finds_something():
    assert lio("run", "grep", words(), "nosuch", status=1) == b""
    assert lio("run", "grep-count", words(), "nosuch") == b"0\n"
    assert document("run", "grep", words(), "nosuch", status=1)["lines"] == []
    assert lio("run", "grep", file("empty", b""), "x", status=1) == b""


def test_rows_are_tab_separated_without_header_when_piped():
    want = f"{max(NUMBERS)}\t{min(NUMBERS)}\t{sum(NUMBERS)}\n".encode()
    assert lio("run", "stats64", numbers()) == want


def test_rows_are_an_aligned_table_on_a_terminal():
    status, text = on_terminal("run", "stats64", numbers())
    head, row = text.splitlines()
    assert status == 0 and head.split() == ["max", "min", "sum"]
    assert row.split() == [str(max(NUMBERS)), str(min(NUMBERS)), str(sum(NUMBERS))]
    assert [m.end() for m in re.finditer(r"\S+", head)] == [m.end() for m in re.finditer(r"\S+", row)]


def test_text_fields_and_arrays_fit_a_line():
    assert lio("run", function("rows"), words()) == b"a\\tb\t1,2\tnan\t18446744073709551615\n\xff\t3,4\t0.5\t1\n"


def test_json_has_numbers_as_numbers_and_loses_no_byte():
    d = document("run", function("rows"), words())
    assert d["schema"] == "lio-run/1" and d["function"] == "rows" and d["file"] == words()
    assert d["rows"] == [{"name": "a\tb", "pair": [1, 2], "x": None, "big": (1 << 64) - 1},
                         {"name": {"bytes_base64": "/w=="}, "pair": [3, 4], "x": 0.5, "big": 1}]
    d = document("run", function("lines"), file("mixed", b"caf\xc3\xa9\n\xff\0\nend"))
    assert d["lines"] == ["café", {"bytes_base64": "/wA="}, "end"] and d["final_newline"] is False
    data = bytes(range(256)) * 41
    d = document("run", function("copies"), file("all", data))
    assert base64.b64decode(d["bytes_base64"]) == data


def test_json_result_says_what_it_cost():
    r = document("run", "count", words(), "--tier", "interp", "--threads", "1", "--io", "pread")["result"]
    assert r["bytes_in"] == len(WORDS) and r["bytes_out"] == 24 and r["threads"] == 1
    assert r["engine"] == "user" and r["tier"] == "interp" and r["io"] == "pread" and r["why"]
    for key in ["wall_ns", "io_ns", "run_ns", "compile_ns", "fuel", "calls", "reruns", "trailing_bytes"]:
        assert isinstance(r[key], int), key


def test_json_of_a_file_name_that_is_not_utf8_is_valid():
    name = os.path.join(os.environ["T"].encode(), b"n\xff")
    with open(name, "wb") as f:
        f.write(b"x")
    p = subprocess.run([LIO.encode(), b"run", b"count", name, b"--json"], capture_output=True, check=True)
    assert base64.b64decode(json.loads(p.stdout)["file"]["bytes_base64"]) == name


def test_raw_prints_the_bytes_as_they_are():
    want = struct.pack("<3q", max(NUMBERS), min(NUMBERS), sum(NUMBERS))
    assert lio("run", "stats64", numbers(), "--raw") == want
    assert lio("run", function("copies"), words()) == WORDS
    fails(r"--raw and --json exclude each other", "run", "count", words(), "--raw", "--json")


def test_bytes_are_shown_as_hex_on_a_terminal():
    status, text = on_terminal("run", function("copies"), file("hex", b"0123456789abcdef\x01"))
    assert status == 0 and text.splitlines() == [
        "00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|",
        "00000010  01                                                |.|"]


def test_arguments_go_by_name_by_order_and_from_a_file():
    f = words()
    want = b"apple\ncherry\nelderberry\n"
    assert lio("run", "grep", f, "tcp", "invert=1") == want
    assert lio("run", "grep", f, "invert=1", "pattern=tcp") == want
    assert lio("run", "grep", f, "tcp", "1") == want
    assert lio("run", "grep", f, "pattern=@" + file("pattern", b"date")) == b"tcp date\n"
    fails(r"pattern.*\(EINVAL\)", "run", "grep", f)
    fails(r"colour.*\(EINVAL\)", "run", "grep", f, "tcp", "colour=red")
    fails(r"invert.*\(E(INVAL|RANGE)\)", "run", "grep", f, "tcp", "invert=many")
    fails(r"\(ENOENT\)", "run", "grep", f, "pattern=@" + tmp("missing"))


def test_an_argument_from_a_file_may_fill_the_arguments_window_and_no_more():
    large, o = file("large", b""), function("measures")
    for size, memory, expected in ((300 << 20, "1G", b"%d\n" % (4 + (300 << 20))), (700 << 20, "2G", b"")):
        os.truncate(large, size)
        status, out, err = run(LIO, "run", o, words(), "blob=@" + large, "--memory", memory)
        assert out == expected and (expected or (status == 2 and "(EFBIG)" in err)), (status, err)
    os.remove(large)


def test_adjacent_ranges_add_up():
    f = words()
    whole = lio("run", "grep", f, "e")
    for cut in range(1, len(WORDS), 5):
        a = run(LIO, "run", "grep", f, "e", "--length", cut)[1]
        b = run(LIO, "run", "grep", f, "e", "--offset", cut)[1]
        assert a + b == whole, cut


def test_tiers_chunks_threads_and_ways_in_give_the_same_bytes():
    f = file("many", b"".join(b"%d,%d\n" % (i, i * i % 97) for i in range(20000)))
    want = lio("run", "grep", f, "77")
    for opts in [["--tier", "interp"], ["--tier", "auto"], ["--chunk", "4K"], ["--chunk", "1000", "--threads", "3"],
                 ["--io", "mmap"], ["--io", "pread"], ["--io", "auto"], ["--engine", "user"], ["--engine", "auto"],
                 ["--memory", "64K"], ["--timeout", "10m"], ["--fuel", "1000000000"], ["--max-output", "1G"],
                 ["--quiet"], ["--decompress", "none"]]:
        assert lio("run", "grep", f, "77", *opts) == want, opts
    big = file("big", b"z" * (4 << 20))
    for io in ["mmap", "pread"]:
        assert document("run", "count", big, "--io", io)["result"]["io"] == io
    assert document("run", "grep", f, "77", "--chunk", "4K")["result"]["calls"] > 10


def test_what_this_version_cannot_do_says_so():
    f = words()
    fails(r"device.*\(EOPNOTSUPP\)", "run", "count", f, "--engine", "device")
    features = {x["name"]: x for x in document("features")["features"]}
    if not features["kernel engine"]["available"]:
        fails(r"kernel.*\(EOPNOTSUPP\)", "run", "count", f, "--engine", "kernel")
    if not features["llvm tier"]["available"]:
        fails(r"llvm.*\(EOPNOTSUPP\)", "run", "count", f, "--tier", "llvm")
    fails(r"lio://host:x/export/f: its port is no number .*\(EINVAL\)", "run", "count", "lio://host:x/export/f")


def test_gzip_and_zstd_are_decompressed_by_content():
    data = WORDS * 1000
    f = file("plain.txt", gzip.compress(data))
    assert lio("run", "sha256", f) == lio("run", "sha256", file("raw", data))
    assert document("run", "count", f)["result"]["io"] == "gzip"
    got = document("run", "count", f, "--decompress", "none")
    assert got["rows"][0]["bytes"] == os.path.getsize(f)
    if shutil.which("zstd"):
        subprocess.run(["zstd", "-q", "-f", tmp("raw"), "-o", tmp("z")], check=True)
        assert lio("run", "sha256", tmp("z")) == lio("run", "sha256", f)
    fails(r"\(E[A-Z]+\)", "run", "count", file("torn", gzip.compress(data)[:-9]))


def test_standard_input_and_fifos_work():
    want = lio("run", "sha256", words())
    assert lio("run", "sha256", "-", stdin=WORDS) == want
    assert lio("run", "sha256", "-", stdin=gzip.compress(WORDS)) == want
    assert lio("run", "count", "-") == b"0\t0\t0\n"
    fifo = tmp("fifo")
    os.mkfifo(fifo)
    p = subprocess.Popen([LIO, "run", "sha256", fifo], stdout=subprocess.PIPE)
    with open(fifo, "wb") as f:
        f.write(WORDS)
    assert p.communicate()[0] == want and p.returncode == 0


def closed(fd, *argv):
    p = subprocess.run(["sh", "-c", f'exec {fd}; exec "$0" "$@"', LIO, *argv], capture_output=True, text=True)
    return p.returncode, p.stdout, p.stderr


def test_closed_standard_streams_are_errors_and_nothing_else_takes_their_place():
    status, _, err = closed("<&-", "run", "count", "-")
    assert status == 2 and LINE.match(err) and "standard input" in err and "EBADF" in err, err
    status, _, err = closed(">&-", "run", "count", words())
    assert status == 2 and LINE.match(err) and "standard output" in err and "EBADF" in err, err
    target = file("target", b"")
    closed(">&-", "write", function("copies"), words(), target, "--json")
    with open(target, "rb") as f:
        assert f.read() == WORDS


def test_wrong_files_get_a_line_each():
    d = os.environ["T"]
    fails(r"missing.*\(ENOENT\)", "run", "count", tmp("missing"))
    fails(r"\(EISDIR\)", "run", "count", d)
    fails(r"\(ENOTDIR\)", "run", "count", words() + "/x")
    fails(r"\(EINVAL\)", "run", "count", "")
    fails(r"new.+line: .*\(ENOENT\)", "run", "count", tmp("new\nline"))
    fails(r"new\\x0aline: there is no such command", "new\nline")
    if os.geteuid() != 0:
        f = file("secret", b"x")
        os.chmod(f, 0)
        fails(r"\(EACCES\)", "run", "count", f)


def test_every_failure_names_a_way_out():
    f, o = words(), function("takes")
    for argv in (("run", function("fails"), f), ("run", function("strays"), f), ("run", function("liar"), "/"),
                 ("run", function("halves"), f), ("run", o, f), ("run", o, f, "x"), ("run", o, f, "300"),
                 ("run", o, f, "k=1", "k=2"), ("run", o, f, "1", "1,2"), ("run", o, f, "1", "3..1"), ("run", o, f, "k=@/"),
                 ("run", o, f, "1", "1,2,3", "4"), ("run", "count", f, "--chunk", "x"), ("run", "count", f, "--tier", "jit"),
                 ("run", "count", f, "--chunk"), ("run", "count", f, "--json=1"), ("run", f + ".o", f), ("cc", "nothing.c"),
                 ("bench", "count", f, "--tier", "x"), ("bench", "count", f, "--threads", "x"), ("cc",), ("run",)):
        status, _, err = run(LIO, *argv)
        assert status == 2 and re.search(r" \([A-Z0-9]+\); .*[a-z]", err) and err.count("\n") == 1, (argv, err)


def test_source_is_no_object():
    for name in ("mine.c", "./mine.c"):
        status, _, err = run(LIO, "run", name, words())
        assert status == 2 and "(ENOEXEC)" in err and "lio cc" in err, err


def test_an_object_that_is_none_is_named():
    for bad in (words(), file("empty.o", b"")):
        status, _, err = run(LIO, "run", bad if "/" in bad else "./" + bad, words())
        assert status == 2 and bad in err and "(ENOEXEC)" in err, err


def test_wrong_functions_get_a_line_each():
    f = words()
    fails(r"grpe.*\(ENOENT\); did you mean \"grep\"", "run", "grpe", f)
    fails(r"\(ENOENT\); .*lio functions", "run", "qqqqqqqq", f)
    fails(r"missing.o.*\(ENOENT\)", "run", tmp("missing.o"), f)
    fails(r"\(ENOEXEC\)", "run", file("text.o", b"hello"), f)
    fails(r"\(ENOEXEC\)", "run", file("empty.o", b""), f)
    fails(r"\(EISDIR\)", "run", os.environ["T"] + "/", f)


def test_budgets_are_kept():
    f = words()
    fails(r"\(ETIME\)", "run", function("loops"), f, "--fuel", "100000")
    fails(r"\(ETIME\)", "run", function("loops"), f, "--timeout", "50ms")
    fails(r"\(ENOSPC\)", "run", function("copies"), f, "--max-output", "5")
    fails(r"\(E(NOSPC|MSGSIZE)\)", "run", function("lines"), file("long", b"x" * 300000), "--memory", "64K")


def test_a_functions_own_failure_and_its_faults_are_told():
    fails(r"\(EDOM\)", "run", function("fails"), words())
    assert "0x60" in fails(r"\(EFAULT\)", "run", function("strays"), words())
    fails(r'halves.*not rows of "n:u64" \(EBADMSG\)', "run", function("halves"), words())


def test_partial_output_is_never_shown():
    f = file("pieces", b"y" * (3 << 20))
    fails(r"\(EIO\)", "run", function("late"), f, "--chunk", "64K", "--threads", "1")
    fails(r"\(EIO\)", "run", function("late"), f, "--chunk", "64K", "--json")


def test_a_full_disk_is_a_failure():
    big = file("big", b"z" * (2 << 20))
    for argv in [["run", "count", words()], ["run", function("copies"), big], ["run", "count", words(), "--json"],
                 ["--help"], ["functions"], ["features"], ["info", "count"], ["explain", "count", words()]]:
        with open("/dev/full", "wb") as full:
            p = subprocess.run([LIO, *argv], stdout=full, stderr=subprocess.PIPE, text=True)
        assert p.returncode == 2 and re.match(r"lio: standard output: .* \(ENOSPC\)", p.stderr), (argv, p.stderr)


def test_a_reader_that_leaves_ends_it_quietly():
    big = file("big", b"z" * (2 << 20))
    for restore in [True, False]:
        p = subprocess.Popen([LIO, "run", function("copies"), big], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             restore_signals=restore)
        p.stdout.close()
        assert p.stderr.read() == b""
        assert p.wait() == -signal.SIGPIPE


def test_an_interrupt_ends_a_running_function_and_a_waiting_read_with_130():
    p = subprocess.Popen([LIO, "run", function("loops"), words(), "--trace", "--fuel", str(1 << 62)],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert p.stderr.readline() == b"trace: round and round\n"
    p.send_signal(signal.SIGINT)
    assert p.wait() == 130 and p.stdout.read() == b""
    p.stderr.close()
    p.stdout.close()
    p = subprocess.Popen([LIO, "run", "count", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    while True:  # until the handler stands
        with open(f"/proc/{p.pid}/status") as f:
            caught = int(re.search(r"SigCgt:\s*(\w+)", f.read()).group(1), 16)
        if caught & 1 << (signal.SIGINT - 1):
            break
        time.sleep(0.01)
    p.send_signal(signal.SIGINT)
    assert p.wait() == 130 and p.stdout.read() == b"" and p.stderr.read() == b""
    p.stdin.close()
    p.stdout.close()
    p.stderr.close()


def test_trace_shows_what_a_function_says_without_control_bytes():
    status, out, err = run(LIO, "run", function("greets"), words(), "--trace")
    assert (status, out) == (1, b"") and err.startswith("trace: hi?\n")
    assert run(LIO, "run", function("greets"), words())[2] == ""


def test_progress_is_shown_on_a_terminal_and_wiped():
    def feed(pipe, text):
        pipe.write(b"x" * 8192)
        pipe.flush()
        return b"GB/s" in text

    status, text = on_terminal("run", "count", "-", "--chunk", "4K", stderr_too=True, feed=feed)
    assert status == 0 and "GB/s" in text and text.endswith("\r\x1b[K")
    sent = []

    def quiet(pipe, text):
        pipe.write(b"x" * 8192)
        pipe.flush()
        sent.append(1)
        return len(sent) == 15

    assert on_terminal("run", "count", "-", "--chunk", "4K", "--quiet", stderr_too=True, feed=quiet) == (0, "")


# ---- explain ----

def test_explain_says_what_was_decided_and_why():
    text = lio("explain", "grep", words(), "tcp").decode()
    for word in ["engine", "tier", "input by", "because", "threads", "chunk", "fuel", "memory", "max output", "timeout",
                 "page cache", "time", "calls"]:
        assert word in text, word
    assert "banana" not in text
    d = document("explain", "grep", words(), "tcp", "--timeout", "5s", "--fuel", "1000000", "--chunk", "1M")
    assert d["schema"] == "lio-explain/1" and "lines" not in d
    e = d["explain"]
    assert e["file_bytes"] == len(WORDS) and e["budgets"]["timeout_ns"] == 5 * 10**9
    assert e["budgets"]["fuel"] == 10**6 and e["chunk"] == 1 << 20 and e["kind"] == "map" and e["parallel"]
    assert e["cached_share"] is None or 0 <= e["cached_share"] <= 1
    assert document("explain", "count", "-", stdin=WORDS)["explain"]["file_bytes"] is None
    fails(r"\(ENOENT\)", "explain", "count", tmp("missing"))


def test_run_explains_on_stderr_or_in_the_document():
    status, out, err = run(LIO, "run", "count", words(), "--explain")
    assert (status, out) == (0, b"4\t7\t%d\n" % len(WORDS)) and "because" in err
    d = document("run", "count", words(), "--explain")
    assert d["explain"]["engine_asked"] == "auto" and d["rows"]


# ---- write ----

def test_write_puts_output_at_the_offset_and_never_truncates():
    f = file("out", b"." * 60)
    assert lio("write", function("copies"), words(), f, "--offset", "10") == b""
    with open(f, "rb") as g:
        assert g.read() == b"." * 10 + WORDS + b"." * (50 - len(WORDS))
    lio("write", "grep", words(), f, "pattern=tcp", "--tier", "interp")
    with open(f, "rb") as g:
        assert g.read(20) == b"banana tcp\ntcp date\n"
    assert lio("write", function("copies"), "-", f, stdin=b"AB") == b""
    with open(f, "rb") as g:
        assert g.read(3) == b"ABn"


def test_write_creates_a_file_as_a_redirection_would():
    f = tmp("created")
    old = os.umask(0o027)
    try:
        lio("write", function("copies"), words(), f)
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(f).st_mode) == 0o640
    with open(f, "rb") as g:
        assert g.read() == WORDS
    fails(r"\(EDOM\)", "write", function("fails"), words(), tmp("never"))
    assert not os.path.exists(tmp("never"))


def test_write_leaves_the_file_alone_when_the_function_fails():
    f = file("kept", b"precious")
    fails(r"\(EIO\)", "write", function("late"), words(), f)
    fails(r"\(E[A-Z]+\)", "write", "count", words(), f)
    with open(f, "rb") as g:
        assert g.read() == b"precious"


def test_write_says_what_is_wrong():
    os.mkfifo(tmp("pipe"))
    for stream in ["-", tmp("pipe")]:
        fails(r"a stream has no offset to write at \(ESPIPE\)", "write", function("copies"), words(), stream)
    fails(r"\(EISDIR\)", "write", function("copies"), words(), os.environ["T"])
    fails(r"\(ENOENT\)", "write", function("copies"), tmp("missing"), tmp("x"))
    fails(r"\(ENOENT\)", "write", function("copies"), words(), tmp("no/such/dir"))
    assert fails(r"\(ENOSPC\)", "write", function("copies"), words(), "/dev/full")
    assert not os.path.exists(tmp("x"))


def test_write_reports_as_json_or_explains_and_empty_output_is_status_1():
    d = document("write", function("copies"), words(), tmp("w"), "--offset", "1K")
    assert d["schema"] == "lio-write/1" and d["offset"] == 1024 and d["input"] == words() and d["file"] == tmp("w")
    assert d["result"]["bytes_written"] == d["result"]["bytes_out"] == len(WORDS)
    assert "because" in run(LIO, "write", function("copies"), words(), tmp("w"), "--explain")[2]
    assert document("write", function("copies"), words(), tmp("w"), "--explain")["explain"]["kind"] == "map"
    assert lio("write", "grep", words(), tmp("w"), "nosuch", status=1) == b""


# ---- info, functions, features ----

def test_info_tells_what_an_object_says_of_itself():
    text = lio("info", "knn-top").decode()
    for word in ["fold", "2048 bytes each", "k: u32, default 10", "query: i64[255], default [0,1,2", "distance: i64",
                 "instructions", "helpers"]:
        assert word in text, word
    d = document("info", "grep")
    assert d["schema"] == "lio-info/1" and d["kind"] == "map" and d["parallel"] is True
    assert d["records"] == {"kind": "delimited", "delimiter": 10} and d["output"] == {"shape": "text"}
    assert d["arguments"][0] == {"name": "pattern", "type": "text", "required": True, "default": None}
    assert d["arguments"][1] == {"name": "invert", "type": "u8", "required": False, "default": 0}
    assert d["instructions"] > 0 and all(h.startswith("lambda_") for h in d["helpers"])
    d = document("info", "stats64")
    assert d["records"] == {"kind": "fixed", "bytes": 8}
    assert d["output"]["columns"] == [{"name": n, "type": "i64"} for n in ["max", "min", "sum"]]
    assert document("info", function("copies"))["records"] == {"kind": "any"}
    fails(r"\(ENOENT\)", "info", "nosuchfunction")
    fails(r"\(ENOEXEC\)", "info", file("text.o", b"hello"))


def test_functions_lists_what_can_be_run_by_name():
    d = document("functions")
    names = [f["name"] for f in d["functions"]]
    assert d["schema"] == "lio-functions/1" and names == sorted(names)
    assert {"grep", "count", "sha256", "stats64", "knn-top", "bitmap"} <= set(names)
    text = lio("functions").decode()
    assert all(re.search(rf"^{n} ", text, re.M) for n in names)
    for f in d["functions"]:
        assert f["doc"] and f["kind"] in ("map", "scan", "fold")
    own = os.path.join(os.environ["T"], "own")
    os.mkdir(own)
    assert lio("functions", status=1, env={"LIO_FUNCTIONS": own}).startswith(b"function")
    shutil.copy(function("copies"), own)
    env = {"LIO_FUNCTIONS": own}
    assert [f["name"] for f in document("functions", env=env)["functions"]] == ["copies"]
    assert lio("run", "copies", words(), env=env) == WORDS
    assert "copies" in lio("info", "copies", env=env).decode() and b"grep" in lio("info", "grep", env=env)
    fails(r"functions: .*\(ENOENT\); set LIO_FUNCTIONS", "functions", env={"LIO_FUNCTIONS": tmp("nowhere")})


def test_features_says_what_is_missing():
    d = document("features")
    assert d["schema"] == "lio-features/1" and d["version"]
    by = {f["name"]: f for f in d["features"]}
    assert by["user engine"]["available"] and by["interp tier"]["available"]
    for f in d["features"]:
        assert f["available"] or f["missing"], f
    assert len(lio("features").splitlines()) == len(d["features"])


# ---- test and bench ----

def test_the_law_of_functions_that_keep_it_holds():
    out = lio("test", "count", words()).decode()
    assert re.match(r"count: the same 24 bytes of output from %d bytes in \d+ runs with \d+ cuts \(tiers interp" % len(WORDS), out)
    for argv in [["grep", words(), "tcp"], ["grep-number", words(), "tcp"], ["sha256", words()], ["stats64", numbers()],
                 [function("copies"), file("one", b"x")], ["grep", file("empty", b""), "x"]]:
        lio("test", *argv, "--rounds", "8")
    d = document("test", "stats64", numbers(), "--rounds", "3", "--seed", "9", "--length", "16", "--offset", "8")
    assert d["schema"] == "lio-test/1" and d["rounds"] == 3 and d["seed"] == 9 and d["bytes_in"] == 16
    assert d["bytes_out"] == 24 and d["runs"] > 3 and d["kind"] == "fold"


def test_a_broken_law_is_told_with_what_finds_it_again():
    f = file("law", bytes(5000))
    line = fails(r"liar: tier interp, \d thread.*, cut at \d+: output .*\(EBADMSG\); a map", "test", function("liar"), f)
    seed = re.search(r"--seed (\d+) --rounds 1", line).group(1)
    assert fails(r"cut at", "test", function("liar"), f, "--seed", seed, "--rounds", "1") == line
    fails(r"forgets: .*check the merge", "test", function("forgets"), f)
    fails(r"fails.*\(EDOM\)|\(EDOM\)", "test", function("fails"), f)
    fails(r"\(ESPIPE\); give a file", "test", "count", "-")
    with open(tmp("sparse"), "wb") as f:
        f.truncate(100 << 20)
    fails(r"--length: more than 64M", "test", "count", tmp("sparse"), "--length", "65M")


def test_bench_measures_tiers_and_threads():
    f = file("bench", b"word " * 20000)
    d = document("bench", "count", f, "--tier", "interp,auto", "--threads", "1,2", "--repeat", "3")
    assert d["schema"] == "lio-bench/1" and d["repeat"] == 3
    assert len(d["runs"]) == 4 and d["runs"][0]["tier"] == "interp"
    for r in d["runs"]:
        assert r["best_ns"] <= r["median_ns"] and r["gb_per_s"] > 0 and r["best"]["bytes_in"] == 100000
    head, *rows = lio("bench", "count", f, "--repeat", "1").decode().splitlines()
    assert head.split() == ["tier", "threads", "best", "median", "GB/s", "input", "function"] and rows
    fails(r'--tier: "fast" is not one of', "bench", "count", f, "--tier", "interp,fast")
    fails(r'--threads: "x" is not a number', "bench", "count", f, "--threads", "1,x")
    fails(r"\(ESPIPE\); give a file", "bench", "count", "-")
    fails(r"\(EDOM\)", "bench", function("fails"), f)


# ---- cc, as far as the table goes; its own tests stand in cc.py ----

def test_cc_compiles_what_run_runs_and_its_help_comes_from_the_table():
    assert "--mcpu" in lio("cc", "--help").decode() and "-o F.o" in lio("cc", "--help").decode()
    fails(r"cc: ", "cc")
    fails(r"\(ENOENT\)", "cc", tmp("missing.c"))


# ---- completion and manual ----

def test_the_example_of_the_manual_compiles_keeps_its_law_and_counts():
    with open(os.path.join(SRC, "man/lambda-function.7.scd")) as f:
        source = re.search(r"```\n(#include.*?)```", f.read(), re.S).group(1)
    lio("cc", file("count_byte.c", source.encode()), "-o", tmp("count_byte.o"))
    lio("test", tmp("count_byte.o"), words())
    assert lio("run", tmp("count_byte.o"), words()) == b"%d\n" % WORDS.count(b"\n")
    assert lio("run", tmp("count_byte.o"), words(), "byte=0x61") == b"%d\n" % WORDS.count(b"a")


def test_completion_scripts_are_sound_and_complete_from_the_tables():
    script = lio("completion", "bash").decode()
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)

    def complete(*words_):
        quoted = " ".join(f"'{w}'" for w in words_)
        code = f"{script}\nPATH={os.path.dirname(LIO)}:$PATH\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words_) - 1}\n" \
               "_lio; printf '%s\\n' \"${COMPREPLY[@]}\""
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert complete("lio", "f") == ["functions", "features"]
    assert complete("lio", "run", "grep") == ["grep", "grep-count", "grep-number"]
    assert complete("lio", "run", "grep", "f", "--ti") == ["--tier", "--timeout"]
    assert complete("lio", "run", "grep", "f", "--io", "") == ["auto", "mmap", "pread"]
    for shell in ["zsh", "fish"]:
        text = lio("completion", shell).decode()
        assert all(c in text for c in COMMANDS) and "tier" in text
        if shutil.which(shell):
            subprocess.run([shell, "-n"], input=text, text=True, check=True)
    assert b"grep\n" in lio("completion", "functions")
    fails(r'"tcsh" is not known', "completion", "tcsh")


def test_the_manual_has_every_command_and_option():
    text = lio("completion", "man").decode()
    assert all(f"## lio {c} " in text for c in COMMANDS)
    assert all(f"*--{o}*" in text for o in ["engine", "max-output", "rounds", "repeat", "decompress", "mcpu"])
    if not shutil.which("scdoc"):
        raise Skip("scdoc is not installed")
    with open(os.path.join(SRC, "man/lio.1.scd")) as a, open(os.path.join(SRC, "man/lio.1.tail.scd")) as b:
        page = a.read() + text + b.read()
    made = subprocess.run(["scdoc"], input=page, capture_output=True, text=True, check=True).stdout
    assert "EXIT STATUS" in made and "\\-\\-max-output" in made.replace("--", "\\-\\-")


if __name__ == "__main__":
    tap.main()
