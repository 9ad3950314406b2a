#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make corpus/fuzz_nvme_pdu anew: one conversation for each kind of command and PDU (see fuzz_nvme_pdu.c for the first two bytes)."""
import hashlib
import os
import struct

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus", "fuzz_nvme_pdu")
RAW, ICREQ, ADMIN, IO = range(4)
SCARCE = 16
TRANSPORT, CAPSULE = 0x5A, 0x01


def sqe(opcode, cid, nsid=0, length=0, sgl=TRANSPORT, cdw=()):
    cdw = (*cdw, *(0,) * (6 - len(cdw)))
    return struct.pack("<BBHIIIQQI3xB6I", opcode, 0x40, cid, nsid, 0, 0, 0, 0, length, sgl, *cdw)


def capsule(entry, data=b""):
    return struct.pack("<BBBBI", 4, 0, 72, 72 if data else 0, 72 + len(data)) + entry + data


def h2c(cid, tag, offset, data, last=True):
    return struct.pack("<BBBBIHHII4x", 6, 4 if last else 0, 24, 24, 24 + len(data), cid, tag, offset, len(data)) + data


def fabrics(kind, cid, cdw=(), data=b""):
    return capsule(sqe(0x7F, cid, kind, len(data), CAPSULE if data else TRANSPORT, cdw), data)


def connect(qid, cntlid, subnqn):
    return struct.pack("<16sH238x256s256s256x", b"", cntlid, subnqn, b"nqn.2014-08.org.nvmexpress:host")


icreq = struct.pack("<BBBBIHBBI112x", 0, 0, 128, 0, 128, 0, 0, 3, 0)
ranges = struct.pack("<IIQIIQ", 0, 8, 16, 0, 1, 2047)
copy = struct.pack("<QQH6xIHH", 0, 64, 7, 0, 0, 0)
BLOCKS = 512
PROGRAM = b"a program of even length" * 10
HASH = hashlib.sha256(PROGRAM).digest()


def to(opcode, cid, data, *cdw):
    return capsule(sqe(opcode, cid, 0, len(data), CAPSULE, cdw), data)


def submit(cid, handle, data):
    return to(0x81, cid, data, handle, len(data), 0, len(data))


def fetch(cid, handle, offset=0, size=4096):
    return capsule(sqe(0x82, cid, 0, size, cdw=(handle, size, offset & 0xFFFFFFFF, offset >> 32, 100)))


def function(source, sink=b"", kinds=(0, 0), arg=b""):
    return struct.pack("<HHI32s7QI4BIIIIQ", 1, 1, 0, HASH, 0, 2**64 - 1, 0, 0, 0, 0, 0, 0, 0, *kinds, 0, len(source), len(sink),
                       len(arg), 0, 0) + source + sink + arg


def extents(*pieces, base=0):
    return struct.pack("<IIQ", 1, len(pieces), base) + b"".join(struct.pack("<QQ", *p) for p in pieces)


def on_path(op, path, flags=0):
    return struct.pack("<HHIIHHQQ", 1, op, flags, 0, len(path), 0, 0, 0) + path


