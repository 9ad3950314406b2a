# SPDX-License-Identifier: Apache-2.0
"""A seeded fuzzer against a live server: valid conversations, mutated, on many connections; the server serves on and
another host's data stay as they were.

CONVERSATIONS (how many), SEED (the first one): each conversation is made from one number alone, so `SEED=n CONVERSATIONS=1`
repeats the one that a failure names.  `python3 tests/wire/fuzz.py` with a large CONVERSATIONS runs for long.
"""
import os
import random
import struct
import time

import liod
import tap
from liod import DISCOVERY, NQN, Liod
from nvmetcp import BY_TRANSPORT, CMD, H2C_DATA, IN_CAPSULE, Closed, Conn, connect_data, connect_sqe, make_pdu, property_set_sqe, sgl_of, sqe

SEED = int(os.environ.get("SEED", 1))
CONVERSATIONS = int(os.environ.get("CONVERSATIONS", 400))
EDGES = [0, 1, 2, 3, 4, 7, 8, 15, 16, 63, 64, 127, 128, 255, 256, 511, 512, 1023, 1024, 4095, 4096, 8191, 8192, 65535, 65536, 1 << 20,
         (1 << 20) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 4, (1 << 32) - 1, 1 << 52, 1 << 55, (1 << 63) - 1, 1 << 63, (1 << 64) - 8, (1 << 64) - 1]
B = 4096  # a RAM namespace's block
GUARDED = 12000  # blocks from here belong to the other host, whose data must not change; the fuzzer writes elsewhere or to NSID 1


def number(rng, bits):
    v = rng.choice(EDGES) if rng.random() < 0.6 else rng.getrandbits(bits)
    return v & ((1 << bits) - 1)


