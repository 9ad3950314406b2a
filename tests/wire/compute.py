# SPDX-License-Identifier: Apache-2.0
"""Computational Programs and Subsystem Local Memory: the standard's own flow, with the functions that are shipped."""
import hashlib
import os
import struct

import tap
from liod import Liod, expect

FUNCTIONS = os.environ["LIO_FUNCTIONS"]
CP, SLM = 4, 3
# NSIDs of the server below
DISK, MEM, OTHER, COMPUTE = 1, 2, 3, 4
SIZE = 4 << 20


def server(**kw):
    return Liod("ram:16M", f"slm:{SIZE >> 20}M", "slm:64K", "compute:", **kw)


def low_high(v):
    return {"cdw10": v & 0xFFFFFFFF, "cdw11": v >> 32}


class Memory:
    """SLM commands on one namespace."""

    def __init__(self, q, nsid=MEM):
        self.q, self.nsid = q, nsid

    def write(self, at, data):
        return self.q.status(5, out=data, nsid=self.nsid, cdw12=len(data), **low_high(at))

    def read(self, at, n):
        return self.q.call(2, want=n, nsid=self.nsid, cdw12=n, **low_high(at)).data

    def fill(self, at, n, byte=0):
        return self.q.status(4, nsid=self.nsid, cdw12=n, cdw13=byte, **low_high(at))

    def copy(self, to, entries, fmt, total=None, nr=None):
        data = b"".join(struct.pack("<IIQI12x", nsid, 0, start, n) for nsid, start, n in entries)
        if total is None:
            total = sum((n & 0xFFFF) * 4096 + 4096 if fmt == 2 else n for _, _, n in entries)
        return self.q.status(1, out=data, nsid=self.nsid, cdw2=total & 0xFFFFFFFF, cdw3=total >> 32,
                             cdw12=(len(entries) - 1 if nr is None else nr) | fmt << 8, **low_high(to))


def image(name):
    with open(os.path.join(FUNCTIONS, name + ".o"), "rb") as f:
        return f.read()


def load(h, pind, data, part=1 << 20, ptype=0xC0, puid=None, nsid=COMPUTE):
    """Load Program in parts; the first status that is not success."""
    for at in range(0, len(data), part):
        piece = data[at:at + part]
        s = h.admin.status(0x85, out=piece, nsid=nsid, cdw10=pind | ptype << 16 | (1 << 25 if puid else 0), cdw11=len(data),
                           cdw12=(puid or 0) & 0xFFFFFFFF, cdw13=(puid or 0) >> 32, cdw14=len(piece), cdw15=at)
        if s:
            return s
    return 0


def unload(h, pind):
    return h.admin.status(0x85, nsid=COMPUTE, cdw10=pind | 1 << 24)


def activate(h, pind, on=True):
    return h.admin.status(0x88, nsid=COMPUTE, cdw10=pind | (1 << 16 if on else 0))


def ranges(*rows):
    return b"".join(struct.pack("<IIQ16x", nsid, n, start) for nsid, start, n in rows)


def create_set(h, *rows):
    return h.admin.call(0x89, out=ranges(*rows), nsid=COMPUTE, cdw11=len(rows)).dw0


def delete_set(h, rsid):
    return h.admin.status(0x89, nsid=COMPUTE, cdw10=1 | rsid << 16)


def execute(h, pind, rows=(), rsid=0, args=b"", p1=0, p2=0):
    """(status, return value) of Execute Program."""
    data = ranges(*rows) + args
    r = h.q[0].wait(h.q[0].submit(1, out=data, nsid=COMPUTE, cdw2=pind | rsid << 16, cdw3=len(rows), cdw10=p1 & 0xFFFFFFFF,
                                  cdw11=p1 >> 32, cdw12=p2 & 0xFFFFFFFF, cdw13=p2 >> 32), check=False)
    return r.status & ~0x4000, struct.unpack("<q", struct.pack("<II", r.dw0, r.dw1))[0]


def text(pattern):
    return struct.pack("<I", len(pattern)) + pattern