upload = to(0x89, 1, HASH + PROGRAM, len(PROGRAM), 0, 0, len(PROGRAM))
FIRST_OBJECT = 0x10001
SEEDS = {
    "icreq": (RAW, icreq),
    "host-term": (ICREQ, struct.pack("<BBBBIHI10x", 2, 0, 24, 0, 24, 1, 4)),
    "connect": (ICREQ, fabrics(1, 1, (0, 15, 5000), connect(0, 0xFFFF, b"nqn.2026-01.io.lambda:fuzz"))),
    "discovery": (ICREQ, fabrics(1, 1, (0, 15, 0), connect(0, 0xFFFF, b"nqn.2014-08.org.nvmexpress.discovery"))
                  + fabrics(0, 2, (0, 0x14, 0x460001)) + capsule(sqe(6, 3, 0, 4096, cdw=(1,)))
                  + capsule(sqe(2, 4, 0, 1024, cdw=(0x70 | 255 << 16,))) + capsule(sqe(2, 5, 0, 64, cdw=(0x70 | 15 << 16, 0, 1024)))),
    "properties": (ADMIN, b"".join(fabrics(4, i, (int(o == 0), o)) for i, o in enumerate((0, 8, 0x14, 0x1C, 0x20)))
                   + fabrics(0, 9, (0, 0x14, 0x464001)) + fabrics(0, 10, (0, 0x14, 0x460000))),
    "identify": (ADMIN, b"".join(capsule(sqe(6, i, 1, 4096, cdw=(cns,))) for i, cns in enumerate((0, 1, 2, 3, 5, 6, 7, 8, 0x1C)))),
    "logs": (ADMIN, b"".join(capsule(sqe(2, i, 0xFFFFFFFF, 512, cdw=(lid | 127 << 16,))) for i, lid in enumerate((0, 1, 2, 3, 4, 5, 0x12, 0x13)))),
    "features": (ADMIN, b"".join(capsule(sqe(op, op * 16 + i, cdw=(fid, v))) for op in (9, 10) for i, (fid, v) in enumerate(
        ((1, 7), (2, 0), (4, 300), (5, 0), (6, 1), (7, 0x10001), (10, 0), (11, 0x100), (15, 5000), (25, 0)))) + capsule(sqe(10, 0x100, 0, 16, cdw=(0x81, 1)))),
    "host-behavior": (ADMIN, capsule(sqe(9, 1, 0, 512, CAPSULE, (0x16,)), b"\1" + bytes(511)) + capsule(sqe(10, 2, 0, 512, cdw=(0x16,)))),
    "events": (ADMIN, b"".join(capsule(sqe(0xC, i)) for i in range(5)) + capsule(sqe(8, 9, cdw=(2 << 16,))) + capsule(sqe(8, 10, cdw=(5 << 16 | 1,)))
               + capsule(sqe(0x18, 11))),
    "write-capsule": (IO, capsule(sqe(1, 1, 1, BLOCKS, CAPSULE, (3, 0, 0)), b"x" * BLOCKS)),
    "write-r2t": (IO, capsule(sqe(1, 1, 1, 4 * BLOCKS, cdw=(3, 0, 3))) + h2c(1, 0, 0, b"y" * 1024, False) + h2c(1, 0, 1024, b"z" * 1024)),
    "writes-scarce": (IO | SCARCE, b"".join(capsule(sqe(1, i, 1, BLOCKS, cdw=(i, 0, 0))) for i in range(4))
                      + b"".join(h2c(i, i, 0, b"w" * BLOCKS) for i in range(4)) + capsule(sqe(1, 9, 1, BLOCKS, CAPSULE, (3, 0, 0)), b"x" * BLOCKS)),
    "lambda-read": (IO, upload + submit(2, 7, function(extents((0, 4096), (2**64 - 1, 512), (8192, 512)), kinds=(2, 0), arg=b"x" * 100))
                    + fetch(3, 7) + fetch(4, 7, 100)),
    "lambda-refused": (IO, to(0x89, 1, HASH + PROGRAM[:20], len(PROGRAM), 0, 0, 20) + to(0x89, 2, HASH + PROGRAM[20:], len(PROGRAM), 20, 0, len(PROGRAM) - 20)
                       + submit(3, 1, function(extents((0, 1 << 40)), kinds=(2, 0))) + submit(4, 2, function(b"")[:100]) + fetch(5, 1) + fetch(6, 9)),
    "lambda-stream": (IO, upload + submit(2, 7, function(b"")) + to(0x85, 3, b"i" * 600, 7, 600, 0, 0, 0) + fetch(4, 7) + fetch(5, 7, 512)
                      + to(0x85, 6, b"j" * 30, 7, 30, 600, 0, 1) + fetch(8, 7, 600)),
    "lambda-write": (IO, upload + submit(2, 7, function(b"", extents((4096, 4096)), (0, 2))) + to(0x85, 3, b"i" * 50, 7, 50, 0, 0, 1) + fetch(4, 7)),
    "lambda-object": (IO, upload + submit(2, 1, on_path(16, b"x/file", 1)) + fetch(3, 1)
                      + submit(4, 2, function(struct.pack("<II", FIRST_OBJECT, 0), kinds=(1, 0), arg=b"y" * 10)) + fetch(5, 2)
                      + capsule(sqe(0x92, 6, 0, 100, cdw=(FIRST_OBJECT, 100))) + capsule(sqe(0x90, 7, cdw=(FIRST_OBJECT, 4)))
                      + to(0x91, 8, b"w" * 20, FIRST_OBJECT, 20) + capsule(sqe(0x90, 9, cdw=(FIRST_OBJECT, 1)))),
    "lambda-paths": (IO, b"".join(submit(2 * i, i, on_path(16 + i % 6, p)) + fetch(2 * i + 1, i) for i, p in enumerate(
        (b"x/file", b"x", b"", b"x/../etc", b"x/file", b"x/d", b"y/f", b"x//")))),
    "lambda-cancel": (IO, upload + submit(2, 7, function(b"")) + fetch(3, 7) + capsule(sqe(0x80, 4, cdw=(7,))) + fetch(5, 8)
                      + capsule(sqe(0x80, 6, cdw=(8,))) + submit(7, 8, function(b""))),
    "lambda-info": (IO, upload + b"".join(capsule(sqe(0x86, 10 + i, 0, 256, cdw=(i, 256))) for i in range(5))),
    "reads": (IO, b"".join(capsule(sqe(2, i, 1, n * BLOCKS, cdw=(i, 0, n - 1))) for i, n in enumerate((1, 8, 64)))),
    "flush-zero-verify": (IO, capsule(sqe(0, 1, 1)) + capsule(sqe(0, 2, 0xFFFFFFFF)) + capsule(sqe(8, 3, 1, cdw=(0, 0, 7)))
                          + capsule(sqe(8, 4, 1, cdw=(0, 0, 7 | 1 << 25))) + capsule(sqe(0xC, 5, 1, cdw=(0, 0, 1023)))),
    "dsm": (IO, capsule(sqe(9, 1, 1, len(ranges), CAPSULE, (1, 4)), ranges)),
    "compare": (IO, capsule(sqe(5, 1, 1, BLOCKS, CAPSULE, (3, 0, 0)), b"Z" * BLOCKS)),
    "disconnect": (IO | SCARCE, b"".join(capsule(sqe(2, i, 1, BLOCKS, cdw=(i, 0, 0))) for i in range(3)) + capsule(sqe(1, 8, 1, BLOCKS, cdw=(9, 0, 0)))
                   + fabrics(8, 9) + capsule(sqe(1, 10, 1, BLOCKS, CAPSULE, (3, 0, 0)), b"x" * BLOCKS)),
    "copy": (IO, capsule(sqe(0x19, 1, 1, len(copy), CAPSULE, (0, 0, 0)), copy)),
}

os.makedirs(OUT, exist_ok=True)
for name, (stage, data) in SEEDS.items():
    with open(os.path.join(OUT, name), "wb") as f:
        # What answers an R2T, or uses a program, comes in a later read than what led to it: one byte at a time.
        f.write(bytes([stage, 5 if name.startswith(("write", "lambda")) else 0]) + data)
