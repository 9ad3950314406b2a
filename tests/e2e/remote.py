# SPDX-License-Identifier: Apache-2.0
"""lio:// files against liod itself: the same bytes and errors as here, stored files, lost and busy servers."""
import gzip
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import time

import tap
from tap import LIO, SRC, run
from device import LIOD, Server

LINE = re.compile(r"^lio: .+ \([A-Z0-9?]+\)(; .+)?\n$")

FUNCTIONS = {
    "fails": 'LAMBDA_MAP(fails) { (void)ctx; return -EDOM; }',
    "strays": 'LAMBDA_MAP(strays) { (void)ctx; *(volatile char *)96 = 1; return 0; }',
    "scribbles": 'LAMBDA_MAP(scribbles) { *(volatile char *)(uintptr_t)ctx->arg = 1; return 0; }',
    "peeks": 'LAMBDA_MAP(peeks) { return *(volatile char *)((uintptr_t)ctx->in + ctx->in_len + (1u << 20)) & 1; }',
    "copies_out": """LAMBDA_MAP(copies_out) {
        lambda_memcpy(ctx->out, ctx->in, ctx->in_len + (1u << 24)); return 0; }""",
    "overstates": 'LAMBDA_MAP(overstates) { return (int64_t)ctx->out_cap + 1; }',
    "negative": 'LAMBDA_MAP(negative) { (void)ctx; return -100000; }',
    "never_fits": 'LAMBDA_MAP(never_fits) { (void)ctx; return -ENOSPC; }',
    "hungry": 'LAMBDA_HEAP(400ull << 20); LAMBDA_MAP(hungry) { (void)ctx; return 0; }',
    "loops": "LAMBDA_MAP(loops) { volatile uint64_t n = 0; while (ctx) n++; return (int64_t)n; }",
    "traces": 'LAMBDA_MAP(traces) { (void)ctx; lambda_trace("hello", 5); return 0; }',
    "copies": 'LAMBDA_MAP(copies) { lambda_memcpy(ctx->out, ctx->in, ctx->in_len); return (int64_t)ctx->in_len; }',
    "late": """LAMBDA_MAP(late) { lambda_memcpy(ctx->out, ctx->in, ctx->in_len);
        return ctx->flags & LAMBDA_LAST ? -EIO : (int64_t)ctx->in_len; }""",
    # Seconds of work, then a number.
    "works": """struct s { uint64_t n; }; LAMBDA_OUTPUT("n:u64");
        LAMBDA_FOLD(works, struct s) { volatile uint64_t n = 0; while (n < 200000000) n++; st->n += ctx->in_len + n; return 0; }""",
    "sums": """struct s { uint64_t n; }; LAMBDA_ARGS("blob:text"); LAMBDA_OUTPUT("n:u64");
        LAMBDA_FOLD(sums, struct s) { const uint8_t *p = (const uint8_t *)(uintptr_t)ctx->arg;
            for (uint64_t i = 0; i < ctx->arg_len; i++) st->n += p[i];
            return 0; }""",
}
LONG = ["--fuel", "100000000000"]
FOREVER = ["--fuel", str(1 << 49)]
ARGS = {"csv-filter": ["column=2", "op=>", "value=500"], "csv-sum": ["column=1"], "grep": ["77"], "grep-count": ["77"],
        "grep-number": ["7 "], "sample": ["one_in=3"]}


def tmp(name):
    return os.path.join(os.environ["T"], name)


def file(name, data):
    with open(tmp(name), "wb") as f:
        f.write(data)
    return tmp(name)


def function(name):
    """A function of FUNCTIONS, compiled once."""
    path = tmp(name + ".o")
    if not os.path.exists(path):
        source = file(name + ".c", ("#include <errno.h>\n#include <lambdaio/function.h>\n" + FUNCTIONS[name] + "\n").encode())
        status, _, err = run(LIO, "cc", source, "-o", path)
        assert status == 0, err
    return path