def test_memory_is_written_read_filled_and_copied_by_the_byte():
    with server() as s, s.host() as h:
        m = Memory(h.q[0])
        data = os.urandom(300004)
        expect(0, m.write(8, data))
        assert m.read(8, len(data)) == data
        assert m.read(0, 8) == bytes(8)
        expect(0, m.fill(12, 1000, 0xA5))
        assert m.read(8, 1008) == data[:4] + b"\xa5" * 1000 + data[1004:1008]
        expect(0, m.fill(0, SIZE, 0x11))
        assert m.read(SIZE - 4, 4) == b"\x11" * 4
        expect(0, m.write(0, data))
        expect(0, m.copy(1 << 20, [(MEM, 0, 300004), (MEM, 4, 8)], 4))
        assert m.read(1 << 20, 300012) == data + data[4:12]
        expect(0, m.copy(0, [(OTHER, 0, 65536)], 4))
        assert m.read(0, 65536) == bytes(65536)


def test_blocks_are_copied_into_memory():
    with server() as s, s.host() as h:
        m, b = Memory(h.q[0]), h.block
        data = os.urandom(64 * b)
        h.q[0].write(0, data, b)
        expect(0, m.copy(4, [(DISK, 3, 60), (DISK, 0, 0)], 2))
        assert m.read(4, 62 * b) == data[3 * b:64 * b] + data[:b]


def test_bytes_outside_the_memory_or_not_in_dwords_are_refused():
    with server() as s, s.host() as h:
        m = Memory(h.q[0])
        for at, n in ((SIZE, 4), (SIZE - 4, 8), (1 << 63, 4), ((1 << 64) - 4, 8), (SIZE + 4, 0)):
            expect(0x80, m.write(at, bytes(n)) if n else m.fill(at, n))
            expect(0x80, m.fill(at, n))
        for at, n in ((1, 4), (2, 4), (0, 3), (0, 5)):
            expect(2, m.fill(at, n))
            expect(2, h.q[0].status(2, want=n, nsid=MEM, cdw12=n, **low_high(at)))
        expect(2, m.fill(0, 4, 0x100))
        expect((0xF, 2), h.q[0].status(2, want=4, nsid=MEM, cdw12=8))
        for to, entries, fmt, status in ((SIZE - 4, [(OTHER, 0, 8)], 4, 0x80), (0, [(OTHER, 65536, 4)], 4, 0x80),
                                         (0, [(OTHER, 0, 2)], 4, 2), (0, [(DISK, 0, 0)], 4, 0x185), (0, [(OTHER, 0, 0)], 2, 0x185),
                                         (0, [(99, 0, 4)], 4, 0x185), (0, [(DISK, 4095, 1)], 2, 0x80), (0, [(DISK, 1 << 63, 0)], 2, 0x80),
                                         (0, [(MEM, 4, 8)], 4, 0x187), (0, [(OTHER, 0, 4)], 0, 2), (0, [(OTHER, 0, 4)], 3, 2),
                                         (0, [(DISK, 0, 255)] * 17, 2, 0x183), (0, [(DISK, 0, 0xFFFF)], 2, 0x80)):
            expect(status, m.copy(to, entries, fmt))
        expect(2, m.copy(0, [(OTHER, 0, 8)], 4, total=4))
        expect(0, m.copy(0, [(OTHER, 0, 8)], 4))
        s.serves()


