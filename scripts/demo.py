# SPDX-License-Identifier: Apache-2.0
"""The main job on real input: λ-functions over a TPC-H table, text and binaries, each answer checked
against an independent program.  demo.py SCALE-FACTOR; run it through `make demo`."""
import array
import glob
import heapq
import itertools
import os
import struct
import subprocess
import sys
import threading
import time

import duckdb

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bench"))
import testbed  # noqa: E402

LIO = os.path.join(ROOT, "build", "tools", "lio")
LIOD = os.path.join(ROOT, "build", "tools", "liod")
DIR = os.path.join(ROOT, "build", "demo")


def output(*argv):
    return subprocess.run(argv, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C"}).stdout


# ---- the input ----

def lineitem(scale):
    path = os.path.join(DIR, f"sf{scale}", "lineitem.tbl")
    if not os.path.exists(path):
        tpchgen = os.path.join(os.path.dirname(sys.executable), "tpchgen-cli")
        output(tpchgen, "-s", scale, "--tables=lineitem", f"--output-dir={os.path.dirname(path)}")
    return path


def gathered(name, patterns, limit, multiple):
    """One file from what every Debian has, cut to a multiple of some record size."""
    path = os.path.join(DIR, name)
    if not os.path.exists(path):
        parts, size = [], 0
        for f in sorted(itertools.chain(*map(glob.glob, patterns))):
            if size < limit and os.path.isfile(f) and os.access(f, os.R_OK):
                parts.append(open(f, "rb").read())
                size += len(parts[-1])
        data = b"".join(parts)[:limit]
        with open(path + ".new", "wb") as out:
            out.write(data[:len(data) // multiple * multiple])
        os.rename(path + ".new", path)
    return path


def run_lengths(source):
    """What the bitmap function expands: pairs of a count (1 to 255) and a byte."""
    path = os.path.join(DIR, "pairs")
    pairs = bytearray()
    for byte, run in itertools.groupby(open(source, "rb").read()):
        n = len(list(run))
        while n > 0:
            pairs += bytes((min(n, 255), byte))
            n -= 255
    with open(path, "wb") as out:
        out.write(pairs)
    return path


# ---- the independent answers ----

def python_stats64(path):
    v = array.array("q", open(path, "rb").read())
    total = (sum(v) + 2**63) % 2**64 - 2**63
    return f"{max(v)}\t{min(v)}\t{total}\n".encode()


def python_knn(path, k):
    """L1 distance to 0…254 in 64-bit arithmetic that wraps, as the function documents."""
    mask, found = 2**64 - 1, []
    data = open(path, "rb").read()
    for row in struct.iter_unpack("<256q", data):
        d = sum(abs(x - q) & mask if abs(x - q) < 2**63 else (x - q) & mask for q, x in enumerate(row[1:]))
        d &= mask
        found.append((d, row[0]))
    return "".join(f"{i}\t{d}\n" for d, i in heapq.nsmallest(k, found)).encode()


def feature_rows(source, rows):
    """2,048-byte rows for knn: an id and 255 features, the bytes of a real file as small integers."""
    path = os.path.join(DIR, "rows")
    data = open(source, "rb").read()[:rows * 255]
    with open(path, "wb") as out:
        for i in range(len(data) // 255):
            out.write(struct.pack("<256q", i, *data[i * 255:(i + 1) * 255]))
    return path


def duckdb_sum(path):
    n, total, low, high = duckdb.sql(
        f"""select count(*), sum(column05), min(column05), max(column05)
            from read_csv('{path}', delim='|', header=false, types={{'column05': 'DECIMAL(15,2)'}})"""
    ).fetchall()[0]
    return n, total, low, high


# ---- the table ----

rows = []


def case(title, argv, answer, path, write_to=None):
    start = time.perf_counter()
    p = subprocess.run([LIO, *argv], capture_output=True)
    took = time.perf_counter() - start
    got = open(write_to, "rb").read() if write_to else p.stdout
    want = answer()
    same = p.returncode == 0 and got == want
    rows.append((title, os.path.getsize(path), len(got), took, same))
    if not same:
        print(f"{title}: lio exited {p.returncode} {p.stderr.decode().strip()}\n"
              f"  lio:   {got[:200]!r}\n  check: {want[:200]!r}", file=sys.stderr)


# ---- the same functions in a server behind a slow link ----

class Here:
    """Where network namespaces are not to be had: both sides are this machine, and the link is as fast as it is."""
    where, link = "127.0.0.1", "loopback"

    def host(self, *argv):
        return list(map(str, argv))

    device = host

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass


class Gigabit(testbed.Testbed):
    where, link = testbed.DEVICE_IP, "a link of 1 Gbit/s"

    def __init__(self):
        super().__init__(1000)


def machines():
    try:
        with Gigabit():
            return Gigabit()
    except (SystemExit, RuntimeError, OSError) as e:
        print(f"no network namespaces here ({e}): the server is reached over loopback instead")
        return Here()


def timed(argv):
    start = time.perf_counter()
    p = subprocess.run(argv, capture_output=True)
    return time.perf_counter() - start, p.stdout if p.returncode == 0 else f"exit status {p.returncode}: ".encode() + p.stderr


def remote(table):
    """In the server, beside reading the file from it and computing here: the same answers."""
    name, out = os.path.basename(table), []
    with machines() as bed:
        serve = [LIOD, "--listen", f"{bed.where}:0", "--export", f"data={os.path.dirname(table)}"]
        if bed.where != "127.0.0.1":
            serve.append("--insecure-network")
        server = subprocess.Popen(bed.device(*serve), stderr=subprocess.PIPE, text=True)
        try:
            for line in server.stderr:
                if "listening address=" in line:
                    break
            threading.Thread(target=server.stderr.read, daemon=True).start()
            url = f"lio://{line.split('listening address=')[1].strip()}/data/{name}"
            for fn, args, answer in (("grep", ["TRUCK"], output("grep", "-F", "TRUCK", table)),
                                     ("sha256", [], output("sha256sum", table)[:64] + b"\n")):
                took = {}
                for engine in ("device", "user"):
                    took[engine], got = timed(bed.host(LIO, "run", fn, url, *args, "--engine", engine))
                    rows.append((f"{fn} {'in the server' if engine == 'device' else 'read from the server'}", os.path.getsize(table),
                                 len(got), took[engine], got == answer))
                    if got != answer:
                        print(f"{fn} {engine}: {got[:300]!r}", file=sys.stderr)
                out.append(f"{fn} is {took['user'] / took['device']:.1f} times as fast in the server")
        finally:
            server.terminate()
            server.wait(20)
        return bed.link, out


def main():
    scale = sys.argv[1]
    os.makedirs(DIR, exist_ok=True)
    print(f"lambda-io demo: functions over TPC-H lineitem (scale {scale}), Debian's texts and binaries")
    table = lineitem(scale)
    text = gathered("text", ["/usr/share/common-licenses/*", "/usr/share/doc/*/copyright",
                             "/usr/share/perl/5*/**/*.p[lm]"], 32 << 20, 1)
    binary = gathered("binary", ["/usr/bin/*", "/usr/lib/*-linux-gnu/*.so.*"], 64 << 20, 4096)
    pairs, features = run_lengths(text), feature_rows(binary, 8192)
    expanded = os.path.join(DIR, "expanded")
    if os.path.exists(expanded):
        os.unlink(expanded)

    case("grep TRUCK, lineitem", ["run", "grep", table, "TRUCK"], lambda: output("grep", "-F", "TRUCK", table), table)
    case("grep warranty, text", ["run", "grep", text, "warranty"],
         lambda: output("grep", "-a", "-F", "warranty", text), text)
    case("count, lineitem", ["run", "count", table],
         lambda: b"\t".join(output("wc", table).split()[:3]) + b"\n", table)
    case("stats64, binaries", ["run", "stats64", binary], lambda: python_stats64(binary), binary)
    case("sha256, lineitem", ["run", "sha256", table], lambda: output("sha256sum", table)[:64] + b"\n", table)
    case("csv-sum of l_extendedprice", ["run", "csv-sum", table, "delimiter=|", "column=6"],
         lambda: ("%s\t%s\t%s\t%s\t0\n" % (lambda n, s, lo, hi: (s, n, lo, hi))(*duckdb_sum(table))).encode(), table)
    case("knn-top 10, rows from binaries", ["run", "knn-top", features], lambda: python_knn(features, 10), features)
    case("bitmap, by lio write", ["write", "bitmap", pairs, expanded], lambda: open(text, "rb").read(), pairs, expanded)

    link, remarks = remote(table)

    line = "{:<32} {:>12} {:>12} {:>9} {:>7}  {}"
    print(line.format("function", "bytes in", "bytes out", "time", "GB/s", "same answer"))
    for title, size, out, took, same in rows:
        print(line.format(title, f"{size:,}", f"{out:,}", f"{took * 1e3:.1f} ms", f"{size / took / 1e9:.2f}",
                          "yes" if same else "NO"))
    print(f"lineitem over {link}: " + "; ".join(remarks))
    print("times are of whole commands, start to end; checked against grep, wc, sha256sum, DuckDB and Python")
    sys.exit(0 if all(r[4] for r in rows) else 1)


main()