class Exports(Server):
    """liod that serves the directory NAME below the test's one as export "x", writable; .dir, .url."""

    def __init__(self, name, *more, x=",rw"):
        self.dir = tmp(name)
        os.makedirs(self.dir, exist_ok=True)
        self.argv = ["--export", f"x={self.dir}{x}", *more]
        self.port = 0

    def start(self):
        super().start()
        self.url = f"lio://{self.at}/x"
        return self

    def put(self, name, data):
        path = os.path.join(self.dir, name)
        with open(path, "wb") as f:
            f.write(data)
        return path

    def get(self, name):
        with open(os.path.join(self.dir, name), "rb") as f:
            return f.read()


def lio(*argv, status=0, **kw):
    got, out, err = run(LIO, *argv, **kw)
    assert got == status, f"status {got} instead of {status}: {argv}\n{err}"
    if status < 2:
        assert err == "", err
    return out


def fails(pattern, *argv, **kw):
    status, out, err = run(LIO, *argv, **kw)
    assert status == 2 and out == b"", f"status {status}: {argv}\n{err}"
    assert LINE.match(err), f"not one line of the form: {err!r}"
    assert re.search(pattern, err), f"{pattern!r} is not in {err!r}"
    return err


def document(*argv, **kw):
    return json.loads(lio(*argv, "--json", **kw))


def text_data():
    rng = random.Random(1)
    return "".join(f"{i},{rng.randrange(1000)}.{rng.randrange(100)},word{i % 77} tcp\n" for i in range(12000)).encode()


def both(server, name, fn, *more):
    """What the function gives here and there: (status, output, error line without the file's name)."""
    here, url = os.path.join(server.dir, name), f"{server.url}/{name}"
    results = []
    for path, names in ((here, [here]), (url, [url, f"x/{name}"])):
        status, out, err = run(LIO, "run", fn, path, *more)
        for n in names:
            err = err.replace(n, "FILE")
        results.append((status, out, err))
    return results


def same(server, name, fn, *more):
    here, there = both(server, name, fn, *more)
    assert here == there, f"{fn} {name} {more}:\nhere  {here[0]} {here[1][:200]} {here[2]}\nthere {there[0]} {there[1][:200]} {there[2]}"
    return here


def wait_for(what):
    for _ in range(1500):
        if what():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come to that")


def running(server):
    return document("device", "stats", server.at)["stats"]["running"]


# ---- functions ----

def test_every_shipped_function_gives_the_same_bytes_as_here():
    with Exports("shipped") as s:
        s.put("text", text_data())
        s.put("noise", random.Random(2).randbytes(400123))
        s.put("empty", b"")
        names = [f["name"] for f in document("functions")["functions"]]
        assert len(names) >= 18
        for fn in names:
            for data in ["text", "noise", "empty"]:
                same(s, data, fn, *ARGS.get(fn, []))
            same(s, "text", fn, *ARGS.get(fn, []), "--chunk", "5000", "--threads", "3", "--offset", "1001", "--length", "200000")


def test_ranges_chunks_tiers_and_threads_change_nothing():
    with Exports("ranges") as s:
        s.put("text", text_data())
        for fn in ["grep", "csv-sum", "sha256", "grep-number"]:
            for more in [["--offset", "77", "--length", "0"], ["--offset", "100K"], ["--offset", "1T"], ["--length", "1"],
                         ["--chunk", "1"], ["--chunk", "4096", "--threads", "1"], ["--tier", "interp"],
                         ["--tier", "template", "--chunk", "1M"], ["--decompress", "none"]]:
                same(s, "text", fn, *ARGS.get(fn, []), *more)


def test_compressed_content_is_decompressed_there_as_here():
    data = text_data()
    with Exports("packed") as s:
        s.put("gz", gzip.compress(data))
        s.put("two", gzip.compress(data[:1000]) + gzip.compress(data[1000:]))
        s.put("cut", gzip.compress(data)[:-9])
        s.put("bad", gzip.compress(data)[:5000] + b"xx" + gzip.compress(data)[5002:])
        names = ["gz", "two", "cut", "bad"]
        if shutil.which("zstd"):
            s.put("zst", subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout)
            names.append("zst")
        for name in names:
            for fn, more in [("grep", ["77"]), ("sha256", []), ("sha256", ["--decompress", "none"]), ("count", ["--offset", "10"])]:
                here, there = both(s, name, fn, *more)
                assert here[:2] == there[:2] and errno_of(here[2]) == errno_of(there[2]), (name, fn, here[2], there[2])
        assert lio("run", "grep", s.url + "/gz", "77") == lio("run", "grep", file("plain", data), "77")