def test_a_program_goes_through_the_standards_flow():
    lines = b"".join(b"line %d %s\n" % (i, b"lambda" if i % 7 == 0 else b"io") for i in range(20000))
    lines = lines[:len(lines) // 4 * 4]
    want = b"".join(x + b"\n" for x in lines.split(b"\n") if b"lambda" in x)
    with server() as s, s.host() as h:
        m = Memory(h.q[0])
        expect(0, load(h, 3, image("grep"), part=4096, puid=0x1122334455667788))
        expect(0x198, execute(h, 3)[0])
        expect(0, activate(h, 3))
        expect(0, m.write(0, lines))
        rsid = create_set(h, (MEM, 0, len(lines)), (MEM, 1 << 20, 1 << 20))
        status, n = execute(h, 3, rsid=rsid, args=text(b"lambda"))
        expect(0, status)
        assert n == len(want), (n, len(want))
        assert m.read(1 << 20, (n + 3) // 4 * 4)[:n] == want
        log = h.admin.log(0x82, 16 + 16 * 64, nsid=COMPUTE)
        assert struct.unpack_from("<I", log)[0] == 16
        assert struct.unpack_from("<BB6xQ", log, 16 + 3 * 64) == (1 | 4 | 8, 0xC0, 0x1122334455667788)
        assert log[16:16 + 3 * 64] == bytes(3 * 64)
        log = h.admin.log(0x84, 16 + 16 + 64, nsid=COMPUTE)
        assert struct.unpack_from("<I", log)[0] == 1 and struct.unpack_from("<HH", log, 16) == (rsid, 2)
        assert log[32:] == ranges((MEM, 0, len(lines)), (MEM, 1 << 20, 1 << 20))
        log = h.admin.log(0x83, 24, nsid=COMPUTE)
        assert struct.unpack_from("<I", log)[0] == 1 and log[16] == 0xC0
        expect(0, delete_set(h, rsid))
        expect(0x18D, execute(h, 3, rsid=rsid, args=text(b"x"))[0])
        expect(0x199, unload(h, 3))
        expect(0, activate(h, 3, False))
        expect(0x198, execute(h, 3)[0])
        expect(0, unload(h, 3))
        expect(0x196, unload(h, 3))
        expect(0x196, execute(h, 3)[0])


def test_every_kind_of_function_executes_on_ranges_given_inline():
    data = b"".join(struct.pack("<q", i * i - 5000) for i in range(50000))
    values = struct.unpack(f"<{len(data) // 8}q", data)
    with server() as s, s.host() as h:
        m = Memory(h.q[0])
        expect(0, m.write(0, data))
        for pind, name in enumerate(("stats64", "sha256", "count")):
            expect(0, load(h, pind, image(name)))
            expect(0, activate(h, pind))
        out = (OTHER, 0, 4096)
        status, n = execute(h, 0, [(MEM, 0, len(data)), out])
        expect(0, status)
        assert struct.unpack("<qqq", Memory(h.q[0], OTHER).read(0, 24)) == (max(values), min(values), sum(values)) and n >= 24
        # several ranges are one input
        status, n = execute(h, 1, [(MEM, 0, 4096), (MEM, 8192, 4000), out])
        expect(0, status)
        digest = hashlib.sha256(data[:4096] + data[8192:12192]).digest()
        assert digest in Memory(h.q[0], OTHER).read(0, 64) or digest.hex().encode() in Memory(h.q[0], OTHER).read(0, 128)
        # the second parameter: so many bytes of the input
        status, n = execute(h, 1, [(MEM, 0, 4096), out], p2=100)
        expect(0, status)
        digest = hashlib.sha256(data[:100]).digest()
        assert digest in Memory(h.q[0], OTHER).read(0, 64) or digest.hex().encode() in Memory(h.q[0], OTHER).read(0, 128)
        # output that does not fit
        assert execute(h, 1, [(MEM, 0, 4096), (OTHER, 0, 4)]) == (0, -28)


def test_what_is_no_program_is_refused_and_leaves_the_slot_free():
    with server() as s, s.host() as h:
        expect(0x18E, load(h, 0, b"\x7fELF" + bytes(1000)))
        expect(0x18E, load(h, 0, os.urandom(100)))
        good = image("count")
        expect(0x18E, load(h, 0, good[:len(good) // 2]))
        expect(0x190, load(h, 0, good, ptype=1))
        expect(0x18F, load(h, 16, good))
        expect(0x19B, h.admin.status(0x85, out=b"a", nsid=COMPUTE, cdw10=0xC0 << 16, cdw11=9 << 20, cdw14=1))
        # parts out of order, too many bytes, another size half way
        expect(0, h.admin.status(0x85, out=good[:100], nsid=COMPUTE, cdw10=0xC0 << 16, cdw11=len(good), cdw14=100))
        expect(0x18E, h.admin.status(0x85, out=good[:100], nsid=COMPUTE, cdw10=0xC0 << 16, cdw11=len(good), cdw14=100, cdw15=200))
        expect(0x18E, h.admin.status(0x85, out=good, nsid=COMPUTE, cdw10=0xC0 << 16, cdw11=len(good), cdw14=len(good), cdw15=100))
        expect(0x18E, h.admin.status(0x85, out=b"a", nsid=COMPUTE, cdw10=0xC0 << 16, cdw11=len(good) + 1, cdw14=1, cdw15=100))
        expect(0, h.admin.status(0x85, out=good[100:], nsid=COMPUTE, cdw10=0xC0 << 16, cdw11=len(good), cdw14=len(good) - 100, cdw15=100))
        expect(0, activate(h, 0))
        expect(0x199, load(h, 0, good))
        expect(0x18F, activate(h, 16))
        expect(0x196, activate(h, 1))
        s.serves()


def test_a_host_that_goes_half_way_through_loading_frees_the_slot():
    with server() as s:
        good = image("count")
        with s.host() as h:
            expect(0, h.admin.status(0x85, out=good[:100], nsid=COMPUTE, cdw10=0xC0 << 16, cdw11=len(good), cdw14=100))
            with s.host(hostid=os.urandom(16)) as other:
                expect(0x199, load(other, 0, good))
        with s.host() as h:
            for _ in range(200):
                if load(h, 0, good) == 0:
                    break
            expect(0, activate(h, 0))


def test_range_sets_are_checked_when_they_are_made():
    with server() as s, s.host() as h:
        def make(*rows, n=None):
            return h.admin.status(0x89, out=ranges(*rows), nsid=COMPUTE, cdw11=len(rows) if n is None else n)
        for rows, status in (([(DISK, 0, 4096)], 0x18B), ([(77, 0, 4096)], 0x18B), ([(MEM, SIZE, 4)], 0x18C), ([(MEM, 0, 0)], 0x18C),
                             ([(MEM, (1 << 64) - 4, 8)], 0x18C), ([(MEM, 2, 4)], 0x18C), ([(MEM, 0, 8), (MEM, 4, 8)], 0x197),
                             ([(MEM, 4 * i, 4) for i in range(9)], 0x191), ([(MEM, 0, 8), (MEM, 8, 8)], 0), ([(MEM, 0, 8), (OTHER, 4, 8)], 0)):
            expect(status, make(*rows))
        made = 2
        while make((MEM, 0, 4)) == 0:
            made += 1
        assert made == 64, made
        expect(0x192, make((MEM, 0, 4)))
        for rsid in range(1, 65):
            expect(0, delete_set(h, rsid))
        expect(0x18D, delete_set(h, 1))
        expect(0x18D, delete_set(h, 65))
        expect(0x18D, delete_set(h, 0xFFFF))
        expect(0, make((MEM, 0, 4)))


def test_commands_go_to_the_namespaces_that_have_them():
    with server() as s, s.host() as h:
        expect(0x185, load(h, 0, image("count"), nsid=MEM))
        expect(0x185, load(h, 0, image("count"), nsid=DISK))
        expect(0xB, load(h, 0, image("count"), nsid=9))
        for opcode in (0, 2, 4, 5, 8, 9):
            expect((1, 0) if opcode == 0 else 1, h.q[0].status(opcode, nsid=COMPUTE))
        expect(1, h.q[0].status(9, nsid=MEM))
        assert h.admin.identify(5, COMPUTE, CP)[:2] == struct.pack("<H", 16)
        assert struct.unpack_from("<Q", h.admin.identify(5, MEM, SLM))[0] == SIZE
        for nsid, csi in ((DISK, 0), (MEM, SLM), (COMPUTE, CP)):
            d = h.admin.identify(3, nsid)
            assert b"\x04\x01\0\0" + bytes([csi]) in d, (nsid, d[:80])
            assert struct.unpack_from("<I", h.admin.identify(7, 0, csi))[0] == nsid
        vector = struct.unpack_from("<Q", h.admin.identify(0x1C, cntid=0xFFFF))[0]
        assert vector == 1 | 1 << SLM | 1 << CP, hex(vector)


def test_an_endless_program_ends_with_its_connection():
    with server(config={"lambda_max_time": "10m"}) as s:
        src = os.path.join(os.environ["T"], "endless.c")
        with open(src, "w") as f:
            f.write('#include <lambdaio/function.h>\nLAMBDA_DOC("never ends"); LAMBDA_RECORD_ANY; LAMBDA_OUTPUT("bytes"); LAMBDA_ARGS("");\n'
                    "LAMBDA_MAP(endless)\n{\n\tvolatile unsigned long n = 1;\n\twhile (n)\n\t\tn |= 1;\n\treturn 0;\n}\n")
        code, _, err = tap.run(tap.LIO, "cc", src, "-o", src[:-1] + "o")
        assert code == 0, err
        with open(src[:-1] + "o", "rb") as f:
            body = f.read()
        with s.host() as h:
            expect(0, load(h, 0, body))
            expect(0, activate(h, 0))
            h.q[0].submit(1, out=ranges((MEM, 0, 4096), (OTHER, 0, 4096)), nsid=COMPUTE, cdw2=0, cdw3=2)
        s.serves()
        with s.host() as h:  # the program is no longer in use once it ended
            for _ in range(2000):
                if activate(h, 0, False) == 0:
                    break
            expect(0, unload(h, 0))


tap.main()
