# SPDX-License-Identifier: Apache-2.0
"""Measure liod beside nbdkit and a bare TCP echo, all in one run over loopback, and write bench/results/device.{json,md}.

  bench/device.py [--size MIB] [--seconds S] [--rounds N] [--idle N] [--active N] [--build DIR] [--out DIR]

Clients: our own initiator (bench/peers/nvme_io.c), and fio's nbd engine for nbdkit's file plugin.  Both servers serve the same
file, once in memory (tmpfs: what serving costs) and once on the disk (liod past the page cache, nbdkit through it: as each
does by default).  A server's CPU time is that of its process, with all its threads.  Programs take turns within a
round; the medians of the rounds are reported.  What is missing is named in the report.
"""
import argparse
import json
import mmap
import os
import platform
import random
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(ROOT, "tests", "wire"))
MIB = 1 << 20
# name, mode of nvme_io, rw of fio, block size, depth
JOBS = [("4 KiB random read, depth 1", "randread", "randread", 4096, 1),
        ("4 KiB random read, depth 32", "randread", "randread", 4096, 32),
        ("4 KiB random write, depth 32", "randwrite", "randwrite", 4096, 32),
        ("128 KiB sequential read, depth 8", "seqread", "read", 131072, 8),
        ("128 KiB sequential write, depth 8", "seqwrite", "write", 131072, 8)]


def sh(*argv):
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True)
    if p.returncode:
        raise SystemExit(f"device.py: {argv[0]}: exit status {p.returncode}: {p.stderr.strip()}")
    return p.stdout


def build_client(build):
    out = os.path.join(build, "bench", "nvme_io")
    os.makedirs(os.path.dirname(out), exist_ok=True)
    libs = [os.path.join(build, "src", *p) for p in (("initiator", "libinitiator.a"), ("nvme", "libnvmewire.a"))]
    sh("gcc", "-D_GNU_SOURCE", "-std=gnu17", "-O2", "-I", os.path.join(ROOT, "include"), "-I", os.path.join(ROOT, "src"),
       os.path.join(HERE, "peers", "nvme_io.c"), *libs, "-lisal", "-lxxhash", "-lpthread", "-o", out)
    return out


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def make_file(path, size):
    """Random bytes: written, so that no store may answer from a hole."""
    block = random.Random(1).randbytes(MIB)
    with open(path, "wb") as f:
        for _ in range(size):
            f.write(block)
        f.flush()
        os.fsync(f.fileno())


# ---- one measurement each: {"iops", "mb_per_s", "p50_us", "p99_us", "server_cpu_s", "seconds"} ----

def ours(client, server, job, seconds, queues=1, bs=None):
    _, mode, _, size, depth = job
    d = json.loads(sh(client, "%s:%d" % server.address, "--nqn", server.nqn, "--mode", mode, "--bs", bs or size, "--qd", depth,
                      "--queues", queues, "--seconds", seconds, "--pid", server.proc.pid))
    return {"iops": d["iops"], "mb_per_s": d["mb_per_s"], "p50_us": d["latency_us"]["p50"], "p99_us": d["latency_us"]["p99"],
            "server_cpu_s": d["server_cpu_s"], "client_cpu_s": d["client_cpu_s"], "seconds": d["seconds"]}


def echo(client, job, seconds):
    _, mode, _, size, depth = job
    d = json.loads(sh(client, "echo", "--mode", mode, "--bs", size, "--qd", depth, "--seconds", seconds))
    return {"iops": d["iops"], "mb_per_s": d["mb_per_s"], "p50_us": d["latency_us"]["p50"], "p99_us": d["latency_us"]["p99"],
            "server_cpu_s": d["server_cpu_s"], "client_cpu_s": d["client_cpu_s"], "seconds": d["seconds"]}


