# SPDX-License-Identifier: Apache-2.0
"""Admin commands: identify, log pages, features, keep alive, asynchronous events, abort, and what is not offered."""
import os
import signal
import struct
import time

import liod
import tap
from liod import NQN, Liod, expect, shared
from nvmetcp import DNR, HOSTID, Closed, Queue, property_get_sqe, property_set_sqe, sgl_of, sqe

u16, u32, u64 = (lambda p, at, f=f: struct.unpack_from(f, p, at)[0] for f in ("<H", "<I", "<Q"))


def admin():
    return shared().host(queues=0)


def test_identify_controller_tells_of_a_controller_one_can_use():
    with admin() as h:
        p = h.admin.identify(1)
        for name, (at, end) in {"serial": (4, 24), "model": (24, 64), "firmware": (64, 72)}.items():
            text = p[at:end].decode("ascii")
            assert text.strip() and all(32 <= ord(c) < 127 for c in text), f"{name}: printable, padded with spaces"
        assert p[111] == 1, "an I/O controller"
        assert p[77], "MDTS says a limit"
        assert u16(p, 520) & 0x4, "dataset management"
        assert u16(p, 520) & 0x8, "write zeroes"
        assert u16(p, 520) & 0x1, "compare"
        assert p[261] & 0x2, "command effects log"


def test_identify_namespace_tells_its_size_and_block():
    with admin() as h:
        p = h.admin.identify(0, 1)
        block = 1 << p[130]
        assert block in (512, 4096)
        assert u64(p, 0) * block == 64 << 20 and u64(p, 8) <= u64(p, 0)
        assert p[104:120] != bytes(16) or p[120:128] != bytes(8), "NGUID or EUI64"


def test_lasting_names_of_namespaces_differ_and_stay():
    def names():
        with admin() as h:
            return [h.admin.identify(3, n) for n in (1, 2)]
    first = names()
    assert first[0] != first[1] and names() == first


def test_namespace_lists_go_on_from_the_nsid_given():
    with admin() as h:
        for cns in (0x02, 0x07, 0x10):
            if h.admin.status(6, want=4096, cdw10=cns):
                assert cns == 0x10, f"CNS {cns:#x} is refused"
                continue
            for after, wanted in ((0, (1, 2, 0)), (1, (2, 0)), (2, (0,)), (0xFFFFFFFD, (0,))):
                got = struct.unpack("<1024I", h.admin.identify(cns, after))
                assert got[:len(wanted)] == wanted, f"CNS {cns:#x} after {after}"
            for wrong in (0xFFFFFFFE, 0xFFFFFFFF):
                expect(0x0B, h.admin.status(6, want=4096, nsid=wrong, cdw10=cns))


def test_identify_per_command_set_knows_the_nvm_set():
    with admin() as h:
        h.admin.identify(5, 1)
        h.admin.identify(6)
        independent = h.admin.identify(8, 1)
        assert len(independent) == 4096
        sets = h.admin.identify(0x1C, cntid=0xFFFF)
        assert u64(sets, 0) & 1, "the NVM command set is in the first combination"
        assert h.admin.status(6, want=4096, nsid=1, cdw10=5, cdw11=0x55 << 24) != 0


def test_identify_refuses_what_is_not_there():
    with admin() as h:
        for cns, nsid, wanted in ((0, 0, 0x0B), (0, 3, 0), (5, 3, 0), (8, 3, 0), (0, 0xFFFFFFFE, 0x0B), (3, 0, 0x0B), (3, 3, 0x0B), (5, 0, 0x0B),
                                  (0x77, 1, 0x02), (0xFF, 0, 0x02)):
            status = h.admin.status(6, want=4096, nsid=nsid, cdw10=cns)
            expect(wanted, status)
            if not status:  # a valid but inactive NSID
                assert h.admin.identify(cns, nsid) == bytes(4096)


def test_identify_controller_lists_hold_this_controller():
    with admin() as h:
        status = h.admin.status(6, want=4096, cdw10=0x13)
        if status:
            expect(0x02, status)
            return
        p = h.admin.identify(0x13)
        n = u16(p, 0)
        ids = struct.unpack_from(f"<{n}H", p, 2)
        assert h.cntlid in ids and list(ids) == sorted(ids)


