# SPDX-License-Identifier: Apache-2.0
"""Run every test_* function of a module and speak TAP: one line a promise.

A test fails by raising; it skips, with the reason shown, by raising Skip.
"""
import os
import subprocess
import sys
import tempfile
import traceback

LIO = os.environ.get("LIO", "build/tools/lio")
SBPF = os.environ.get("SBPF", "build/tools/sbpf")
SRC = os.environ.get("SRC", os.getcwd())


class Skip(Exception):
    """Why a test cannot run here."""


def run(*argv, stdin=b"", env=None, timeout=120):
    """Run a command; returns (exit status, stdout bytes, stderr text)."""
    p = subprocess.run([str(a) for a in argv], input=stdin, capture_output=True, timeout=timeout,
                       env=None if env is None else {**os.environ, **env})
    return p.returncode, p.stdout, p.stderr.decode(errors="replace")


def main(module="__main__"):
    mod = sys.modules[module]
    tests = [(n, f) for n, f in vars(mod).items() if n.startswith("test_") and callable(f)]
    print(f"1..{len(tests)}")
    bad = 0
    with tempfile.TemporaryDirectory() as tmp:
        os.environ["T"] = tmp
        for i, (name, fn) in enumerate(tests, 1):
            title = name[5:].replace("_", " ")
            try:
                fn()
                print(f"ok {i} - {title}")
            except Skip as why:
                print(f"ok {i} - {title} # SKIP {why}")
            except Exception:
                bad += 1
                print(f"not ok {i} - {title}")
                for line in traceback.format_exc().splitlines():
                    print(f"# {line}")
            sys.stdout.flush()
    sys.exit(1 if bad else 0)