def command(rng, cid):
    """One capsule, mostly sensible, of NSID 1 alone."""
    n = rng.choice((1, 1, 2, 8, 16, 17, 64, 128))
    lba = rng.randrange(4096) if rng.random() < 0.8 else number(rng, 64)
    at = {"cdw10": lba & 0xFFFFFFFF, "cdw11": lba >> 32, "cdw12": n - 1}
    kind = rng.randrange(12)
    data, sgl, opcode = b"", sgl_of(BY_TRANSPORT, 0), 0
    if kind < 3:
        opcode, sgl = 2, sgl_of(BY_TRANSPORT, n * B)
    elif kind < 6:
        opcode = rng.choice((1, 5))
        if n * B <= 8192 and rng.random() < 0.6:
            data, sgl = rng.randbytes(n * B), sgl_of(IN_CAPSULE, n * B)
        else:
            sgl = sgl_of(BY_TRANSPORT, n * B)
    elif kind == 6:
        opcode = rng.choice((0, 8, 0x0C))
    elif kind == 7:
        nr = rng.randrange(1, 5)
        opcode, data = 9, b"".join(struct.pack("<IIQ", 0, n, number(rng, 64)) for _ in range(nr))
        sgl, at = sgl_of(IN_CAPSULE, len(data)), {"cdw10": nr - 1, "cdw11": 4}
    elif kind == 8:
        nr = rng.randrange(1, 5)
        opcode, data = 0x19, b"".join(struct.pack("<8xQH14x", number(rng, 64), n - 1) for _ in range(nr))
        sgl, at["cdw12"] = sgl_of(IN_CAPSULE, len(data)), nr - 1
    elif kind == 9:
        opcode, sgl, at = 6, sgl_of(BY_TRANSPORT, 4096), {"cdw10": rng.choice((0, 1, 2, 3, 5, 6, 7, 8, 0x10, 0x13, 0x1C, number(rng, 8)))}
    elif kind == 10:
        length = rng.choice((4, 20, 512, 4096))
        opcode, sgl = 2, sgl_of(BY_TRANSPORT, length)
        at = {"cdw10": rng.choice((0, 1, 2, 3, 4, 5, 0x70, number(rng, 8))) | (length // 4 - 1) << 16, "cdw12": number(rng, 32), "cdw13": number(rng, 32)}
    else:
        opcode, at = rng.choice((9, 10, 8, 0x0C, 0x18)), {"cdw10": number(rng, 32), "cdw11": number(rng, 32)}
    fields = {"nsid": 1, **at}
    if rng.random() < 0.1:
        fields[rng.choice(("cdw2", "cdw3", "cdw10", "cdw11", "cdw12", "cdw13", "cdw14", "cdw15"))] = number(rng, 32)
    return sqe(opcode, cid, sgl=sgl, **fields), data


def conversation(rng):
    """The PDUs of a whole connection, as bytes each; h2c entries are made up, for the tags are guessed."""
    digests = rng.choice((0, 0, 0, 1, 2, 3))
    options = {"hdgst": bool(digests & 1), "ddgst": bool(digests & 2)}
    out = [make_pdu(0, struct.pack("<HBBI112x", 0, rng.choice((0, 0, 0, 3)), digests, rng.choice((0, 0, 15))))]
    subsystem = rng.choice((NQN, NQN, NQN, NQN, DISCOVERY))
    out.append(make_pdu(CMD, connect_sqe(1, kato=rng.choice((0, 0, 5000))), connect_data(subsystem, hostid=rng.randbytes(16)), **options))
    out.append(make_pdu(CMD, property_set_sqe(2, 0x14, 0x460061), **options))
    if rng.random() < 0.7:
        out.append(("io", options))
    for cid in range(3, 3 + rng.randrange(1, 24)):
        entry, data = command(rng, cid)
        out.append(make_pdu(CMD, entry, data, **options))
        if rng.random() < 0.3:
            n = rng.choice((4, 512, 8192, 65536))
            out.append(make_pdu(H2C_DATA, struct.pack("<HHII4x", cid, rng.choice((0, 1, cid, number(rng, 16))), rng.choice((0, 0, number(rng, 32))), n),
                                rng.randbytes(n), flags=rng.choice((0, 4)), **options))
    return out


def mutate(rng, raw):
    raw = bytearray(raw)
    how = rng.randrange(7)
    at = rng.randrange(min(len(raw), 140))
    if how == 0:
        raw[at] ^= 1 << rng.randrange(8)
    elif how == 1:
        raw[at] = rng.randrange(256)
    elif how == 2:
        width = rng.choice((1, 2, 4, 8))
        raw[at:at + width] = number(rng, 8 * width).to_bytes(width, "little")
    elif how == 3:
        del raw[at:at + rng.randrange(1, 64)]
    elif how == 4:
        raw[at:at] = rng.randbytes(rng.randrange(1, 64))
    elif how == 5:
        del raw[at:]
    else:
        start = rng.randrange(len(raw))
        raw[at:at] = raw[start:start + 200]
    return bytes(raw)


def play(s, seed):
    """One conversation; everything follows from @seed (and from the answers: controller ids and tags)."""
    rng = random.Random(seed)
    script = conversation(rng)
    conns = [Conn(s.address, handshake=False, timeout=2)]
    cntlid = 0xFFFF
    try:
        for i, part in enumerate(script):
            if isinstance(part, tuple):  # an I/O queue beside the admin queue; the commands go there
                io = Conn(s.address, handshake=False, timeout=2)
                conns.insert(0, io)
                io.send(script[0])
                io.send(make_pdu(CMD, connect_sqe(1, qid=1, sqsize=127, sgl=sgl_of(IN_CAPSULE, 1024)),
                                 connect_data(NQN, hostid=script[1][72 + 4 * part[1]["hdgst"]:][:16], cntlid=cntlid), **part[1]))
                continue
            valid = i < 3 and rng.random() < 0.85
            raw = part if valid or rng.random() < 0.6 else mutate(rng, part)
            if rng.random() < 0.03:
                continue
            if rng.random() < 0.1 and len(raw) > 8:
                cut = rng.randrange(1, len(raw))
                conns[0].send(raw[:cut])
                conns[0].send(raw[cut:])
            else:
                conns[0].send(raw)
            if i == 1:  # the controller's id, if the server gave one
                try:
                    conns[0].recv_pdu(0.5)
                    p = conns[0].recv_pdu(0.5)
                    cntlid = struct.unpack_from("<H", p.head, 8)[0]
                except Exception:
                    pass
            if rng.random() < 0.02:
                break
        if rng.random() < 0.5:  # take what comes for a moment
            conns[0].sock.setblocking(False)
            for _ in range(3):
                try:
                    if not conns[0].sock.recv(1 << 20):
                        break
                except BlockingIOError:
                    time.sleep(0.001)
    except (Closed, OSError):
        pass
    for c in conns:
        try:
            rng.choice((Conn.reset, Conn.close))(c)
        except OSError:
            pass


def test_mutated_conversations_leave_a_server_that_serves_and_others_data_alone():
    with Liod("ram:16M", "ram:64M", config={"handshake_timeout": "5s", "stall_timeout": "2s", "buffer_memory": "32M"}) as s, \
            s.host(queues=1) as other:
        rng = random.Random(SEED)
        guard = rng.randbytes(256 * B)
        other.q[0].write(GUARDED, guard, B, nsid=2)
        for seed in range(SEED, SEED + CONVERSATIONS):
            try:
                play(s, seed)
                assert s.proc.poll() is None, "the server ended"
                if seed % 20 == 0:
                    assert other.q[0].read(GUARDED, 256, B, nsid=2) == guard, "data of another namespace have changed"
                    s.serves()
            except Exception as e:
                raise AssertionError(f"SEED={seed} CONVERSATIONS=1: {type(e).__name__}: {e}\n" + "".join(s.lines[-40:])) from e
        assert other.q[0].read(GUARDED, 256, B, nsid=2) == guard, "data of another namespace have changed"
        s.serves()
        assert s.resident() < 400 << 20, f"{s.resident() >> 20} MiB resident"


def test_a_served_byte_stream_of_noise_ends_and_harms_nobody():
    with Liod(config={"handshake_timeout": "5s", "stall_timeout": "2s"}) as s:
        rng = random.Random(SEED)
        for _ in range(50):
            with Conn(s.address, handshake=rng.random() < 0.5, timeout=5) as c:
                try:
                    c.send(rng.randbytes(rng.randrange(1, 5000)))
                except (Closed, OSError):
                    pass
        s.serves()


if __name__ == "__main__":
    liod.finish(tap.main)