def test_log_pages_that_hosts_ask_for_are_there():
    with admin() as h:
        for lid, length in ((1, 64), (2, 512), (3, 512), (4, 4096), (5, 4096), (0x12, 1024), (0x13, 4096)):
            assert len(h.admin.log(lid, length)) == length
        effects = h.admin.log(5, 4096)
        for opcode in (0x02, 0x06, 0x08, 0x09, 0x0A, 0x0C, 0x18):
            assert effects[opcode * 4] & 1, f"admin {opcode:#x} is in the effects log"
        for opcode in (0x00, 0x01, 0x02):
            assert effects[1024 + opcode * 4] & 1, f"I/O {opcode:#x} is in the effects log"
        assert not effects[0x80 * 4] & 1, "Format is not"
        assert h.admin.log(0x13, 4096) == bytes(4096), "no command of the management interface"


def test_supported_log_pages_agree_with_what_is_answered():
    with admin() as h:
        page = h.admin.log(0, 1024)
        for lid in range(256):
            if lid == 0x70:
                continue
            status = h.admin.status(2, want=512, nsid=0xFFFFFFFF, cdw10=lid | 127 << 16)
            assert (status == 0) == bool(page[lid * 4] & 1), f"log {lid:#x}: status {status:#x}, listed {page[lid * 4] & 1}"


def test_a_log_page_reads_the_same_in_pieces():
    with admin() as h:
        whole = h.admin.log(5, 4096)
        for piece in (4, 64, 1000, 4092):
            got = b"".join(h.admin.log(5, min(piece, 4096 - at), offset=at) for at in range(0, 4096, piece))
            assert got == whole, piece


def test_a_log_offset_beyond_the_page_or_askew_is_refused():
    with admin() as h:
        for offset in (2, 4095, 1 << 40, (1 << 64) - 4, (1 << 64) - 1):
            status = h.admin.status(2, want=64, nsid=0xFFFFFFFF, cdw10=5 | 15 << 16, cdw12=offset & 0xFFFFFFFF, cdw13=offset >> 32)
            expect(0x02, status)


def test_a_log_longer_than_its_page_or_than_the_buffer_writes_nothing_strange():
    with admin() as h:
        status = h.admin.status(2, want=8192, nsid=0xFFFFFFFF, cdw10=2 | 2047 << 16)
        expect((0, 0x02), status)
        expect((0x02, 0x0F), h.admin.status(2, want=512, nsid=0xFFFFFFFF, cdw10=2 | 0xFFFF << 16, cdw11=0xFFFF))


def test_smart_counts_what_was_read_and_written():
    with shared().host() as h:
        def counts():
            p = h.admin.log(2, 512)
            return [u64(p, at) for at in (32, 48, 64, 80)]
        before = counts()
        for i in range(40):
            h.q[0].write(0, bytes(64 * h.block), h.block, by_r2t=True)
            h.q[0].read(0, 64, h.block)
        after = counts()
        assert after[2] - before[2] == 40 and after[3] - before[3] == 40, (before, after)
        assert after[0] > before[0] and after[1] > before[1], (before, after)


def test_smart_tells_a_temperature_that_no_host_takes_for_cold_or_hot():
    with admin() as h:
        p = h.admin.log(2, 512)
        kelvin = u16(p, 1)
        assert 273 < kelvin < 323, kelvin
        assert p[0] == 0, "nothing is critical"
        assert u16(h.admin.identify(1), 266) in (0, *range(kelvin + 1, 500)), "the warning threshold is above it"
        h.admin.call(0x09, cdw10=4, cdw11=kelvin)
        assert h.admin.log(2, 512)[0] == 0x02, "a threshold that it has reached"
        h.admin.call(0x09, cdw10=4, cdw11=kelvin + 1)
        assert h.admin.log(2, 512)[0] == 0


def test_the_error_log_keeps_the_last_error():
    with shared().host() as h:
        count = u64(h.admin.log(1, 64), 0)
        expect(0x80, h.q[0].status(2, want=h.block, nsid=1, cdw11=0x100))
        e = h.admin.log(1, 64)
        if u64(e, 0) == count:
            raise tap.Skip("the server logs no errors of this kind")
        assert u16(e, 8) == 1 and u16(e, 12) >> 1 & 0x7FF == 0x80 and u32(e, 24) == 1, e.hex()


