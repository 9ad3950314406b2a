# SPDX-License-Identifier: Apache-2.0
"""wasm.py FILE MODULE [fuel]: the kernels on wasmtime; one line of JSON a kernel."""
import json
import sys
import time

from wasmtime import Config, Engine, Instance, Module, Store

data = open(sys.argv[1], "rb").read(1 << 20)
fuel = "fuel" in sys.argv[3:]
config = Config()
config.consume_fuel = fuel
engine = Engine(config)
start = time.perf_counter_ns()
module = Module.from_file(engine, sys.argv[2])
compile_ns = time.perf_counter_ns() - start
store = Store(engine)
if fuel:
    store.set_fuel(10**18)
instance = Instance(store, module, [])
exports = instance.exports(store)
exports["memory"].write(store, data, exports["address"](store))
for which, kernel, passes in ((0, "sum", 100), (1, "grep", 20)):
    samples = []
    for _ in range(21):
        t = time.perf_counter_ns()
        r = exports["run"](store, which, passes)
        samples.append((time.perf_counter_ns() - t) / passes / len(data))
    samples = sorted(samples[1:])
    print(json.dumps({"kernel": kernel, "best": samples[0], "median": samples[len(samples) // 2],
                      "result": f"{r & (2**64 - 1):x}", "compile_ns": compile_ns}))
