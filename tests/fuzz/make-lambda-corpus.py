# SPDX-License-Identifier: Apache-2.0
"""Seeds of fuzz_lambda: requests of every kind.  usage: make-lambda-corpus.py DIR"""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "wire"))
from computing import DECOMPRESS, FUEL, HOLE, OBJECT, extents, request  # noqa: E402

HASH = bytes(range(32))


def path(op, first, second=b"", flags=0, cookie=0):
    return struct.pack("<HHIIHHQQ", 1, op, flags, 0o644, len(first), len(second), cookie, 0) + first + second


SEEDS = {
    "extents": request(HASH, extents(1, (0, 100), (4096, 4096), (HOLE, 7), (8192, 1)), arg=b"\6\0\0\0lambda"),
    "base": request(HASH, extents(1, (0, 1 << 19), base=4096), offset=5000, length=100, chunk=1 << 16, threads=2, tier=1),
    "write": request(HASH, extents(1, (0, 100)), extents(2, (900, 50), (0, 100), (500, 50))),
    "stream": request(HASH, arg=bytes(100)),
    "stream-to-object": request(HASH, b"", struct.pack("<IIQ", 3, 0, 77), sink_kind=OBJECT),
    "object": request(HASH, struct.pack("<II", 4, 0), flags=DECOMPRESS | FUEL, fuel=1 << 20, memory=1 << 20, max_output=100, timeout_ns=5),
    "empty": request(HASH, extents(1)),
    "overlap": request(HASH, extents(1), extents(1, (0, 10), (9, 10))),
    "version": request(HASH, version=2),
    "open": path(16, b"export/dir/file", flags=0x1F),
    "list": path(18, b"export", cookie=9),
    "rename": path(19, b"export/a", b"export/b"),
}

if __name__ == "__main__":
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, data in SEEDS.items():
        with open(os.path.join(sys.argv[1], name), "wb") as f:
            f.write(data)