def test_features_are_set_and_got_back():
    with admin() as h:
        q = h.admin
        granted = q.call(0x09, cdw10=7, cdw11=0x00030003).dw0
        assert q.call(0x0A, cdw10=7).dw0 == granted
        wide = q.call(0x09, cdw10=7, cdw11=0xFFFEFFFE).dw0
        assert wide & 0xFFFF <= 0xFFFE
        expect(0x02, q.status(0x09, cdw10=7, cdw11=0xFFFFFFFF))
        q.call(0x09, cdw10=0xF, cdw11=120000)
        assert q.call(0x0A, cdw10=0xF).dw0 >= 120000
        q.call(0x09, cdw10=0xB, cdw11=0x100)
        assert q.call(0x0A, cdw10=0xB).dw0 == 0x100
        assert q.call(0x0A, cdw10=6).dw0 in (0, 1)


def test_unknown_features_are_refused_and_saving_too():
    with admin() as h:
        for f in (0x00, 0x7F, 0xC3, 0xFF):
            expect(0x02, h.admin.status(0x0A, cdw10=f))
            expect((0x02, 0x10E), h.admin.status(0x09, cdw10=f))
        expect((0x10D, 0x02), h.admin.status(0x09, cdw10=0xB | 1 << 31, cdw11=0))


def test_the_host_id_feature_is_that_of_connect():
    with shared().host(queues=0, hostid=bytes(range(100, 116))) as h:
        status = h.admin.status(0x0A, want=16, cdw10=0x81, cdw11=1)
        if status:
            expect(0x02, status)
            return
        assert h.admin.call(0x0A, want=16, cdw10=0x81, cdw11=1).data == bytes(range(100, 116))


def test_host_behavior_is_kept_until_reset_and_what_is_unknown_is_refused():
    with admin() as h:
        def got(select=0):
            return h.admin.call(0x0A, want=512, cdw10=0x16 | select << 8)
        assert got().data == bytes(512) and got().dw0 == 0
        h.admin.call(0x09, out=b"\1" + bytes(511), cdw10=0x16)
        assert got().data == b"\1" + bytes(511)
        assert got(1).data == bytes(512), "the default"
        assert h.admin.call(0x0A, cdw10=0x16 | 3 << 8).dw0 == 4, "it can be changed"
        for wrong in (b"\2" + bytes(511), b"\1\1" + bytes(510), bytes(2) + b"\1" + bytes(509), bytes(4) + b"\4" + bytes(507), bytes(511) + b"\1"):
            expect(0x02, h.admin.status(0x09, out=wrong, cdw10=0x16))
        assert got().data == b"\1" + bytes(511), "what was refused changed nothing"
        expect((0x02, 0x0F), h.admin.status(0x09, out=bytes(16), cdw10=0x16))
        expect((0x02, 0x0F), h.admin.status(0x09, cdw10=0x16))
        h.admin.call(0x09, out=bytes(512), cdw10=0x16)
        assert got().data == bytes(512)


def test_commands_before_the_controller_is_enabled_are_refused():
    with Queue(shared().address) as q:
        q.connect(NQN)
        expect(0x0C, q.status(6, want=4096, cdw10=1))
        q.enable()
        q.identify(1)


def test_properties_that_do_not_exist_are_refused():
    with admin() as h:
        for offset in (4, 0x18, 0x100, 0xFFFFFFFF, 0x7FFFFFFC):
            cid = h.admin.cid()
            h.admin.submit_raw(property_get_sqe(cid, offset, False))
            expect(0x02, h.admin.wait(cid, check=False).status & ~DNR)


def test_reserved_values_of_cc_are_refused_or_fail_the_controller_only():
    for cc in (0x461, 0x20, 0x460071, 0xFFFFFFFF):
        with Queue(shared().address) as q:
            q.connect(NQN)
            cid = q.cid()
            q.submit_raw(property_set_sqe(cid, 0x14, cc))
            try:
                q.wait(cid, check=False)
                q.get_property(0x1C)
            except Closed:
                pass
    shared().serves()


def test_what_is_not_offered_is_refused_as_such():
    with admin() as h:
        for opcode, out in ((0x80, b""), (0x84, b""), (0x10, b""), (0x11, bytes(4096)), (0x14, b""), (0x0D, bytes(4096)),
                            (0x15, bytes(4096)), (0x81, bytes(512)), (0x00, b""), (0x01, b""), (0x04, b""), (0x05, b""),
                            (0x7E, b""), (0xC1, bytes(64)), (0xFF, b"")):
            expect((0x01, 0x02), h.admin.status(opcode, out=out, nsid=1))
        expect(0x01, h.admin.status(0x82, want=512))
    shared().serves()


