# SPDX-License-Identifier: Apache-2.0
"""NVM commands on a RAM and a file namespace: what is written is read, sizes from a block to MDTS, and their limits."""
import os
import struct

import liod
import tap
from liod import Liod, expect, shared
from nvmetcp import sgl_of, sqe

FUA = 1 << 30


def low_high(slba):
    return {"cdw10": slba & 0xFFFFFFFF, "cdw11": slba >> 32}


def ranges(*pairs):
    return b"".join(struct.pack("<IIQ", 0, nlb, slba) for slba, nlb in pairs)


def test_every_size_from_one_block_to_the_limit_goes_there_and_back():
    with shared().host() as h:
        for nsid, b in h.namespaces():
            most = h.mdts // b
            for n in sorted({1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 127, 128, 129, 255, 256, most - 1, most} & set(range(most + 1))):
                data = os.urandom(n * b)
                h.q[0].write(n % 5, data, b, nsid=nsid)
                assert h.q[0].read(n % 5, n, b, nsid=nsid) == data, (nsid, n)


def test_writes_in_the_capsule_and_by_r2t_are_the_same():
    with shared().host() as h:
        for n in (1, h.in_capsule // h.block, h.in_capsule // h.block + 1):
            for by_r2t in (False, True):
                data = os.urandom(n * h.block)
                h.q[0].write(100, data, h.block, by_r2t=by_r2t)
                assert h.q[0].read(100, n, h.block) == data


def test_the_last_block_is_there_and_the_one_after_is_not():
    with shared().host() as h:
        for nsid, b in h.namespaces():
            size = struct.unpack_from("<Q", h.admin.identify(0, nsid))[0]
            h.q[0].write(size - 1, b"z" * b, b, nsid=nsid)
            assert h.q[0].read(size - 1, 1, b, nsid=nsid) == b"z" * b
            for slba, n in ((size, 1), (size - 1, 2), (size - 7, 8), (size + 1, 1)):
                expect(0x80, h.q[0].status(2, want=n * b, nsid=nsid, cdw12=n - 1, **low_high(slba)))
                expect(0x80, h.q[0].status(1, out=bytes(n * b), nsid=nsid, cdw12=n - 1, **low_high(slba)))
            assert h.q[0].read(size - 1, 1, b, nsid=nsid) == b"z" * b


def test_lba_arithmetic_does_not_wrap():
    with shared().host() as h:
        for nsid, b in h.namespaces():
            h.q[0].write(0, b"\x11" * 16 * b, b, nsid=nsid)
            for slba in (1 << 32, 1 << 52, 1 << 55, (1 << 55) - 1, 1 << 54, 1 << 63, (1 << 64) - 1, (1 << 64) - 8, (1 << 63) - 1):
                for n in (1, 8, 16):
                    at = low_high(slba)
                    q, size = h.q[0], n * b
                    expect(0x80, q.status(2, want=size, nsid=nsid, cdw12=n - 1, **at))
                    expect(0x80, q.status(1, out=b"\xee" * size, nsid=nsid, cdw12=n - 1, **at))
                    expect(0x80, q.status(1, out=b"\xee" * size, by_r2t=True, nsid=nsid, cdw12=n - 1, **at))
                    expect(0x80, q.status(5, out=b"\x11" * size, nsid=nsid, cdw12=n - 1, **at))
                    expect(0x80, q.status(8, nsid=nsid, cdw12=n - 1, **at))
                    expect((0x80, 0x01), q.status(0x0C, nsid=nsid, cdw12=n - 1, **at))
                    expect(0x80, q.status(9, out=ranges((slba, n)), nsid=nsid, cdw10=0, cdw11=4))
            assert h.q[0].read(0, 16, b, nsid=nsid) == b"\x11" * 16 * b


def test_more_than_mdts_is_refused_and_nothing_moves():
    with shared().host() as h:
        for nsid, b in h.namespaces():
            n = h.mdts // b + 1
            expect(0x02, h.q[0].status(2, want=n * b, nsid=nsid, cdw12=n - 1))
            expect(0x02, h.q[0].status(1, out=bytes(n * b), nsid=nsid, cdw12=n - 1))
            if n <= 0x10000:
                expect(0x02, h.q[0].status(2, want=0x10000 * b, nsid=nsid, cdw12=0xFFFF))


def test_namespaces_are_apart_and_wrong_ones_are_refused():
    with shared().host() as h:
        block = dict(h.namespaces())
        for nsid in block:
            h.q[0].write(5, b"%d" % nsid * block[nsid], block[nsid], nsid=nsid)
        assert h.q[0].read(5, 1, block[1], nsid=1) == b"1" * block[1]
        for nsid in (0, 3, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF):
            expect((0x0B, 0x02), h.q[0].status(2, want=h.block, nsid=nsid))
            expect((0x0B, 0x02), h.q[0].status(1, out=bytes(h.block), nsid=nsid))
            if nsid != 0xFFFFFFFF:
                expect((0x0B, 0x02), h.q[0].status(0, nsid=nsid))
        assert h.q[0].read(5, 1, block[2], nsid=2) == b"2" * block[2]


def test_fua_and_flush_succeed_on_every_namespace():
    with shared().host() as h:
        for nsid, b in h.namespaces():
            h.q[0].write(9, b"f" * 4 * b, b, nsid=nsid, fua=True)
            h.q[0].call(2, want=b, nsid=nsid, cdw10=9, cdw12=FUA)
            h.q[0].flush(nsid)


def test_write_zeroes_zeroes_exactly_its_range():
    with shared().host() as h:
        for nsid, b in h.namespaces():
            for deac in (0, 1 << 25):
                for at, n in ((1, 1), (3, 13), (0, 64), (5, 40)):
                    h.q[0].write(0, b"\xbb" * 64 * b, b, nsid=nsid)
                    h.q[0].call(8, nsid=nsid, cdw10=at, cdw12=n - 1 | deac)
                    wanted = b"\xbb" * at * b + bytes(n * b) + b"\xbb" * (64 - at - n) * b
                    assert h.q[0].read(0, 64, b, nsid=nsid) == wanted, (nsid, deac, at, n)
            h.q[0].write(0, b"\xbb" * 8 * b, b, nsid=nsid)
            most = min(0x10000, (64 << 20) // b)
            h.q[0].call(8, nsid=nsid, cdw12=most - 1 | FUA)
            assert h.q[0].read(0, 8, b, nsid=nsid) == bytes(8 * b)


def test_dataset_management_takes_4096_bytes_whatever_the_number_of_ranges():
    with shared().host() as h:
        for nsid, b in h.namespaces():
            for by_r2t in (False, True):
                h.q[0].write(0, b"\xcc" * 64 * b, b, nsid=nsid)
                decoy = ranges((8, 8), (24, 8), (40, 8)).ljust(4096, b"\0")
                h.q[0].call(9, out=decoy, nsid=nsid, cdw10=1, cdw11=4, by_r2t=by_r2t)
                got = h.q[0].read(0, 64, b, nsid=nsid)
                page = got[8 * b:16 * b], got[24 * b:32 * b]
                assert page == (bytes(8 * b),) * 2, "deallocated blocks read zero"
                assert got[40 * b:] == b"\xcc" * 24 * b, "only NR ranges count"
                assert got[:8 * b] == b"\xcc" * 8 * b


def test_dataset_management_of_exact_length_and_of_256_ranges():
    with shared().host() as h:
        for nsid, b in h.namespaces():
            h.q[0].write(0, b"\xdd" * 16 * b, b, nsid=nsid)
            h.q[0].call(9, out=ranges((0, 8)), nsid=nsid, cdw10=0, cdw11=4)
            assert h.q[0].read(0, 16, b, nsid=nsid) == bytes(8 * b) + b"\xdd" * 8 * b
            many = ranges(*[(8 * i, 8) for i in range(256)])
            expect((0, 0x183), h.q[0].status(9, out=many, nsid=nsid, cdw10=255, cdw11=4))


def test_dataset_management_hints_change_nothing():
    with shared().host() as h:
        h.q[0].write(0, b"\xdd" * 16 * h.block, h.block)
        for attributes in (1, 2, 3):
            h.q[0].call(9, out=ranges((0, 16)), nsid=1, cdw10=0, cdw11=attributes)
        assert h.q[0].read(0, 16, h.block) == b"\xdd" * 16 * h.block


def test_dataset_management_refuses_bad_ranges_and_short_lists():
    with shared().host() as h:
        h.q[0].write(0, b"\xdd" * 16 * h.block, h.block)
        size = struct.unpack_from("<Q", h.admin.identify(0, 1))[0]
        for bad in ((size, 1), (size - 1, 2), (0, 0xFFFFFFFF), (1 << 63, 1), ((1 << 64) - 1, 2)):
            expect(0x80, h.q[0].status(9, out=ranges(bad), nsid=1, cdw10=0, cdw11=4))
        expect((0x02, 0x0F, 0x04), h.q[0].status(9, out=ranges((0, 1)), nsid=1, cdw10=1, cdw11=4))
        assert h.q[0].read(0, 16, h.block) == b"\xdd" * 16 * h.block


def test_compare_tells_equal_from_different_to_the_last_byte():
    with shared().host() as h:
        for nsid, b in h.namespaces():
            data = bytearray(os.urandom(32 * b))
            h.q[0].write(40, bytes(data), b, nsid=nsid)
            h.q[0].call(5, out=bytes(data), nsid=nsid, cdw10=40, cdw12=31)
            for at in (0, len(data) // 2, len(data) - 1):
                data[at] ^= 0x80
                expect(0x285, h.q[0].status(5, out=bytes(data), nsid=nsid, cdw10=40, cdw12=31))
                data[at] ^= 0x80
            assert h.q[0].read(40, 32, b, nsid=nsid) == data, "compare writes nothing"


def test_verify_reads_without_sending():
    with shared().host() as h:
        for nsid, b in h.namespaces():
            h.q[0].call(0x0C, nsid=nsid, cdw10=3, cdw12=15)


def copy(q, nsid, dest, *sources, **kw):
    out = b"".join(struct.pack("<8xQH14x", slba, n - 1) for slba, n in sources)
    return q.status(0x19, out=out, nsid=nsid, cdw12=len(sources) - 1, **low_high(dest), **kw)


def test_copy_gathers_ranges_in_order():
    with shared().host() as h:
        if not struct.unpack_from("<H", h.admin.identify(1), 520)[0] >> 8 & 1:
            raise tap.Skip("ONCS does not offer Copy")
        for nsid, b in h.namespaces():
            data = os.urandom(32 * b)
            h.q[0].write(0, data, b, nsid=nsid)
            expect(0, copy(h.q[0], nsid, 100, (8, 4), (0, 2), (31, 1), (8, 4)))
            assert h.q[0].read(100, 11, b, nsid=nsid) == \
                data[8 * b:12 * b] + data[:2 * b] + data[31 * b:] + data[8 * b:12 * b], nsid


def test_copy_refuses_what_lies_outside_or_is_too_much():
    with shared().host() as h:
        page = h.admin.identify(0, 1)
        if not struct.unpack_from("<H", h.admin.identify(1), 520)[0] >> 8 & 1:
            raise tap.Skip("ONCS does not offer Copy")
        size = struct.unpack_from("<Q", page)[0]
        mssrl, mcl, msrc = struct.unpack_from("<HIB", page, 74)
        assert mssrl and mcl and mcl >= mssrl
        h.q[0].write(100, b"\x77" * 8 * h.block, h.block)
        for dest, source in ((size, (0, 1)), (size - 1, (0, 2)), (100, (size, 1)), (100, (size - 1, 2)), (100, ((1 << 64) - 1, 2)),
                             ((1 << 64) - 1, (0, 2)), (1 << 55, (0, 8))):
            expect(0x80, copy(h.q[0], 1, dest, source))
        if mssrl < 0x10000:
            expect(0x183, copy(h.q[0], 1, 100, (0, mssrl + 1)))
        if msrc < 255:
            expect((0x183, 0x02), copy(h.q[0], 1, 100, *[(0, 1)] * (msrc + 2)))
        expect((0x02, 0x0F, 0x04), h.q[0].status(0x19, out=bytes(32), nsid=1, cdw10=100, cdw12=3))
        expect((0x02, 0x10A), h.q[0].status(0x19, out=bytes(32), nsid=1, cdw10=100, cdw12=0xF << 8))
        assert h.q[0].read(100, 8, h.block) == b"\x77" * 8 * h.block


def test_opcodes_that_are_not_offered_are_refused():
    with shared().host() as h:
        for opcode in (0x04, 0x0D, 0x0E, 0x11, 0x15, 0x7C, 0x79, 0x7D, 0xB0):
            if opcode & 3 == 1:
                got = h.q[0].status(opcode, out=bytes(h.block), nsid=1)
            elif opcode & 3 == 2:
                got = h.q[0].status(opcode, want=h.block, nsid=1)
            else:
                got = h.q[0].status(opcode, nsid=1)
            expect((0x01, 0x02), got)


def test_fused_commands_and_prps_are_refused():
    with shared().host() as h:
        for flags in (0x41, 0x42, 0x43, 0x00, 0x80, 0xC0):
            got = h.q[0].status(1, out=b"\xff" * h.block, nsid=1, flags=flags, cdw10=200)
            if got:
                expect((0x02, 0x0B), got)
            else:
                raise AssertionError(f"flags {flags:#x} were taken")


def test_a_transfer_that_disagrees_with_the_block_count_is_refused():
    with shared().host() as h:
        b = h.block
        h.q[0].write(300, b"\x99" * 8 * b, b)
        for length, n in ((b, 2), (b - 4, 1), (4, 1), (2 * b - 1, 2)):
            sgl = sgl_of(0x5A, length)
            expect((0x02, 0x0F, 0x04), h.q[0].status(2, want=0, sgl=sgl, nsid=1, cdw10=300, cdw12=n - 1))
            expect((0x02, 0x0F, 0x04), h.q[0].status(1, out=b"", sgl=sgl, nsid=1, cdw10=300, cdw12=n - 1))
        assert h.q[0].read(300, 8, b) == b"\x99" * 8 * b
        shared().serves()


def test_wrong_sgls_are_refused():
    with shared().host() as h:
        b, q = h.block, h.q[0]
        h.q[0].write(300, b"\x99" * 8 * b, b)
        for kind in (0x00, 0x02, 0x10, 0x20, 0x30, 0x40, 0x50, 0x5B, 0x5F, 0xF0, 0xFF):
            expect((0x11, 0x02, 0x0D), q.status(2, want=0, sgl=sgl_of(kind, b), nsid=1, cdw10=300))
            expect((0x11, 0x02, 0x0D), q.status(1, out=b"", sgl=sgl_of(kind, b), nsid=1, cdw10=300))
        expect((0x11, 0x02, 0x0F, 0x16), q.status(2, want=0, sgl=sgl_of(1, b), nsid=1, cdw10=300))  # a read into the capsule
        for length, address in ((b, 4), (b, b), (b, 1 << 40), (b, (1 << 64) - b), (1 << 31, 0), (0xFFFFFFFF, 0), (0xFFFFFFFF, 1)):
            cid = q.cid()
            q.submit_raw(sqe(1, cid, 1, sgl=sgl_of(1, length, address), cdw10=300), b"\xee" * b, capsule=True)
            status = q.wait(cid, check=False).status & ~0x4000
            expect((0x16, 0x0F, 0x02, 0x04), status)
        assert q.read(300, 8, b) == b"\x99" * 8 * b
    shared().serves()


def test_in_capsule_data_that_the_sgl_does_not_name_are_refused_or_ignored():
    with shared().host() as h:
        b, q = h.block, h.q[0]
        q.write(300, b"\x99" * 8 * b, b)
        cid = q.cid()
        q.submit_raw(sqe(2, cid, 1, sgl=sgl_of(0x5A, b), cdw10=300), b"\xee" * b, want=b, capsule=True)
        try:
            q.wait(cid, check=False)
        except Exception as e:
            assert type(e).__name__ == "Closed", e
    with shared().host() as h:
        assert h.q[0].read(300, 8, b) == b"\x99" * 8 * b
    shared().serves()


def test_two_hosts_write_next_to_each_other():
    with shared().host() as a, shared().host() as b:
        block = dict(a.namespaces())[2]
        for i in range(32):
            (a if i % 2 else b).q[0].write(i, bytes([i]) * block, block, nsid=2)
        for h in (a, b):
            assert h.q[0].read(0, 32, block, nsid=2) == b"".join(bytes([i]) * block for i in range(32))


def test_data_in_a_file_are_where_they_belong_once_flushed():
    path = os.path.join(os.environ["T"], "disk")
    with open(path, "wb") as f:
        f.truncate(8 << 20)
    with Liod(path) as s, s.host() as h:
        data = os.urandom(100 * h.block)
        h.q[0].write(77, data, h.block)
        h.q[0].flush()
        with open(path, "rb") as f:
            f.seek(77 * h.block)
            assert f.read(len(data)) == data
        h.q[0].write(500, data, h.block, fua=True)
        with open(path, "rb") as f:
            f.seek(500 * h.block)
            assert f.read(len(data)) == data


def test_deallocation_gives_a_files_space_back():
    path = os.path.join(os.environ["T"], "sparse")
    with open(path, "wb") as f:
        f.truncate(8 << 20)
    with Liod(path) as s, s.host() as h:
        n = min(h.mdts, 1 << 20) // h.block
        for i in range(4):
            h.q[0].write(i * n, b"x" * n * h.block, h.block, fua=True)
        full = os.stat(path).st_blocks
        h.q[0].call(9, out=ranges((0, 4 * n)), nsid=1, cdw10=0, cdw11=4)
        h.q[0].flush()
        assert os.stat(path).st_blocks < full / 2, "the file still takes as much of the disk"
        assert os.stat(path).st_size == 8 << 20
        assert h.q[0].read(0, n, h.block) == bytes(n * h.block)


def test_a_null_namespace_takes_everything_and_a_read_only_one_nothing():
    with Liod("null:1G") as s, s.host() as h:
        h.q[0].write(0, bytes(16 * h.block), h.block)
        assert len(h.q[0].read(0, 16, h.block)) == 16 * h.block


if __name__ == "__main__":
    liod.finish(tap.main)
