# SPDX-License-Identifier: Apache-2.0
"""Random commands over several connections against a model: what a read gives is what the last writes left.

SEED and ROUNDS (environment) repeat or lengthen a run.
"""
import os
import random
import struct

import liod
import tap
from liod import shared

SEED = int(os.environ.get("SEED", 20260101))
ROUNDS = int(os.environ.get("ROUNDS", 600))
BLOCKS = 512
OP_FLUSH, OP_WRITE, OP_READ, OP_COMPARE, OP_ZEROES, OP_DSM, OP_COPY = 0, 1, 2, 5, 8, 9, 0x19


def run(nsid, seed, queues=3, depth=6, **kw):
    rng = random.Random(seed)
    h = shared().host(queues=queues, **kw)
    with h:
        b = dict(h.namespaces())[nsid]
        model = bytearray(rng.randbytes(BLOCKS * b))
        for at in range(0, BLOCKS, 64):
            h.q[0].write(at, bytes(model[at * b:(at + 64) * b]), b, nsid=nsid)
        copies = struct.unpack_from("<H", h.admin.identify(1), 520)[0] >> 8 & 1
        for done in range(ROUNDS // depth):
            # commands in flight together touch blocks that are apart, so that their order does not matter
            cuts = sorted(rng.sample(range(0, BLOCKS + 1, 8), depth + 1))
            flight = []
            for first, last in zip(cuts, cuts[1:]):
                n = rng.randint(1, min(last - first, h.mdts // b))
                at = rng.randint(first, last - n)
                q = rng.choice(h.q)
                where, size = slice(at * b, (at + n) * b), n * b
                old = bytes(model[where])
                fields = {"nsid": nsid, "cdw10": at, "cdw12": n - 1}
                kind = rng.choice("rrrwwwwzdcxf")
                if kind == "r":
                    cid = q.submit(OP_READ, want=size, **fields)
                    flight.append((q, cid, kind, old, fields))
                    continue
                if kind == "w":
                    new = rng.randbytes(size)
                    fields["cdw12"] |= rng.choice((0, 0, 1 << 30))
                    cid = q.submit(OP_WRITE, out=new, by_r2t=rng.random() < 0.5, **fields)
                    model[where] = new
                elif kind == "z":
                    fields["cdw12"] |= rng.choice((0, 1 << 25))
                    cid = q.submit(OP_ZEROES, **fields)
                    model[where] = bytes(size)
                elif kind == "d":
                    cid = q.submit(OP_DSM, out=struct.pack("<IIQ", 0, n, at), nsid=nsid, cdw10=0, cdw11=4)
                    model[where] = bytes(size)
                elif kind == "c":
                    cid = q.submit(OP_COMPARE, out=old, **fields)
                elif kind == "x" and copies and n > 1:
                    half = n // 2
                    cid = q.submit(OP_COPY, out=struct.pack("<8xQH14x", at, half - 1), nsid=nsid, cdw10=at + n - half)
                    model[(at + n - half) * b:(at + n) * b] = model[at * b:(at + half) * b]
                else:
                    cid = q.submit(OP_FLUSH, nsid=nsid)
                flight.append((q, cid, kind, None, fields))
            for q, cid, kind, old, fields in rng.sample(flight, len(flight)):
                r = q.wait(cid, check=False)
                assert r.status == 0, f"seed {seed}: round {done}: {kind} {fields}: status {r.status:#x}"
                assert old is None or r.data == old, f"seed {seed}: round {done}: wrong data in {fields}"
        for at in range(0, BLOCKS, 64):
            assert h.q[1].read(at, 64, b, nsid=nsid) == model[at * b:(at + 64) * b], f"seed {seed}: blocks {at}.. at the end"


def test_memory_agrees_with_the_model():
    run(1, SEED)


def test_a_file_agrees_with_the_model():
    run(2, SEED + 1)


def test_a_file_agrees_with_the_model_under_both_digests():
    run(2, SEED + 2, hdgst=True, ddgst=True)


def test_a_file_agrees_with_the_model_without_sq_flow_control():
    run(2, SEED + 3, cattr=4)


if __name__ == "__main__":
    liod.finish(tap.main)
