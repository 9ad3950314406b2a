# SPDX-License-Identifier: Apache-2.0
"""Measure lambda-io beside the alternatives, all in one run, and write bench/results/.

  bench/run.py [--size MIB] [--rounds N] [--ubpf DIR] [--out DIR]

--ubpf DIR is a uBPF source tree that was configured with CMake and built in DIR/build.
Peers that are missing are named in the report, never left out silently.
"""
import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
WORK = os.path.join(ROOT, "build", "bench")
TOOLS = os.path.join(ROOT, "build", "tools")
LIO, SBPF = os.path.join(TOOLS, "lio"), os.path.join(TOOLS, "sbpf")
VENV = os.path.join(ROOT, "build", "venv", "bin", "python")
MIB = 1 << 20


def sh(*argv, **kw):
    return subprocess.run([str(a) for a in argv], check=True, capture_output=True, text=True, **kw)


def json_lines(text):
    return {d.pop("kernel"): d for d in map(json.loads, text.splitlines())}


# ---- the data ----

def make_text(path, size):
    """The 26 letters at random with "lambda" once in 4 KiB, as lines of about 80 bytes."""
    state, block = 88172645463325252, bytearray()
    mask = (1 << 64) - 1
    while len(block) < MIB:
        state ^= (state << 13) & mask
        state ^= state >> 7
        state ^= (state << 17) & mask
        block.append(97 + (state >> 33) % 26)
    for i in range(500, MIB - 6, 4096):
        block[i:i + 6] = b"lambda"
    kernel = bytes(block)
    for i in range(79, MIB, 80):
        block[i] = 10
    with open(path, "wb") as f:
        for _ in range(size):
            f.write(block)
        # one line in the whole file that a search for a rare string finds
        f.seek(size * MIB // 2)
        f.write(b"\nneedle-in-a-haystack\n")
    with open(path + ".kernel", "wb") as f:
        f.write(kernel)


def warm(path):
    with open(path, "rb", buffering=0) as f:
        while f.read(4 * MIB):
            pass


# ---- kernels: ns a byte, 1 MiB warm ----

def kernels(data, ubpf):
    rows, missing = [], []

    def add(name, found, compile_us=None, code=None):
        for kernel in ("sum", "grep"):
            rows.append({"engine": name, "kernel": kernel, "best": found[kernel]["best"],
                         "median": found[kernel]["median"], "result": found[kernel].get("result"),
                         "compile_us": compile_us and compile_us[kernel],
                         "code_bytes": code and code[kernel]})

    k = os.path.join(HERE, "kernels")
    for label, cc, flags in (("gcc -O2", "gcc", ["-O2"]),
                             ("gcc -O3 -march=native", "gcc", ["-O3", "-march=native"]),
                             ("clang -O3 -march=native", "clang-19", ["-O3", "-march=native"])):
        obj, exe = os.path.join(WORK, "native.o"), os.path.join(WORK, "native")
        sh(cc, *flags, "-c", os.path.join(k, "kernel_native.c"), "-o", obj)
        sh("gcc", "-O2", os.path.join(HERE, "peers", "native.c"), obj, "-o", exe)
        add(label, json_lines(sh(exe, data).stdout))

    objects = {}
    for kernel in ("sum", "grep"):
        objects[kernel] = os.path.join(WORK, f"{kernel}.o")
        sh("clang-19", "-target", "bpf", "-mcpu=v4", "-O2", f"-DKERNEL=kernel_{kernel}", "-c",
           os.path.join(k, "kernel.bpf.c"), "-o", objects[kernel])
    for tier, time in (("template", "fuel on"), ("llvm", "timed by a clock"), ("interp", "fuel on")):
        found, us, code = {}, {}, {}
        lacks = subprocess.run([SBPF, "bench", objects["sum"], data, "--tier", tier], capture_output=True, text=True)
        if lacks.returncode:
            missing.append(f"tier {tier}: {lacks.stderr.strip()}")
            continue
        for kernel, obj in objects.items():
            d = json.loads(sh(SBPF, "bench", obj, data, "--tier", tier, "--json").stdout)
            found[kernel] = {**d["ns_per_byte"], "result": f"{int(str(d['r0']), 0):x}"}
            us[kernel], code[kernel] = d["compile_ns"] / 1000, d["code_bytes"]
        add(f"sbpf {tier}, sandboxed, {time}", found, us, code)

    wasm = []
    for label, flags in (("wasmtime", []), ("wasmtime SIMD", ["-msimd128"])):
        out = os.path.join(WORK, label.replace(" ", "-") + ".wasm")
        try:
            sh("clang-19", "--target=wasm32", "-nostdlib", "-O3", *flags, "-Wl,--no-entry",
               os.path.join(k, "kernel_wasm.c"), "-o", out)
            wasm += [(label, out, []), (label + " with fuel", out, ["fuel"])]
        except (subprocess.CalledProcessError, FileNotFoundError) as e:
            missing.append(f"{label}: {e}")
    for label, module, extra in wasm:
        try:
            found = json_lines(sh(VENV, os.path.join(HERE, "peers", "wasm.py"), data, module, *extra).stdout)
        except (subprocess.CalledProcessError, FileNotFoundError) as e:
            missing.append(f"{label}: {e}")
            continue
        add(label, found, {n: d["compile_ns"] / 1000 for n, d in found.items()})

    if ubpf:
        exe = os.path.join(WORK, "ubpf")
        old = {}
        for kernel in objects:  # uBPF reads up to v3
            old[kernel] = os.path.join(WORK, f"{kernel}-v3.o")
            sh("clang-19", "-target", "bpf", "-mcpu=v3", "-O2", f"-DKERNEL=kernel_{kernel}", "-c",
               os.path.join(k, "kernel.bpf.c"), "-o", old[kernel])
        sh("gcc", "-O2", f"-I{ubpf}/vm/inc", f"-I{ubpf}/build/vm", os.path.join(HERE, "peers", "ubpf.c"),
           f"{ubpf}/build/lib/libubpf.a", "-lm", "-lpthread", "-o", exe)
        found = json_lines(sh(exe, data, old["sum"], old["grep"]).stdout)
        us = found.pop("compile")
        add("ubpf JIT, no checks", found, {n: us[f"{n}_ns"] / 1000 for n in objects})
    else:
        missing.append("ubpf JIT: no checkout given (--ubpf DIR)")
    for kernel in ("sum", "grep"):
        answers = {r["result"] for r in rows if r["kernel"] == kernel}
        if len(answers) != 1:
            sys.exit(f"bench: the engines disagree on {kernel}: {answers}")
    return rows, missing


# ---- whole commands ----

def timed(argv, rounds):
    best, out = [], b""
    for _ in range(rounds):
        start = time.perf_counter()
        p = subprocess.run([str(a) for a in argv], capture_output=True)
        best.append(time.perf_counter() - start)
        if p.returncode > 1:
            sys.exit(f"bench: {argv}: {p.stderr.decode()}")
        out = p.stdout
    return min(best), statistics.median(best), out


def commands(path, table, rounds):
    """Each group: the same job by several programs, rounds interleaved so that drift hits all alike."""
    missing = []
    native = {}
    for label, flags in (("-O2", ["-O2"]), ("-O3 -march=native", ["-O3", "-march=native"])):
        native[label] = os.path.join(WORK, "stats64" + flags[0])
        sh("gcc", *flags, os.path.join(HERE, "peers", "stats64.c"), "-pthread", "-o", native[label])
    cores = len(os.sched_getaffinity(0))
    run = lambda fn, *rest: [LIO, "run", fn, path, *rest]
    groups = []
    for threads in sorted({1, cores}):
        groups.append((f"stats64, {threads} thread(s)", path, [
            ("lio run stats64", run("stats64", "--threads", threads)),
            ("C, pread, gcc -O2", [native["-O2"], path, threads]),
            ("C, pread, gcc -O3 -march=native", [native["-O3 -march=native"], path, threads])]))
    needle = "needle-in-a-haystack"
    groups.append(("grep of a rare string", path, [
        ("lio run grep", run("grep", needle)),
        ("lio run grep, 1 thread", run("grep", needle, "--threads", 1)),
        ("GNU grep (LC_ALL=C)", ["env", "LC_ALL=C", "grep", "-F", needle, path]),
        ("ripgrep", ["rg", "-F", "--no-mmap", needle, path]),
        ("ripgrep --mmap", ["rg", "-F", "--mmap", needle, path])]))
    groups.append(("sha256", path, [
        ("lio run sha256", run("sha256")),
        ("openssl dgst -sha256", ["openssl", "dgst", "-sha256", path]),
        ("sha256sum", ["sha256sum", path])]))
    groups.append(("count lines, words, bytes", path, [
        ("lio run count", run("count")),
        ("lio run count, 1 thread", run("count", "--threads", 1)),
        ("wc (LC_ALL=C)", ["env", "LC_ALL=C", "wc", path])]))
    if table:
        duck = ("import duckdb,sys; print(duckdb.sql(\"select sum(column05), count(*), min(column05), "
                "max(column05) from read_csv('%s', delim='|', header=false, all_varchar=false, "
                "types={'column05':'DECIMAL(15,2)'})\").fetchall())" % table)
        groups.append(("sum of a column (lineitem.tbl)", table, [
            ("lio run csv-sum", [LIO, "run", "csv-sum", table, "delimiter=|", "column=6"]),
            ("DuckDB", [VENV, "-c", duck]),
            ("awk", ["awk", "-F|", "{s+=$6} END {printf \"%.2f\\n\", s}", table])]))
    results = []
    for title, data, programs in groups:
        size = os.path.getsize(data)
        warm(data)
        times = {name: [] for name, _ in programs}
        for _ in range(rounds):
            for name, argv in programs:
                if not shutil.which(str(argv[0])):
                    if f"{name}: not installed" not in missing:
                        missing.append(f"{name}: not installed")
                    continue
                times[name].append(timed(argv, 1)[0])
        for name, t in times.items():
            if t:
                results.append({"job": title, "program": name, "bytes": size, "best_s": min(t),
                                "median_s": statistics.median(t), "gb_per_s": size / statistics.median(t) / 1e9})
    return results, missing


def overhead(path):
    exe = os.path.join(WORK, "overhead")
    lib = os.path.join(ROOT, "build", "src", "host")
    sbpf = os.path.join(ROOT, "build", "src", "sbpf")
    sh("gcc", "-O2", f"-I{ROOT}/include", os.path.join(HERE, "peers", "overhead.c"), f"-L{lib}", "-llambdaio",
       f"-Wl,-rpath,{lib}:{sbpf}", f"-Wl,-rpath-link,{sbpf}", "-o", exe)
    return {fn: json_lines(sh(exe, path, os.path.join(ROOT, "build", "functions", fn + ".o")).stdout)
            for fn in ("stats64", "count")}


SAMPLE_ARGS = {"grep": ["pattern=needle-in-a-haystack"], "grep-count": ["pattern=needle-in-a-haystack"],
               "grep-number": ["pattern=needle-in-a-haystack"], "csv-filter": ["column=6", "op=>", "value=90000",
                                                                               "delimiter=|"],
               "csv-sum": ["column=6", "delimiter=|"]}


def functions(path, lineitem):
    """Every shipped function on the template tier, one thread, 64 MiB warm; ns a byte inside the function."""
    rows = []
    for fn in json.loads(sh(LIO, "functions", "--json").stdout)["functions"]:
        data = lineitem if fn["name"].startswith("csv-") else path
        argv = [LIO, "bench", fn["name"], data, *SAMPLE_ARGS.get(fn["name"], []), "--tier", "template",
                "--threads", "1", "--length", "64M", "--json"]
        try:
            best = json.loads(sh(*argv).stdout)["runs"][0]["best"]
        except subprocess.CalledProcessError as e:
            rows.append({"function": fn["name"], "error": e.stderr.strip()})
            continue
        rows.append({"function": fn["name"], "run": best["run_ns"] / best["bytes_in"],
                     "io": best["io_ns"] / best["bytes_in"], "compile_us": best["compile_ns"] / 1000})
    return rows


# ---- the report ----

def table(head, rows):
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(out + ["| " + " | ".join(str(c) for c in r) + " |" for r in rows]) + "\n"


def report(r):
    f = lambda v, n=3: "" if v is None else f"{v:.{n}f}"
    out = ["# Measured beside the alternatives", "",
           f"{r['when']}, commit {r['commit']}, {r['machine']}.  Command: `{r['command']}`.",
           "Compare within one run only: the machine is shared.", "", "## Kernels: 1 MiB warm, ns a byte", ""]
    kinds = {}
    for k in r["kernels"]:
        kinds.setdefault(k["engine"], {})[k["kernel"]] = k
    out.append(table(["engine", "sum best", "sum median", "grep best", "grep median", "compile µs (sum, grep)",
                      "code bytes"],
                     [[e, f(d["sum"]["best"]), f(d["sum"]["median"]), f(d["grep"]["best"]),
                       f(d["grep"]["median"]),
                       f"{f(d['sum']['compile_us'], 0)}, {f(d['grep']['compile_us'], 0)}"
                       if d["sum"]["compile_us"] else "",
                       f"{d['sum']['code_bytes']}, {d['grep']['code_bytes']}" if d["sum"]["code_bytes"] else ""]
                      for e, d in kinds.items()]))
    ours = kinds["sbpf template, sandboxed, fuel on"]
    out.append(table(["template tier over …", "sum", "grep"],
                     [[e, f(ours["sum"]["median"] / d["sum"]["median"], 2),
                       f(ours["grep"]["median"] / d["grep"]["median"], 2)]
                      for e, d in kinds.items() if d is not ours]))
    out += ["## Whole commands on a warm file", ""]
    out.append(table(["job", "program", "median s", "GB/s", "× the first"],
                     [[c["job"], c["program"], f(c["median_s"]), f(c["gb_per_s"], 2),
                       f(c["median_s"] / next(d for d in r["commands"] if d["job"] == c["job"])["median_s"], 2)]
                      for c in r["commands"]]))
    out += ["## λ-read of 4 KiB, ns a call (median)", ""]
    out.append(table(["function", "pread", "λ-read", "above pread"],
                     [[fn, f(d["pread"]["median"], 0), f(d["lambda-read"]["median"], 0),
                       f(d["lambda-read"]["median"] - d["pread"]["median"], 0)]
                      for fn, d in r["overhead"].items()]))
    out += ["## Shipped functions on the template tier: one thread, 64 MiB warm, ns a byte", ""]
    out.append(table(["function", "in the function", "getting the bytes", "compile µs"],
                     [[d["function"], d.get("error") or f(d["run"]), f(d.get("io")), f(d.get("compile_us"), 0)]
                      for d in r["functions"]]))
    if r["missing"]:
        out += ["## Not measured", ""] + [f"- {m}" for m in r["missing"]] + [""]
    return "\n".join(out)


def plot(r, path):
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.2))
    for ax, kernel in zip(axes, ("sum", "grep")):
        rows = sorted((k for k in r["kernels"] if k["kernel"] == kernel and "interp" not in k["engine"]),
                      key=lambda k: -k["median"])
        colors = ["#c0392b" if "sbpf" in k["engine"] else "#7f8c8d" for k in rows]
        bars = ax.barh([k["engine"] for k in rows], [k["median"] for k in rows], color=colors)
        ax.bar_label(bars, fmt="%.3f", fontsize=7, padding=2)
        ax.set_title({"sum": "sum, min, max of u32", "grep": 'count "lambda"'}[kernel], fontsize=9)
        ax.set_xlabel("ns a byte, median (less is better)", fontsize=8)
        ax.tick_params(labelsize=7)
        ax.margins(x=0.15)
    fig.tight_layout()
    fig.savefig(path)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--size", type=int, default=1024, help="MiB of the file for whole commands")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--ubpf", default=os.environ.get("UBPF"))
    p.add_argument("--out", default=os.path.join(HERE, "results"))
    a = p.parse_args()
    os.makedirs(WORK, exist_ok=True)
    data = os.path.join(WORK, "text")
    if not os.path.exists(data) or os.path.getsize(data) != a.size * MIB:
        make_text(data, a.size)
    lineitem = os.path.join(ROOT, "build", "demo", "sf0.1", "lineitem.tbl")
    if not os.path.exists(lineitem):
        sh(os.path.join(os.path.dirname(VENV), "tpchgen-cli"), "-s", "0.1", "--tables=lineitem",
           f"--output-dir={os.path.dirname(lineitem)}")
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    r = {"schema": "lio-bench-report/1", "when": time.strftime("%Y-%m-%d"),
         "commit": sh("git", "-C", ROOT, "rev-parse", "--short", "HEAD").stdout.strip(),
         "machine": f"{cpu}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}",
         "command": "make bench" + (" UBPF=DIR" if a.ubpf else "")}
    r["kernels"], missing = kernels(data + ".kernel", a.ubpf)
    r["functions"] = functions(data, lineitem)
    r["overhead"] = overhead(data)
    r["commands"], more = commands(data, lineitem, a.rounds)
    r["missing"] = missing + more
    os.makedirs(a.out, exist_ok=True)
    with open(os.path.join(a.out, "spine.json"), "w") as f:
        json.dump(r, f, indent=1)
        f.write("\n")
    text = report(r)
    with open(os.path.join(a.out, "spine.md"), "w") as f:
        f.write(text)
    plot(r, os.path.join(a.out, "spine.svg"))
    print(text)


main()
