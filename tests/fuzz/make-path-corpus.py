#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make corpus/fuzz_path anew: a few conversations with exported directories (see fuzz_path.c for their form)."""
import os

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus", "fuzz_path")
OPEN, STAT, LIST, RENAME, REMOVE, MKDIR = range(6)
READ, WRITE, CREATE, EXCLUSIVE, TRUNCATE = 1, 2, 4, 8, 16
DO, PUT, GET = range(3)


def path(op, name, name2=b"", flags=0):
    return bytes([0, op, flags, len(name)]) + name + (bytes([len(name2)]) + name2 if op == RENAME else b"")


def obj(kind, which=0, cdw11=0, operand=0):
    return bytes([1, kind, which]) + cdw11.to_bytes(2, "big") + operand.to_bytes(2, "big")


SEEDS = {
    "read": path(OPEN, b"x/f", flags=READ) + obj(GET, 0, 100) + obj(GET, 0, 10, 3) + obj(DO, 0, 4) + obj(DO, 0, 1) + obj(GET, 0, 1),
    "write": path(OPEN, b"x/new", flags=READ | WRITE | CREATE) + obj(PUT, 0, 500) + obj(PUT, 0, 50, 4000) + obj(DO, 0, 2)
    + obj(DO, 0, 3, 77) + obj(GET, 0, 5000),
    "truncate": path(OPEN, b"x/d/g", flags=WRITE | TRUNCATE) + path(OPEN, b"x/d/g", flags=WRITE | CREATE | EXCLUSIVE),
    "links": b"".join(path(OPEN, b"x/" + n, flags=f) for n in (b"in", b"o", b"p/secret", b"u/out/secret", b"r/etc/passwd", b"n", b"q", b"m/secret")
                      for f in (READ, WRITE | CREATE)) + path(LIST, b"x/p") + path(LIST, b"x/u") + path(STAT, b"x/o"),
    "changes": path(MKDIR, b"x/k") + path(RENAME, b"x/f", b"x/k/f") + path(REMOVE, b"x/k") + path(REMOVE, b"x/k/f") + path(REMOVE, b"x/k")
    + path(RENAME, b"x/p/secret", b"x/s") + path(REMOVE, b"x/p/secret") + path(MKDIR, b"x/p/k") + path(RENAME, b"x/d", b"x/d/e/d"),
    "read-only": b"".join(path(op, b"y/f", b"y/g", WRITE) for op in range(6)) + path(RENAME, b"x/f", b"y/f"),
    "names": b"".join(path(STAT, n) for n in (b"", b"x", b"x/", b"/x", b"x//f", b"x/.", b"x/../out/secret", b"..", b"x/\0", b"z", b"x/\n\xff")),
    "lists": path(LIST, b"") + path(LIST, b"x") + bytes([0, LIST | 0x20, 0, 3]) + b"x/d" + bytes([0, LIST | 0x10, 0, 1]) + b"x" + b"\1\x30",
    "long": bytes([0, STAT, 0, 0xFF, 0x10, 0, 0x61]) + bytes([0, STAT, 0, 0xFF, 0x0F, 0xFF, 0x2F]),
    "reset": path(OPEN, b"x/f", flags=READ) + b"\xff" + obj(GET, 0, 100) + path(OPEN, b"x/f", flags=READ) + obj(GET, 1, 100),
}

os.makedirs(OUT, exist_ok=True)
for name in os.listdir(OUT):
    os.unlink(os.path.join(OUT, name))
for name, seed in SEEDS.items():
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(seed)
