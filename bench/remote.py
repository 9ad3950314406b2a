# SPDX-License-Identifier: Apache-2.0
"""Measure functions that run in the server beside what people do instead, over a limited link, and write
bench/results/remote.{json,md}.

  bench/remote.py [--size MIB] [--links MBIT,…] [--functions NAME,…] [--rounds N] [--build DIR] [--out DIR] [--no-peers]

Host and device are network namespaces with one core each (testbed.py); 0 is a link without a limit.  The device's cache is warm,
or dropped before each run.  Times are those of whole commands as a person would type them, start to end:

  local    the function on the device's own core, on the file itself: what no network could beat
  device   lio run FUNCTION lio://…: in the server
  plain    the same with --engine user: read through the same protocol, computed here
  nbd, http, rsync   the file through nbdkit, nginx, rsync and the function here

Every answer is compared with the local one.  Latency of single requests is measured by peers/remote_latency.c.  What is
missing on the machine is named in the report.
"""
import argparse
import json
import os
import platform
import random
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, HERE)
from testbed import DEVICE_IP, Testbed  # noqa: E402

MIB = 1 << 20
# name: (file, arguments)
FUNCTIONS = {"grep": ("log", ["lambda-needle"]), "count": ("log", []), "stats64": ("binary", []),
             "csv-sum": ("log", ["column=3", "delimiter= "]), "knn-top": ("binary", []), "sha256": ("binary", []),
             "rowgrep": ("binary", ["DA"])}


def make_log(path, size):
    r = random.Random(7)
    block = b"".join(b"2026-11-%02d %02d:%02d:%02d.%03d %d %s request %d of %s took %d us\n" %
                     (r.randrange(1, 31), r.randrange(24), r.randrange(60), r.randrange(60), r.randrange(1000), r.randrange(10**6),
                      r.choice((b"INFO", b"INFO", b"INFO", b"WARN", b"ERROR")), r.randrange(10**9),
                      b"lambda-needle" if i % 20000 == 77 else r.choice((b"alice", b"bob", b"carol")), r.randrange(10**5))
                     for i in range(100000))
    write_times(path, block, size)


def make_binary(path, size):
    write_times(path, random.Random(1).randbytes(8 * MIB), size)


def write_times(path, block, size):
    with open(path, "wb") as f:
        left = size
        while left:
            left -= f.write(block[:left])
        f.flush()
        os.fsync(f.fileno())