def errno_of(line):
    m = re.search(r"\(([A-Z0-9?]+)\)", line)
    return m and m[1]


def test_budgets_end_a_run_there_as_here():
    with Exports("budgets") as s:
        s.put("text", text_data())
        s.put("long", b"x" * 300000)
        for fn, name, more in [("grep", "text", ["word", "--max-output", "100"]), ("grep", "text", ["word", "--max-output", "1"]),
                               ("count", "text", ["--fuel", "100"]), ("count", "text", ["--fuel", "100000"]),
                               ("grep", "long", ["x", "--memory", "64K"]), (function("loops"), "text", ["--fuel", "100000"]),
                               (function("loops"), "text", ["--timeout", "500ms", "--fuel", str(10**15)])]:
            status, out, err = same(s, name, fn, *more, "--chunk", "64K", "--threads", "1")
            assert status == 2 and out == b"" and errno_of(err) in ("ENOSPC", "ETIME", "EMSGSIZE"), err


def test_hostile_functions_fail_there_as_here():
    with Exports("hostile") as s:
        s.put("text", text_data()[:100000])
        for name in ["fails", "strays", "scribbles", "peeks", "copies_out", "overstates", "negative", "never_fits", "hungry", "late"]:
            for tier in ["interp", "template"]:
                status, _, err = same(s, "text", function(name), "--tier", tier, "--threads", "1")
                assert status == 2 and LINE.match(err), err
        assert lio("run", "count", s.url + "/text") == lio("run", "count", os.path.join(s.dir, "text"))


def test_large_arguments_travel():
    blob = random.Random(3).randbytes(3 << 20)
    with Exports("args") as s:
        s.put("one", b"x")
        same(s, "one", function("sums"), "blob=@" + file("blob", blob))
        assert "requests" in fails(r"\(E2BIG\)", "run", function("sums"), s.url + "/one", "blob=@" + file("blob2", blob * 4))


def test_engine_user_reads_the_bytes_and_runs_here():
    with Exports("user") as s:
        data = s.put("text", text_data())
        s.put("gz", gzip.compress(text_data()))
        for name in ["text", "gz"]:
            for fn in ["grep", "sha256", "grep-number"]:
                here = lio("run", fn, data, *ARGS.get(fn, []))
                assert lio("run", fn, f"{s.url}/{name}", *ARGS.get(fn, []), "--engine", "user", "--chunk", "64K") == here
        d = document("run", "count", s.url + "/text", "--engine", "user")["result"]
        assert d["engine"] == "user" and d["io"] == "pread"
        fails(r"engine device: .* is no file of a server", "run", "count", data, "--engine", "device")
        for more, why in [(["--io", "pread"], "its own choice"), (["--tier", "llvm"], "servers have none")]:
            fails(why, "run", "count", s.url + "/text", "--engine", "device", *more)


def test_the_result_says_what_the_server_did():
    with Exports("result") as s:
        s.put("text", text_data())
        d = document("run", "count", s.url + "/text", "--explain")
        r = d["result"]
        assert r["engine"] == "device" and r["bytes_in"] == len(text_data()) and r["run_ns"] and r["fuel"] and "queue_ns" in r
        assert "device engine" in r["why"] and d["explain"]["file_bytes"] == len(text_data())
        status, _, err = run(LIO, "run", function("traces"), s.url + "/text", "--trace", "--engine", "device")
        assert status == 1 and "none comes from a server" in err
        status, _, err = run(LIO, "run", function("traces"), s.url + "/text", "--trace")
        assert status == 1 and "hello" in err
        assert b"device" in lio("explain", "count", s.url + "/text")


