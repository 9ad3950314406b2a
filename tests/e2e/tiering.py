# SPDX-License-Identifier: Apache-2.0
"""Which tier ran, when it changed and why is said, and short runs pay nothing for a better one."""
import hashlib
import json
import os

import tap
from tap import LIO, Skip, run

MIB = 1 << 20


def temp(name):
    return os.path.join(os.environ["T"], name)


def sparse(name, size):
    path = temp(name)
    with open(path, "wb") as f:
        f.truncate(size)
    return path


def result(function, path, *options, cache="off"):
    status, out, err = run(LIO, "run", function, path, "--json", *options, env={"LIO_CODE_CACHE": cache})
    assert status == 0, err
    return json.loads(out)["result"]


def has_llvm():
    status, out, _ = run(LIO, "features", "--json")
    assert status == 0
    if not any(f["name"] == "llvm tier" and f["available"] for f in json.loads(out)["features"]):
        raise Skip("no LLVM tier here")


def test_a_short_run_looks_at_no_cache_and_says_why_it_stayed():
    cache = temp("untouched")
    r = result("stats64", sparse("small", 64 << 10), cache=cache)
    assert r["tier"] == r["tier_first"] and r["switch_bytes"] == r["bytes_in"] == 64 << 10, r
    assert "too little" in r["tier_why"], r
    assert not os.path.exists(cache)


def test_code_that_is_kept_is_taken_up_on_the_way():
    has_llvm()
    cache, path = temp("cache"), sparse("large", 32 * MIB)
    first = result("sha256", path, "--tier", "llvm", cache=cache)
    assert first["tier"] == first["tier_first"] == "llvm" and first["tier_why"] == "", first
    assert sorted(len(f) for f in os.listdir(cache)) == [6, 64], os.listdir(cache)
    r = result("sha256", path, "--threads", "1", cache=cache)
    assert r["tier_first"] == "template" and r["tier"] == "llvm", r
    assert 0 < r["switch_bytes"] < r["bytes_in"] == 32 * MIB, r
    assert "earlier run" in r["tier_why"], r
    status, out, err = run(LIO, "run", "sha256", path, "--explain", "--raw", "--threads", "1", env={"LIO_CODE_CACHE": cache})
    assert status == 0 and out.decode().strip() == hashlib.sha256(bytes(32 * MIB)).hexdigest(), err
    assert "template for the first " in err and ", then llvm (asked for: auto)" in err, err


def test_a_tier_that_was_asked_for_stays():
    has_llvm()
    cache, path = temp("cache"), sparse("large", 32 * MIB)
    for tier in ("interp", "template"):
        r = result("sha256", path, "--tier", tier, cache=cache)
        assert r["tier"] == r["tier_first"] == tier and r["switch_bytes"] == r["bytes_in"], r


def test_limited_fuel_stays_where_it_is_counted():
    has_llvm()
    cache, path = temp("cache"), sparse("large", 32 * MIB)
    runs = [result("sha256", path, "--fuel", str(1 << 40), cache=cache) for _ in range(2)]
    assert all(r["tier"] == r["tier_first"] == "template" and "fuel" in r["tier_why"] for r in runs), runs
    assert runs[0]["fuel"] == runs[1]["fuel"] > 0, runs


tap.main()