class Nbdkit:
    def __init__(self, path):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.proc = subprocess.Popen(["nbdkit", "-f", "-i", "127.0.0.1", "-p", str(self.port), "file", path],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("device.py: nbdkit does not start")

    def measure(self, job, seconds, size):
        _, _, rw, bs, depth = job
        before = cpu_seconds(self.proc.pid)
        out = sh("fio", "--name=j", "--ioengine=nbd", f"--uri=nbd://127.0.0.1:{self.port}", f"--rw={rw}", f"--bs={bs}",
                 f"--iodepth={depth}", "--time_based", f"--runtime={seconds}", f"--size={size}M", "--lat_percentiles=1",
                 "--clat_percentiles=0", "--output-format=json")
        spent = cpu_seconds(self.proc.pid) - before
        j = json.loads(out[out.index("{"):])["jobs"][0]
        d = j["read" if "read" in rw else "write"]
        wall = d["runtime"] / 1000
        return {"iops": d["iops"], "mb_per_s": d["bw_bytes"] / 1e6, "p50_us": d["lat_ns"]["percentile"]["50.000000"] / 1000,
                "p99_us": d["lat_ns"]["percentile"]["99.000000"] / 1000, "server_cpu_s": spent,
                "client_cpu_s": (j["usr_cpu"] + j["sys_cpu"]) / 100 * wall, "seconds": wall}

    def end(self):
        self.proc.terminate()
        self.proc.wait()


def pread_us(path, direct, n=20000):
    """The median of one 4 KiB pread of the file itself, in µs, the interpreter's call (0.5 µs or so) included."""
    fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    buf, rng, blocks, took = mmap.mmap(-1, 4096), random.Random(3), os.fstat(fd).st_size // 4096, []
    for _ in range(n):
        at = rng.randrange(blocks) * 4096
        t = time.perf_counter_ns()
        os.preadv(fd, [buf], at)
        took.append(time.perf_counter_ns() - t)
    os.close(fd)
    return statistics.median(took) / 1000


# ---- runs ----

def start(path, **config):
    from liod import NQN, Liod
    server = Liod(path, config=config)
    server.nqn = NQN
    server.how = next((line.split('how="')[1].split('"')[0] for line in server.lines if 'how="' in line), "?")
    return server


def compare(client, path, size, seconds, rounds, missing):
    rows = {}
    nbdkit = None
    if shutil.which("nbdkit") and shutil.which("fio"):
        nbdkit = Nbdkit(path)
    else:
        missing.add("nbdkit and fio (packages nbdkit, fio)")
    # nbdkit keeps no lock on the file, so both may have it open; they take turns
    server = start(path)
    try:
        for _ in range(rounds):
            for job in JOBS:
                rows.setdefault((job[0], "liod, our initiator"), []).append(ours(client, server, job, seconds))
                if nbdkit:
                    rows.setdefault((job[0], "nbdkit file, fio nbd"), []).append(nbdkit.measure(job, seconds, size))
                rows.setdefault((job[0], "TCP echo of the same bytes"), []).append(echo(client, job, seconds))
        how = server.how
    finally:
        if nbdkit:
            nbdkit.end()
        server.end()
        server.kill()
    out = []
    for (job, program), runs in rows.items():
        row = {"job": job, "program": program, "rounds": len(runs)}
        for k in runs[0]:
            row[k] = round(statistics.median(r[k] for r in runs), 3)
        row["iops_per_server_cpu_s"] = round(statistics.median(
            r["iops"] * r["seconds"] / r["server_cpu_s"] if r["server_cpu_s"] else 0 for r in runs))
        out.append(row)
    return how, out


def many(client, path, idle, active, seconds):
    """Hosts that only stay connected (an admin and an I/O queue each), then connections that all read at once beside them."""
    from nvmetcp import Host
    from liod import NQN
    per = 31  # I/O queues of one client process, beside its admin queue
    server = start(path, max_connections=idle + active + 100, max_controllers=65000, max_io_queues=64)
    hosts, out = [], {}
    try:
        base = resident(server.proc.pid)
        t = time.monotonic()
        for i in range(idle // 2):
            hosts.append(Host(server.address, NQN, hostid=i.to_bytes(16, "little")))
        out["connect_ms_each"] = round((time.monotonic() - t) / (idle // 2) * 1000, 3)
        out["idle"] = len(hosts) * 2
        out["bytes_per_idle_connection"] = round((resident(server.proc.pid) - base) / max(1, out["idle"]))
        before = cpu_seconds(server.proc.pid)
        time.sleep(5)
        out["idle_cpu_percent"] = round((cpu_seconds(server.proc.pid) - before) / 5 * 100, 2)
        one = ("", "randread", "", 4096, 1)
        out["one_reader_beside_them"] = ours(client, server, one, seconds)
        argv = [client, "%s:%d" % server.address, "--nqn", NQN, "--mode", "randread", "--bs", "4096", "--qd", str(per), "--queues", str(per),
                "--seconds", str(seconds * 2)]
        before, t = cpu_seconds(server.proc.pid), time.monotonic()
        procs = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(active // (per + 1))]
        peak = 0
        while any(p.poll() is None for p in procs):
            peak = max(peak, resident(server.proc.pid))
            time.sleep(0.05)
        wall, spent = time.monotonic() - t, cpu_seconds(server.proc.pid) - before
        got = [json.loads(p.stdout.read()) for p in procs if p.returncode == 0]
        out["active"] = {"connections": len(got) * (per + 1), "failed": len(procs) - len(got), "iops": round(sum(d["ops"] for d in got) / wall),
                         "server_cpu_s": round(spent, 2), "seconds": round(wall, 2), "resident_mib": round(peak / MIB, 1)}
        for k in ("p50", "p99", "p999", "max"):
            values = [d["latency_us"][k] for d in got]
            out["active"][k + "_us"] = {"median": statistics.median(values), "worst": max(values)} if values else None
        out["resident_mib_before"] = round(base / MIB, 1)
    finally:
        for h in hosts:
            h.close()
        server.end(timeout=60)
        server.kill()
    return out


# ---- report ----

def table(head, rows):
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    out += ["| " + " | ".join(str(c) for c in r) + " |" for r in rows]
    return "\n".join(out) + "\n"


def report(r):
    out = ["# The device beside other servers of blocks", "",
           f"{r['when']}, commit {r['commit']}, {r['machine']}, load average {r['load']}.  Command: `{r['command']}`.",
           "Compare within one run only: the machine is shared.", ""]
    for s in r["stores"]:
        out += [f"## A file {s['where']} (liod: {s['how']})", ""]
        by = {(x["job"], x["program"]): x for x in s["rows"]}
        rows = []
        for x in s["rows"]:
            peer = by.get((x["job"], "nbdkit file, fio nbd"))
            small = x["job"].startswith("4 KiB")
            rows.append([x["job"], x["program"], f"{x['iops']:.0f}" if small else "", "" if small else f"{x['mb_per_s']:.0f}",
                         f"{x['p50_us']:.1f}", f"{x['p99_us']:.1f}", f"{x['server_cpu_s'] / x['seconds']:.2f}", f"{x['iops_per_server_cpu_s']}",
                         f"{x['iops'] / peer['iops']:.2f}" if peer else "",
                         f"{x['iops_per_server_cpu_s'] / peer['iops_per_server_cpu_s']:.2f}"
                         if peer and peer["iops_per_server_cpu_s"] else ""])
        out.append(table(["job", "program", "IOPS", "MB/s", "p50 µs", "p99 µs", "server CPUs", "IOs per server CPU second",
                          "× nbdkit's IOs", "× nbdkit's per CPU second"], rows))
        one, bare = by[(JOBS[0][0], "liod, our initiator")], by[(JOBS[0][0], "TCP echo of the same bytes")]
        limit = bare["p50_us"] + s["pread_us"]
        out += [f"One 4 KiB read: {one['p50_us']:.1f} µs; echo {bare['p50_us']:.1f} + pread {s['pread_us']:.1f} = {limit:.1f} µs: "
                f"{(one['p50_us'] / limit - 1) * 100:+.0f} %.", ""]
    m = r["many"]
    if m:
        a = m["active"]
        out += ["## Many connections", "",
                table(["what", "value"],
                      [["idle connections (a stock host's admin and I/O queue each)", m["idle"]],
                       ["connecting one host, with a client in Python, ms", m["connect_ms_each"]],
                       ["server's memory for an idle connection, bytes", m["bytes_per_idle_connection"]],
                       ["server's CPU while they idle, %", m["idle_cpu_percent"]],
                       ["one reader beside them, 4 KiB depth 1: p50, p99 µs",
                        f"{m['one_reader_beside_them']['p50_us']:.1f}, {m['one_reader_beside_them']['p99_us']:.1f}"],
                       ["active connections beside them (failed client processes)", f"{a['connections']} ({a['failed']})"],
                       ["their 4 KiB random reads a second, one in flight each", a["iops"]],
                       ["p50, p99, p99.9, worst ms (median of clients; worst of all)",
                        ", ".join(f"{a[k]['median'] / 1000:.1f}" for k in ("p50_us", "p99_us", "p999_us")) + f", {a['max_us']['worst'] / 1000:.1f}"
                        if a["p50_us"] else ""],
                       ["server's memory, MiB: before, at most", f"{m['resident_mib_before']}, {a['resident_mib']}"]])]
    if r["missing"]:
        out += ["## Not measured", ""] + [f"- {x}" for x in r["missing"]]
    return "\n".join(out) + "\n"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--size", type=int, default=1024, help="MiB of the file")
    p.add_argument("--seconds", type=float, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--idle", type=int, default=10000)
    p.add_argument("--active", type=int, default=1024)
    p.add_argument("--build", default=os.path.join(ROOT, "build"))
    p.add_argument("--out", default=os.path.join(HERE, "results"))
    a = p.parse_args()
    os.environ.setdefault("LIOD", os.path.join(a.build, "tools", "liod"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    missing = set()
    idle = a.idle
    if hard < a.idle + a.active + 300:
        idle = max(0, (hard - a.active - 300) // 2 * 2)
        missing.add(f"{a.idle} idle connections: the limit of descriptors is {hard}, so {idle}")
    client = build_client(a.build)
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    r = {"schema": "lio-bench-device/1", "when": time.strftime("%Y-%m-%d"),
         "commit": sh("git", "-C", ROOT, "rev-parse", "--short", "HEAD").strip(),
         "machine": f"{cpu}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}",
         "load": " ".join(f"{x:.1f}" for x in os.getloadavg()), "command": "make bench", "stores": []}
    work = os.path.join(a.build, "bench")
    places = [("on the disk", work)]
    if os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free > 2 * a.size * MIB:
        places.insert(0, ("in memory", "/dev/shm"))
    else:
        missing.add("a file in memory: /dev/shm has no room")
    for where, folder in places:
        with tempfile.TemporaryDirectory(prefix="lambdaio-bench.", dir=folder) as tmp:
            path = os.path.join(tmp, "disk")
            make_file(path, a.size)
            how, rows = compare(client, path, a.size, a.seconds, a.rounds, missing)
            r["stores"].append({"where": where, "how": how, "rows": rows, "pread_us": round(pread_us(path, "O_DIRECT" in how), 2)})
            if folder != work or len(places) == 1:
                r["many"] = many(client, path, idle, a.active, a.seconds)
    r["missing"] = sorted(missing)
    os.makedirs(a.out, exist_ok=True)
    with open(os.path.join(a.out, "device.json"), "w") as f:
        json.dump(r, f, indent=1)
        f.write("\n")
    text = report(r)
    with open(os.path.join(a.out, "device.md"), "w") as f:
        f.write(text)
    print(text)


if __name__ == "__main__":
    main()