def test_keep_alive_keeps_and_its_absence_ends_the_controller():
    with Liod() as s, s.host(kato=2500) as kept, s.host(kato=500) as silent, s.host(kato=0) as careless:
        for _ in range(10):
            time.sleep(0.5)
            kept.admin.call(0x18)
        try:  # by now it is many times over: the queues are closed, or will be
            silent.admin.sock.settimeout(30)
            silent.admin.ended(30)
            silent.q[0].ended(30)
        except TimeoutError:
            raise AssertionError("a host that was silent for many of its keep-alive times still has its queues") from None
        kept.q[0].flush()
        careless.q[0].flush()
        s.serves()


def test_commands_count_as_signs_of_life_only_where_that_is_said():
    with Liod() as s, s.host(kato=2500) as h:
        tbkas = struct.unpack_from("<I", h.admin.identify(1), 96)[0] >> 6 & 1
        try:
            for _ in range(10):
                time.sleep(0.5)
                h.q[0].flush()
        except (Closed, TimeoutError):
            assert not tbkas, "traffic based keep alive is promised in CTRATT, but traffic did not count"


def test_asynchronous_event_requests_wait_and_are_limited():
    with admin() as h:
        limit = h.admin.identify(1)[259] + 1
        waiting = [h.admin.submit(0x0C) for _ in range(limit)]
        expect(0x105, h.admin.status(0x0C))
        h.admin.call(0x18)
        assert not any(h.admin.pending[c].done for c in waiting)


def test_an_asynchronous_event_request_can_be_aborted():
    with admin() as h:
        cid = h.admin.submit(0x0C)
        r = h.admin.call(8, cdw10=cid << 16)
        if r.dw0 & 1:
            raise tap.Skip("this server does not abort them; it may decline")
        expect((0x07,), h.admin.wait(cid, check=False).status & ~DNR)


def test_abort_of_what_is_not_outstanding_says_so():
    with shared().host() as h:
        for sqid, cid in ((0, 4711), (1, 4711), (7, 1), (0xFFFF, 0xFFFF)):
            status = h.admin.wait(h.admin.submit(8, cdw10=cid << 16 | sqid), check=False)
            assert status.status & ~DNR in (0x02, 0x03) or status.status == 0 and status.dw0 & 1, (sqid, cid, status)


def test_abort_of_a_command_that_waits_for_its_data_ends_it_and_writes_nothing():
    with shared().host() as h:
        q = h.q[0]
        q.write(1000, b"\xaa" * 4 * h.block, h.block)
        cid = q.cid()
        q.submit_raw(sqe(1, cid, 1, sgl=sgl_of(0x5A, 4 * h.block), cdw10=1000, cdw12=3), bytes(4 * h.block))
        r2t = q.recv_pdu()
        assert r2t.type == 9
        r = h.admin.call(8, cdw10=cid << 16 | 1)
        if r.dw0 & 1 == 0:
            try:
                expect(0x07, q.wait(cid, check=False).status & ~DNR)
            except Closed:
                pass
    with shared().host() as h:
        assert h.q[0].read(1000, 4, h.block) == b"\xaa" * 4 * h.block
    shared().serves()


def test_a_namespace_that_grows_is_announced():
    path = os.path.join(os.environ["T"], "grows")
    with open(path, "wb") as f:
        f.truncate(16 << 20)
    with Liod(path) as s, s.host() as h:
        before = u64(h.admin.identify(0, 1), 0)
        h.admin.call(0x09, cdw10=0xB, cdw11=0x100)
        event = h.admin.submit(0x0C)
        with open(path, "r+b") as f:
            f.truncate(32 << 20)
        s.proc.send_signal(signal.SIGHUP)
        r = h.admin.wait(event)
        assert r.dw0 & 7 == 2 and r.dw0 >> 8 & 0xFF == 0 and r.dw0 >> 16 & 0xFF == 4, f"{r.dw0:#x}"
        assert u32(h.admin.log(4, 4096), 0) == 1
        assert u64(h.admin.identify(0, 1), 0) == 2 * before
        assert u32(h.admin.log(4, 4096), 0) == 0, "the log is empty once read"
        h.q[0].write(2 * before - 1, b"e" * h.block, h.block)
        assert h.q[0].read(2 * before - 1, 1, h.block) == b"e" * h.block


def test_hosts_of_one_id_see_their_namespaces_by_the_same_names():
    with shared().host(hostid=HOSTID) as a, shared().host(hostid=bytes(16)[:15] + b"\1") as b:
        assert a.admin.identify(3, 1) == b.admin.identify(3, 1)


if __name__ == "__main__":
    liod.finish(tap.main)