def drop(path):
    with open(path, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(path):
    with open(path, "rb", buffering=0) as f:
        while f.read(4 * MIB):
            pass


def timed(argv, shell=False):
    t = time.monotonic()
    p = subprocess.run(argv, capture_output=True, shell=shell)
    took = time.monotonic() - t
    if p.returncode > 1:
        raise RuntimeError(f"{argv}: exit status {p.returncode}: {p.stderr.decode(errors='replace')[-400:]}")
    return took, p.stdout


class Server:
    """A program on the device's side, until the `with` ends."""

    def __init__(self, bed, argv, port):
        self.log = tempfile.TemporaryFile()
        self.proc = subprocess.Popen(bed.device(*argv), stdout=subprocess.DEVNULL, stderr=self.log)
        for _ in range(100):
            if subprocess.run(bed.host("bash", "-c", f"exec 3<>/dev/tcp/{DEVICE_IP}/{port}"), capture_output=True).returncode == 0:
                return
            if self.proc.poll() is not None:
                break
            time.sleep(0.1)
        self.proc.kill()
        self.log.seek(0)
        raise RuntimeError(f"{argv[0]} does not listen: {self.log.read().decode(errors='replace')[-400:]}")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.proc.send_signal(signal.SIGTERM)
        try:
            self.proc.wait(10)
        except subprocess.TimeoutExpired:
            self.proc.kill()


def liod(bed, a, folder):
    return Server(bed, [os.path.join(a.build, "tools", "liod"), "--listen", f"{DEVICE_IP}:4420", "--insecure-network",
                        "--export", f"data={folder}"], 4420)


# ---- the peers: a server on the device, and a shell line on the host that brings the file to a function ----

def nbd(bed, a, folder, file):
    if not (shutil.which("nbdkit") and shutil.which("nbdcopy")):
        return None
    return (["nbdkit", "-f", "-i", DEVICE_IP, "-p", "10809", "-r", "file", os.path.join(folder, file)], 10809,
            f"nbdcopy --no-extents nbd://{DEVICE_IP}:10809 - | {{run}}", "-")


def http(bed, a, folder, file):
    if not (shutil.which("nginx") and shutil.which("curl")):
        return None
    conf = os.path.join(folder, ".nginx.conf")
    with open(conf, "w") as f:
        f.write(f"daemon off; worker_processes 1; user root; error_log stderr crit; pid {folder}/.nginx.pid; events {{}}\n"
                f"http {{ access_log off; sendfile on; server {{ listen {DEVICE_IP}:8080; root {folder}; }} }}\n")
    return ["nginx", "-c", conf], 8080, f"curl -sS http://{DEVICE_IP}:8080/{file} | {{run}}", "-"


def rsync(bed, a, folder, file):
    if not shutil.which("rsync"):
        return None
    conf = os.path.join(folder, ".rsyncd.conf")
    with open(conf, "w") as f:
        f.write(f"use chroot = no\npid file = {folder}/.rsync.pid\n[data]\npath = {folder}\nuid = 0\n")
    to = os.path.join("/dev/shm", f"lio-bench-{os.getpid()}")
    return (["rsync", "--daemon", "--no-detach", "--port", "8730", f"--address={DEVICE_IP}", f"--config={conf}"], 8730,
            f"rsync -W rsync://{DEVICE_IP}:8730/data/{file} {to} && {{run}}; s=$?; rm -f {to}; exit $s", to)


PEERS = {"nbd": nbd, "http": http, "rsync": rsync}


def command(a, fn, where, args, *more):
    return [os.path.join(a.build, "tools", "lio"), "run", fn, where, *args, "--threads", "1", *more]


def measure_functions(bed, a, folder, results):
    for cache in ("warm", "cold"):
        for fn in a.functions:
            file, args = FUNCTIONS[fn]
            path, url = os.path.join(folder, file), f"lio://{DEVICE_IP}/data/{file}"
            ways = {"local": bed.device(*command(a, fn, path, args, "--engine", "user")),
                    "device": bed.host(*command(a, fn, url, args, "--engine", "device")),
                    "plain": bed.host(*command(a, fn, url, args, "--engine", "user"))}
            took, want = {w: [] for w in ways}, None
            for _ in range(a.rounds):
                for way, argv in ways.items():
                    drop(path) if cache == "cold" else warm(path)
                    t, out = timed(argv)
                    want = out if want is None else want
                    if out != want:
                        raise RuntimeError(f"{fn} {way}: another answer than local")
                    took[way].append(t)
            row = {"link": bed.mbit, "cache": cache, "function": fn, **{w: statistics.median(t) for w, t in took.items()}}
            results["functions"].append(row)
            print(json.dumps(row), flush=True)


def measure_peers(bed, a, folder, results):
    fn = "grep"
    file, args = FUNCTIONS[fn]
    warm(os.path.join(folder, file))
    want = timed(bed.device(*command(a, fn, os.path.join(folder, file), args, "--engine", "user")))[1]
    for name, peer in PEERS.items():
        found = peer(bed, a, folder, file)
        if not found:
            results["missing"].add(name)
            continue
        argv, port, line, where = found
        line = line.format(run=shlex.join(command(a, fn, where, args)))
        with Server(bed, argv, port):
            t = []
            for _ in range(a.rounds):
                s, out = timed(bed.host("bash", "-c", line))
                if out != want:
                    raise RuntimeError(f"{name}: another answer than local")
                t.append(s)
        row = {"link": bed.mbit, "cache": "warm", "function": fn, "peer": name, "seconds": statistics.median(t)}
        results["peers"].append(row)
        print(json.dumps(row), flush=True)


def latency_client(a):
    out = os.path.join(a.build, "bench", "remote_latency")
    os.makedirs(os.path.dirname(out), exist_ok=True)
    lib = os.path.join(a.build, "src", "host")
    p = subprocess.run(["gcc", "-D_GNU_SOURCE", "-std=gnu17", "-O2", "-I", os.path.join(ROOT, "include"),
                        os.path.join(HERE, "peers", "remote_latency.c"), "-L", lib, "-llambdaio", f"-Wl,-rpath,{lib}", "-o", out],
                       capture_output=True, text=True)
    if p.returncode:
        raise RuntimeError(p.stderr)
    return out


def measure_latency(bed, a, folder, results):
    client, url = latency_client(a), f"lio://{DEVICE_IP}/data/binary"
    env = {**os.environ, "LIO_FUNCTIONS": os.path.join(a.build, "functions")}

    def one(what, size, seconds=3):
        p = subprocess.run(bed.host(client, url, what, size, seconds), capture_output=True, text=True, env=env)
        if p.returncode:
            raise RuntimeError(p.stderr)
        return json.loads(p.stdout)

    warm(os.path.join(folder, "binary"))
    rows = {"plain 4 KiB read": one("plain", 4096), "λ-read of one 8-byte record (stats64)": one("stats64", 8),
            "λ-read of one 4 KiB row (rowgrep)": one("rowgrep", 4096), "λ-read of 4 KiB (stats64)": one("stats64", 4096)}
    # Functions keep the device's core busy meanwhile.
    loop = f"while :; do {shlex.join(command(a, 'sha256', url, [], '--engine', 'device'))} >/dev/null; done"
    busy = [subprocess.Popen(bed.host("bash", "-c", loop), start_new_session=True, env=env)
            for i in range(2)]
    try:
        time.sleep(1)
        rows["plain 4 KiB read, functions saturate the server"] = one("plain", 4096, 5)
    finally:
        for p in busy:
            os.killpg(p.pid, signal.SIGKILL)
            p.wait()
    for name, row in rows.items():
        results["latency"].append({"link": bed.mbit, "what": name, **row})
        print(json.dumps(results["latency"][-1], ensure_ascii=False), flush=True)


# ---- the report ----

def link(mbit):
    return f"{mbit / 1000:g} Gbit/s" if mbit else "no limit"


def report(a, results, out):
    size = a.size / 1024
    print("# Functions in the server, beside what people do instead\n", file=out)
    print(f"Made by `{results['command']}` on {results['machine']}, commit {results['commit']}. A file of {size:g} GiB, one core for "
          f"each side, medians of {a.rounds} rounds, whole commands, seconds.\n", file=out)
    print("| link | cache | function | local on the device | λ in the device | plain read, computed on the host | λ over local | plain over λ |",
          file=out)
    print("|---|---|---|---|---|---|---|---|", file=out)
    for r in results["functions"]:
        print(f"| {link(r['link'])} | {r['cache']} | {r['function']} | {r['local']:.3f} | {r['device']:.3f} | {r['plain']:.3f} | "
              f"{r['device'] / r['local']:.2f} | **{r['plain'] / r['device']:.2f}** |", file=out)
    if results["peers"]:
        print("\n| link | grep of the file by | seconds | over λ in the device |\n|---|---|---|---|", file=out)
        for r in results["peers"]:
            ours = next((f["device"] for f in results["functions"] if f["link"] == r["link"] and f["cache"] == "warm" and
                         f["function"] == r["function"]), None)
            ratio = f"{r['seconds'] / ours:.2f}" if ours else ""
            print(f"| {link(r['link'])} | {r['peer']} | {r['seconds']:.3f} | {ratio} |", file=out)
    if results["latency"]:
        print("\n| link | one request at a time | mean | p50 | p99 (µs) |\n|---|---|---|---|---|", file=out)
        for r in results["latency"]:
            print(f"| {link(r['link'])} | {r['what']} | {r['mean_us']:.1f} | {r['p50_us']:.1f} | {r['p99_us']:.1f} |", file=out)
    if results["missing"]:
        print(f"\nNot on this machine, so not measured: {', '.join(sorted(results['missing']))}.", file=out)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", type=int, default=2048, metavar="MIB")
    p.add_argument("--links", default="1000,2500,10000")
    p.add_argument("--functions", default=",".join(FUNCTIONS))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--build", default=os.path.join(ROOT, "build"))
    p.add_argument("--out", default=os.path.join(HERE, "results"))
    p.add_argument("--tmp", default=None, help="where the data go: a file system on the device's disk")
    p.add_argument("--no-peers", action="store_true")
    a = p.parse_args()
    a.functions = a.functions.split(",")
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    results = {"command": "bench/remote.py " + " ".join(x for x in sys.argv[1:] if not x.startswith("/")),
               "machine": f"{os.cpu_count()} cores, Linux {platform.release()}", "commit": commit or "?", "functions": [], "peers": [],
               "latency": [], "missing": set()}
    with tempfile.TemporaryDirectory(prefix="lio-remote.", dir=a.tmp) as folder:
        os.chmod(folder, 0o755)
        make_log(os.path.join(folder, "log"), a.size * MIB)
        make_binary(os.path.join(folder, "binary"), a.size * MIB)
        for mbit in map(int, a.links.split(",")):
            with Testbed(mbit) as bed:
                with liod(bed, a, folder):
                    measure_functions(bed, a, folder, results)
                    measure_latency(bed, a, folder, results)
                if not a.no_peers:
                    measure_peers(bed, a, folder, results)
    results["missing"] = sorted(results["missing"])
    os.makedirs(a.out, exist_ok=True)
    with open(os.path.join(a.out, "remote.json"), "w") as f:
        json.dump(results, f, indent=1)
    with open(os.path.join(a.out, "remote.md"), "w") as f:
        report(a, results, f)
    report(a, results, sys.stdout)


main()
