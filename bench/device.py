# SPDX-License-Identifier: Apache-2.0
"""Measure liod beside nbdkit and a bare TCP echo, all in one run over loopback, and write bench/results/device.{json,md}.

  bench/device.py [--size MIB] [--seconds S] [--rounds N] [--idle N] [--active N] [--build DIR] [--out DIR]

Clients: our own initiator (bench/peers/nvme_io.c), and fio's nbd engine for nbdkit's file plugin.  Both servers serve the same
file, once in memory (tmpfs: what serving costs) and once on the disk, where liod has a second file that it goes to past the page
cache, its default.  A server's CPU time is that of its process, with all its threads.  Programs take turns within a round;
the medians of the rounds are reported.  Latencies are from submission to completion.  What is missing is named in the report.

One read at a time is measured twice: wherever the system puts the two ends, and with both on one core.  Where a core that has
nothing to do is slow to wake (virtual machines: 30 us and more) the first says mostly that, for a bare echo too; the
second adds up what either end computes.  Beside it is the least that a server of that file can do: an echo that reads the block first.
"""
import argparse
import contextlib
import json
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
ONE_CORE = "4 KiB random read, depth 1, both ends on one core"
JOBS = [("4 KiB random read, depth 1", "randread", "randread", 4096, 1),
        (ONE_CORE, "randread", "randread", 4096, 1),
        ("4 KiB random read, depth 32", "randread", "randread", 4096, 32),
        ("4 KiB random write, depth 32", "randwrite", "randwrite", 4096, 32),
        ("128 KiB sequential read, depth 8", "seqread", "read", 131072, 8),
        ("128 KiB sequential write, depth 8", "seqwrite", "write", 131072, 8)]


OURS, CACHED, NBDKIT, ECHO = "liod, our initiator", "liod ,buffered, our initiator", "nbdkit file, fio nbd", "TCP echo of the same bytes"
ECHO_PREAD, ECHO_DIRECT = "TCP echo and pread", "TCP echo and pread, O_DIRECT"


def sh(*argv):
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=180)
    if p.returncode:
        raise SystemExit(f"device.py: {argv[0]}: exit status {p.returncode}: {p.stderr.strip()}")
    return p.stdout


@contextlib.contextmanager
def placed(job, *pids):
    """Where a job wants that, these processes, we and all that we start are on one core meanwhile."""
    cores = os.sched_getaffinity(0)

    def put(where):
        for pid in pids:
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):  # a thread that ended meanwhile
                    os.sched_setaffinity(int(task), where)
        os.sched_setaffinity(0, where)
    if job[0] == ONE_CORE:
        put({max(cores)})
    try:
        yield
    finally:
        if job[0] == ONE_CORE:
            put(cores)


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

def ours(client, server, job, seconds, nsid=1):
    _, mode, _, size, depth = job
    with placed(job, server.proc.pid):
        d = json.loads(sh(client, "%s:%d" % server.address, "--nqn", server.nqn, "--nsid", nsid, "--mode", mode, "--bs", size, "--qd", depth,
                          "--seconds", seconds, "--pid", server.proc.pid))
    return {"iops": d["iops"], "mb_per_s": d["mb_per_s"], "p50_us": d["latency_us"]["p50"], "p99_us": d["latency_us"]["p99"],
            "server_cpu_s": d["server_cpu_s"], "client_cpu_s": d["client_cpu_s"], "seconds": d["seconds"]}


def echo(client, job, seconds, *more):
    _, mode, _, size, depth = job
    with placed(job):
        d = json.loads(sh(client, "echo", "--mode", mode, "--bs", size, "--qd", depth, "--seconds", seconds, *more))
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
        with placed(job, self.proc.pid):
            out = self.fio(rw, bs, depth, seconds, size)
        spent = cpu_seconds(self.proc.pid) - before
        j = json.loads(out[out.index("{"):])["jobs"][0]
        d = j["read" if "read" in rw else "write"]
        wall = d["runtime"] / 1000
        # The whole latency, "lat": fio's "clat" of this engine is only the time in which it looks for answers.
        return {"iops": d["iops"], "mb_per_s": d["bw_bytes"] / 1e6, "p50_us": d["lat_ns"]["percentile"]["50.000000"] / 1000,
                "p99_us": d["lat_ns"]["percentile"]["99.000000"] / 1000, "server_cpu_s": spent,
                "client_cpu_s": (j["usr_cpu"] + j["sys_cpu"]) / 100 * wall, "seconds": wall}

    def fio(self, rw, bs, depth, seconds, size):
        return sh("fio", "--name=j", "--ioengine=nbd", f"--uri=nbd://127.0.0.1:{self.port}", f"--rw={rw}", f"--bs={bs}",
                 f"--iodepth={depth}", "--time_based", f"--runtime={seconds}", f"--size={size}M", "--lat_percentiles=1",
                 "--clat_percentiles=0", "--output-format=json")

    def end(self):
        self.proc.terminate()
        self.proc.wait()


