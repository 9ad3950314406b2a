#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make corpus/fuzz_initiator anew: what a target answers to the requests that fuzz_initiator.c starts."""
import os
import struct

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus", "fuzz_initiator")


def data(cid, off, body, flags=4):
    return struct.pack("<BBBBIHHII4x", 7, flags, 24, 24, 24 + len(body), cid, 0, off, len(body)) + body


def rsp(cid, status=0):
    return struct.pack("<BBBBIIIHHHH", 5, 0, 24, 0, 24, 0, 0, 0xFFFF, 1, cid, status << 1)


def r2t(cid, tag, off, n):
    return struct.pack("<BBBBIHHII4x", 9, 0, 24, 0, 24, cid, tag, off, n)


# Identifiers are handed out from the top of a stack of 8: 7, 6, 5, …
seeds = {
    "read": data(7, 0, b"a" * 512) + rsp(7),
    "read-success-flag": data(7, 0, b"a" * 512, 12),
    "read-pieces": data(6, 0, b"b" * 1000, 0) + data(6, 1000, b"b" * 3096) + rsp(6),
    "read-large": data(5, 0, b"c" * 20000, 12),
    "write-in-capsule": rsp(4),
    "write-r2t": r2t(3, 9, 0, 35000) + r2t(3, 9, 35000, 35000) + rsp(3),
    "flush": rsp(2),
    "vendor-short": data(1, 0, b"v" * 100) + rsp(1),
    "error": rsp(7, 0x80) + rsp(3, 0x281),
    "term": struct.pack("<BBBBIHI10x", 3, 0, 24, 0, 24, 2, 0),
    "all": data(7, 0, b"a" * 512, 12) + data(5, 0, b"c" * 20000) + r2t(3, 1, 0, 70000) + rsp(5) + rsp(4) + rsp(2) + rsp(3) +
           data(1, 0, b"v", 12) + data(6, 0, b"b" * 4096) + rsp(6),
}

os.makedirs(OUT, exist_ok=True)
for name, stream in seeds.items():
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(bytes([0, 0x37 if name == "all" else 0]) + stream)