def test_much_output_comes_in_order():
    data = random.Random(4).randbytes(9 << 20)
    with Exports("much") as s:
        s.put("noise", data)
        assert lio("run", function("copies"), s.url + "/noise") == data
        assert lio("run", function("copies"), s.url + "/noise", "--chunk", "64K") == data
        fails(r"\(EIO\)", "run", function("late"), s.url + "/noise", "--chunk", "64K", "--threads", "1")


# ---- λ-write ----

def test_output_is_written_there_whatever_the_input():
    data = text_data()
    here = file("write-in", data)
    want = lio("run", "grep", here, "77")
    with Exports("write") as s, Exports("write2") as other:
        s.put("in", data)
        other.put("in", data)
        for i, (source, more) in enumerate([(here, {}), ("-", {"stdin": data}), (s.url + "/in", {}), (other.url + "/in", {})]):
            assert lio("write", "grep", source, f"{s.url}/out{i}", "77", **more) == b""
            assert s.get(f"out{i}") == want, source
            lio("write", "grep", source, f"{s.url}/out{i}", "77", "--engine", "user", "--offset", "5", **more)
            assert s.get(f"out{i}") == want[:5] + want, source
        lio("write", "grep", s.url + "/in", tmp("local"), "77")
        assert open(tmp("local"), "rb").read() == want
        lio("write", "grep", file("in.gz", gzip.compress(data)), s.url + "/packed", "77")
        assert s.get("packed") == want
        assert lio("write", "grep", file("nothing", b""), s.url + "/none", "77", status=1) == b""
        d = document("write", "grep", here, s.url + "/out0", "77")["result"]
        assert d["engine"] == "device" and d["bytes_written"] == len(want)


def test_much_input_is_streamed():
    data = random.Random(5).randbytes(12 << 20)
    with Exports("stream") as s:
        lio("write", function("copies"), "-", s.url + "/out", stdin=data)
        assert s.get("out") == data


def test_a_write_that_fails_leaves_the_old_bytes():
    with Exports("keep") as s:
        s.put("old", b"old bytes")
        for fn in ["fails", "late", "strays"]:
            fails(r"\(E", "write", function(fn), file("in", text_data()), s.url + "/old")
            assert s.get("old") == b"old bytes"
        fails(r"a fold has one result", "write", "count", file("in", b"x"), s.url + "/old")
        fails(r"\(EDOM\)", "write", function("fails"), file("in", b"x"), s.url + "/never")
        assert not os.path.exists(os.path.join(s.dir, "never"))


# ---- files and directories ----

def test_files_are_listed_copied_renamed_and_removed():
    data = random.Random(6).randbytes(5 << 20)
    here = file("put me", data)
    with Exports("files") as s:
        assert lio("ls", f"lio://{s.at}") == b"x/\n"
        assert lio("ls", s.url, status=1) == b""
        lio("mkdir", s.url + "/d")
        lio("put", here, s.url + "/d/")
        lio("put", "-", s.url + "/d/none", stdin=b"")
        assert lio("ls", s.url + "/d") == b"none\nput me\n"
        assert lio("cat", s.url + "/d/put%20me") == data == s.get("d/put me")
        assert lio("cat", s.url + "/d/put me", "--offset", "1000", "--length", "2M") == data[1000:1000 + (2 << 20)]
        assert lio("cat", s.url + "/d/none", status=1) == b""
        d = document("stat", s.url + "/d/put%20me")
        assert (d["schema"], d["type"], d["bytes"], d["writable"]) == ("lio-stat/1", "file", len(data), True)
        d = document("ls", s.url)
        assert d["schema"] == "lio-ls/1" and [(e["name"], e["type"]) for e in d["entries"]] == [("d", "directory")]
        assert re.match(rb"directory +\d+  [-0-9: ]+Z  d/\n", lio("ls", s.url, "--long"))
        lio("mv", s.url + "/d/put%20me", s.url)
        lio("put", file("new", b"new"), s.url + "/put%20me")
        assert s.get("put me") == b"new"
        fails(r"\(ENOTEMPTY\)", "rm", s.url + "/d")
        lio("rm", s.url + "/d/none", s.url + "/d", s.url + "/put%20me")
        assert os.listdir(s.dir) == []


