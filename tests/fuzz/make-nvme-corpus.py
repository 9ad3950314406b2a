#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make corpus/fuzz_nvme_pdu anew: one conversation for each kind of command and PDU (see fuzz_nvme_pdu.c for the first two bytes)."""
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
        # What answers an R2T comes in a later read than what led to it: one byte at a time.
        f.write(bytes([stage, 5 if name.startswith("write") else 0]) + data)