# ---- runs ----

def start(*files, **config):
    from liod import NQN, Liod
    server = Liod(*files, config=config)
    server.nqn = NQN
    server.how = [line.split('how="')[1].split('"')[0] for line in server.lines if 'how="' in line]
    return server


def compare(client, path, size, seconds, rounds, missing):
    """liod's store as it is by default and, if that leaves the page cache out, one that does not, on a file that nbdkit serves too."""
    rows, nbdkit, cached = {}, None, path
    server = start(path)
    if "O_DIRECT" in server.how[0]:
        cached = path + ".cached"
        make_file(cached, size)
        server.end()
        server.kill()
        server = start(path, cached + ",buffered")
    if shutil.which("nbdkit") and shutil.which("fio"):
        nbdkit = Nbdkit(cached)  # it keeps no lock: both may have the file open
    else:
        missing.add("nbdkit and fio (packages nbdkit, fio)")
    try:
        for _ in range(rounds):
            for job in JOBS:
                rows.setdefault((job[0], OURS), []).append(ours(client, server, job, seconds))
                if cached != path:
                    rows.setdefault((job[0], CACHED), []).append(ours(client, server, job, seconds, nsid=2))
                if nbdkit:
                    rows.setdefault((job[0], NBDKIT), []).append(nbdkit.measure(job, seconds, size))
                rows.setdefault((job[0], ECHO), []).append(echo(client, job, seconds))
                if job[4] > 1:
                    continue
                rows.setdefault((job[0], ECHO_PREAD), []).append(echo(client, job, seconds, "--file", cached))
                if cached != path:
                    rows.setdefault((job[0], ECHO_DIRECT), []).append(echo(client, job, seconds, "--file", path, "--direct"))
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
    return {"how": server.how, "rows": out}


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
        out["connect_ms_each"] = round((time.monotonic() - t) / max(1, idle // 2) * 1000, 3)
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
        out += [f"## A file {s['where']} (liod: {'; '.join(s['how'])})", ""]
        by = {(x["job"], x["program"]): x for x in s["rows"]}
        rows = []
        for x in s["rows"]:
            peer = by.get((x["job"], NBDKIT))
            small = x["job"].startswith("4 KiB")
            rows.append([x["job"], x["program"], f"{x['iops']:.0f}" if small else "", "" if small else f"{x['mb_per_s']:.0f}",
                         f"{x['p50_us']:.1f}", f"{x['p99_us']:.1f}", f"{x['server_cpu_s'] / x['seconds']:.2f}", f"{x['iops_per_server_cpu_s']}",
                         f"{x['iops'] / peer['iops']:.2f}" if peer else "",
                         f"{x['iops_per_server_cpu_s'] / peer['iops_per_server_cpu_s']:.2f}"
                         if peer and peer["iops_per_server_cpu_s"] else ""])
        out.append(table(["job", "program", "IOPS", "MB/s", "p50 µs", "p99 µs", "server CPUs", "IOs per server CPU second",
                          "× nbdkit's IOs", "× nbdkit's per CPU second"], rows))
        direct = (ONE_CORE, ECHO_DIRECT) in by
        for program, bare in ((OURS, ECHO_DIRECT), (CACHED, ECHO_PREAD)) if direct else ((OURS, ECHO_PREAD),):
            one, least = (by[(ONE_CORE, x)]["p50_us"] for x in (program, bare))
            out += [f"One 4 KiB read, both ends on one core: {program} {one:.2f} µs, {bare} {least:.2f} µs: {(one / least - 1) * 100:+.0f} %.", ""]
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
    r = {"schema": "lio-bench-device/2", "when": time.strftime("%Y-%m-%d"),
         "commit": sh("git", "-C", ROOT, "rev-parse", "--short", "HEAD").strip(),
         "machine": f"{cpu}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}",
         "load": " ".join(f"{x:.1f}" for x in os.getloadavg()), "command": " ".join(["bench/device.py", *sys.argv[1:]]), "stores": []}
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
            r["stores"].append({"where": where, **compare(client, path, a.size, a.seconds, a.rounds, missing)})
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