def test_odd_names_are_reached():
    with Exports("odd") as s:
        for i, name in enumerate([b"a b", b"per%cent", b"new\nline", b"\xff\xfe", "λ".encode(), b"q?x#y", b"-dash", b"=eq", b"[v6]", b"..x"]):
            with open(os.path.join(s.dir.encode(), name), "wb") as f:
                f.write(b"%d" % i)
            assert lio("cat", s.url + "/" + "".join(f"%{c:02x}" for c in name)) == b"%d" % i
        d = document("ls", s.url)
        assert len(d["entries"]) == 10 and any(isinstance(e["name"], dict) for e in d["entries"])
        assert lio("cat", s.url + "//./λ/.") == b"4"
        fails(r"hexadecimal", "cat", s.url + "/%zz")
        fails(r"%2F", "cat", s.url + "/a%2fb")


def test_a_large_directory_is_listed_whole():
    with Exports("large") as s:
        names = sorted(f"a rather long name of a file in a directory {i:05}" for i in range(6000))
        for n in names:
            os.mknod(os.path.join(s.dir, n))
        assert lio("ls", s.url).decode().split("\n")[:-1] == names


def test_what_is_not_there_or_not_allowed_says_so():
    with Exports("rights", "--export", f"ro={tmp('rights')}", "--export", f"dumb={tmp('rights')},functions=none") as s:
        s.put("f", b"words here\n")
        os.mkdir(os.path.join(s.dir, "sub"))
        os.mkfifo(os.path.join(s.dir, "fifo"))
        os.symlink("/etc/passwd", os.path.join(s.dir, "out"))
        base = f"lio://{s.at}"
        fails(r"no such export \(ENOENT\); this server has", "cat", base + "/nope/f")
        fails(r"no such file.*\(ENOENT\)", "run", "count", s.url + "/absent")
        fails(r"\(EISDIR\)", "cat", s.url + "/sub")
        fails(r"\(EISDIR\)", "cat", base)
        fails(r"\(ENOTDIR\)", "cat", s.url + "/f/g")
        fails(r"\(E", "cat", s.url + "/fifo")
        fails(r"\(EXDEV\)", "cat", s.url + "/out")
        fails(r"\(E", "cat", s.url + "/../../etc/passwd")
        fails(r"\(EROFS\)", "put", file("p", b"x"), base + "/ro/p")
        fails(r"\(EROFS\)", "rm", base + "/ro/f")
        fails(r"\(EROFS\)", "write", function("copies"), file("p", b"x"), base + "/ro/f")
        fails(r"\(EACCES\)", "run", "count", base + "/dumb/f")
        assert lio("cat", base + "/dumb/f") == b"words here\n"
        assert lio("run", "count", base + "/dumb/f", "--engine", "user") == lio("run", "count", s.url + "/f")
        fails(r"another server|\(EXDEV\)", "mv", s.url + "/f", base + "/ro/f")
        fails(r"is no path of a server", "ls", s.dir)


def test_addresses_that_are_none_or_where_nobody_listens():
    for url, why in [("lio://", "names no server"), ("lio:///x/f", "names no server"), ("lio://h:0/x/f", "port"),
                     ("lio://h:70000/x/f", "port"), ("lio://::1/x/f", "brackets"), ("lio://[::1/x/f", "bracket"),
                     ("lio://[::1]x/x/f", "IPv6"), ("lio://a b/x/f", "byte"), ("lio://127.0.0.1:1/x/f", "refused")]:
        fails(why, "cat", url)


# ---- servers ----

def test_programs_stats_and_load():
    with Exports("pages") as s:
        s.put("f", b"x\n")
        assert lio("device", "programs", s.at, status=1) == b""
        lio("device", "load", s.at, "count")
        lio("run", "grep", s.url + "/f", "x")
        d = document("device", "programs", "lio://" + s.at)
        assert d["schema"] == "lio-programs/1" and {p["name"]: p["runs"] for p in d["programs"]} == {"count": 0, "grep": 1}
        assert b"grep" in lio("device", "programs", s.at)
        d = document("device", "stats", s.at)
        assert d["schema"] == "lio-server/1" and d["exports"] and "interp" in d["tiers"] and d["limits"]["max_running"]
        assert b"max_running=" in lio("device", "stats", s.at)
        fails(r"usage", "device", "load", s.at)
        fails(r"refused", "device", "stats", "127.0.0.1:1")


def run_until_it_runs(server, *argv):
    """lio run of something that takes a while, once the server has begun with it (or the client ended)."""
    p = subprocess.Popen([LIO, "run", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: running(server) or p.poll() is not None)
    return p


def test_a_server_that_is_killed_and_comes_back_is_asked_again():
    with Exports("again") as s:
        s.put("f", b"x" * 1000)
        want = lio("run", function("works"), s.url + "/f", *LONG)
        p = run_until_it_runs(s, function("works"), s.url + "/f", *LONG)
        s.kill()
        s.start()
        out, err = p.communicate(timeout=120)
        assert (p.returncode, out, err) == (0, want, b""), (p.returncode, out, err)


def test_a_stopped_server_costs_the_time_limit_and_no_more():
    with Exports("stopped") as s:
        s.put("f", b"x" * 1000)
        p = run_until_it_runs(s, function("loops"), s.url + "/f", *FOREVER, "--timeout", "3s")
        s.p.send_signal(signal.SIGSTOP)
        out, err = p.communicate(timeout=120)
        assert p.returncode == 2 and out == b"" and errno_of(err.decode()) == "ETIME", err
        s.p.send_signal(signal.SIGCONT)
        assert lio("run", "count", s.url + "/f") == lio("run", "count", os.path.join(s.dir, "f"))


def test_a_server_that_stays_away_is_an_error():
    with Exports("away") as s:
        s.put("f", b"x" * 1000)
        p = run_until_it_runs(s, function("loops"), s.url + "/f", *FOREVER, "--timeout", "3s")
        s.kill()
        out, err = p.communicate(timeout=120)
        assert p.returncode == 2 and out == b"" and errno_of(err.decode()) in ("ETIME", "ENOLINK", "ECONNRESET"), err
        s.start()


def test_a_write_that_loses_its_server_is_reported():
    with Exports("lost") as s:
        p = subprocess.Popen([LIO, "write", function("copies"), "-", s.url + "/out"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        p.stdin.write(b"a" * (1 << 20))
        p.stdin.flush()
        wait_for(lambda: running(s))
        s.kill()
        s.start()
        out, err = p.communicate(b"b" * (1 << 20), timeout=120)
        assert p.returncode == 2 and LINE.match(err.decode()) and "connection" in err.decode(), err


def test_an_interrupt_ends_a_run_there():
    with Exports("interrupt") as s:
        s.put("f", b"x")
        p = subprocess.Popen([LIO, "run", function("loops"), s.url + "/f", "--fuel", str(1 << 49)], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        wait_for(lambda: running(s))
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
        assert (p.returncode, out, err) == (130, b"", b""), (p.returncode, err)
        wait_for(lambda: not running(s))


def test_a_client_that_is_killed_leaves_nothing_running():
    with Exports("killed") as s:
        s.put("f", b"x")
        p = subprocess.Popen([LIO, "run", function("loops"), s.url + "/f", "--fuel", str(1 << 49)])
        wait_for(lambda: running(s))
        p.kill()
        p.wait()
        wait_for(lambda: not running(s))


def test_a_busy_server_is_waited_for():
    conf = file("busy.conf", b"lambda_max_running = 1\nlambda_max_queued = 1\n")
    with Exports("busy", "--config", conf) as s:
        s.put("text", text_data())
        want = lio("run", "sha256", s.url + "/text", "--tier", "interp")
        many = [subprocess.Popen([LIO, "run", "sha256", s.url + "/text", "--tier", "interp"], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE) for _ in range(12)]
        for p in many:
            out, err = p.communicate(timeout=120)
            assert (p.returncode, out, err) == (0, want, b""), err


if __name__ == "__main__":
    tap.main()
