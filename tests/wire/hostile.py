# SPDX-License-Identifier: Apache-2.0
"""What no host should send, one thing at a time: each costs its sender a status or its connection, and nobody else anything."""
import os
import struct

import liod
import tap
from liod import DISCOVERY, NQN, Liod, expect, shared
from nvmetcp import (BY_TRANSPORT, C2H_DATA, CMD, H2C_DATA, H2C_TERM, ICREQ, IN_CAPSULE, R2T, RSP, Closed, Conn, Queue, connect_data,
                     connect_sqe, make_pdu, sgl_of, sqe)

FIELD, SEQUENCE, HEADER_DIGEST, OUT_OF_RANGE, LIMIT, UNSUPPORTED = 1, 2, 3, 4, 5, 6


def terminated(conn, fes=None, fei=None, header=None):
    """The server ends the connection with a termination request that says why."""
    term = conn.ended()
    assert term is not None, "the connection was closed without a termination request"
    wanted = fes if isinstance(fes, tuple) else (fes,)
    assert fes is None or term[0] in wanted, f"FES {term[0]}, wanted {wanted}"
    assert fei is None or term[1] == fei, f"FEI {term[1]}, wanted {fei}"
    if header is not None:
        assert term[2][:len(header)] == header[:len(term[2])] and term[2], "the offending header comes back"
    conn.close()
    shared().serves()


def icreq(pfv=0, hpda=0, digest=0, maxr2t=0, **forged):
    return make_pdu(ICREQ, struct.pack("<HBBI112x", pfv, hpda, digest, maxr2t), **forged)


def fresh(raw):
    c = Conn(shared().address, handshake=False)
    c.send(raw)
    return c


def waiting_write(q, n=16, at=2000, nsid=1, block=512):
    """A write whose R2T has come; its CID, tag, offset, length."""
    cid = q.cid()
    q.submit_raw(sqe(1, cid, nsid, sgl=sgl_of(BY_TRANSPORT, n * block), cdw10=at, cdw12=n - 1), bytes(n * block))
    p = q.recv_pdu()
    assert p.type == R2T, p
    got, tag, offset, length = struct.unpack_from("<HHII", p.head, 8)
    assert got == cid and offset == 0 and 0 < length <= n * block
    return cid, tag, offset, length


# ---- before the handshake ----

def test_a_capsule_before_icreq_is_a_sequence_error():
    terminated(fresh(make_pdu(CMD, connect_sqe(1), connect_data(NQN))), SEQUENCE)


def test_other_pdus_before_icreq_are_errors_too():
    terminated(fresh(make_pdu(H2C_DATA, struct.pack("<HHII4x", 1, 1, 0, 4), b"1234")), (FIELD, SEQUENCE))


def test_an_icreq_of_wrong_length_is_a_header_error():
    terminated(fresh(icreq(hlen=127)), FIELD, 2)
    terminated(fresh(icreq(plen=127)), FIELD, 4)
    terminated(fresh(icreq(plen=129)), FIELD, 4)
    terminated(fresh(icreq(plen=0xFFFFFFFF)), FIELD, 4)


def test_an_icreq_of_an_unknown_format_or_alignment_is_refused():
    terminated(fresh(icreq(pfv=1)), (FIELD, UNSUPPORTED), 8)
    terminated(fresh(icreq(pfv=0xFFFF)), (FIELD, UNSUPPORTED), 8)
    terminated(fresh(icreq(hpda=32)), (FIELD, UNSUPPORTED), 10)
    terminated(fresh(icreq(hpda=255)), (FIELD, UNSUPPORTED), 10)


def test_unknown_digest_bits_are_not_agreed_to():
    c = fresh(icreq(digest=0xFC))
    try:
        assert c.recv_pdu().head[11] == 0
    except Closed as e:
        assert e.term and e.term[0] in (FIELD, UNSUPPORTED)
    shared().serves()


def test_a_second_icreq_is_a_sequence_error():
    with Conn(shared().address) as c:
        c.send(icreq())
        terminated(c, SEQUENCE)
    with shared().host() as h:
        h.q[0].send(icreq())
        terminated(h.q[0], SEQUENCE)
        h.admin.identify(1)


def test_text_of_another_protocol_is_refused():
    for text in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b"SSH-2.0-x\r\n", bytes(4096),
                 b"\xff" * 4096):
        fresh(text).ended()
    shared().serves()


# ---- headers ----

def test_pdu_types_that_do_not_exist_or_go_the_other_way_are_header_errors():
    for kind in (1, 3, RSP, C2H_DATA, 8, R2T, 10, 0x10, 0x7F, 0x80, 0xFF):
        with Conn(shared().address) as c:
            raw = make_pdu(kind, bytes(16))
            c.send(raw)
            terminated(c, FIELD, 0, raw)


def test_wrong_header_lengths_are_header_errors():
    for hlen in (0, 1, 7, 8, 71, 73, 128, 255):
        with Conn(shared().address) as c:
            raw = make_pdu(CMD, connect_sqe(1), connect_data(NQN), hlen=hlen)
            c.send(raw)
            terminated(c, FIELD, 2, raw[:8])
    for hlen in (0, 23, 25):
        with Conn(shared().address) as c:
            c.send(make_pdu(H2C_DATA, struct.pack("<HHII4x", 1, 1, 0, 4), b"1234", hlen=hlen))
            terminated(c, FIELD, 2)


def test_wrong_pdu_lengths_are_header_errors():
    for plen in (0, 1, 8, 71):
        with Conn(shared().address) as c:
            c.send(make_pdu(CMD, connect_sqe(1), connect_data(NQN), plen=plen))
            terminated(c, FIELD, 4)
    for plen in (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x01000000):
        with Conn(shared().address) as c:
            c.send(make_pdu(CMD, connect_sqe(1), connect_data(NQN), plen=plen))
            terminated(c, (FIELD, LIMIT))


def test_data_offsets_in_the_header_or_beyond_the_pdu_are_header_errors():
    for pdo in (0, 1, 71, 73, 255):
        with Conn(shared().address) as c:
            c.send(make_pdu(CMD, connect_sqe(1), connect_data(NQN)[:100], pdo=pdo))
            terminated(c, FIELD)


def test_digest_flags_that_were_not_agreed_are_header_errors():
    for flags in (1, 2, 3):
        with Conn(shared().address) as c:
            c.send(make_pdu(CMD, connect_sqe(1), connect_data(NQN), flags=flags))
            terminated(c, FIELD)
    with Conn(shared().address, hdgst=True, ddgst=True) as c:
        c.send(make_pdu(CMD, connect_sqe(1), connect_data(NQN), hdgst=True, ddgst=True, extra_flags=False))
        terminated(c, FIELD)


def test_a_wrong_header_digest_ends_the_connection():
    with shared().host(hdgst=True) as h:
        q = h.q[0]
        q.write(0, b"\x42" * h.block, h.block)
        q.send_pdu(CMD, sqe(1, 9, 1, sgl=sgl_of(IN_CAPSULE, h.block)), b"\xee" * h.block, bad_hdgst=True)
        terminated(q, HEADER_DIGEST)
    with shared().host() as h:
        assert h.q[0].read(0, 1, h.block) == b"\x42" * h.block


def test_a_wrong_data_digest_costs_the_command_only_and_writes_nothing():
    with shared().host(ddgst=True) as h:
        q, b = h.q[0], h.block
        q.write(0, b"\x42" * 64 * b, b)
        cid = q.cid()
        q.submit_raw(sqe(1, cid, 1, sgl=sgl_of(IN_CAPSULE, b)), b"\xee" * b, capsule=True, bad_ddgst=True)
        expect((0x22, 0x04), q.wait(cid, check=False).status & ~0x4000)
        assert q.read(0, 64, b) == b"\x42" * 64 * b
        cid, tag, offset, length = waiting_write(q, 64, 0, block=b)
        q.send_data(cid, tag, 0, b"\xee" * length, bad_ddgst=True)
        if length == 64 * b:
            expect((0x22, 0x04), q.wait(cid, check=False).status & ~0x4000)
            assert q.read(0, 64, b) == b"\x42" * 64 * b
    shared().serves()


def test_a_termination_request_of_the_host_ends_its_connection_quietly():
    for data in (b"", bytes(8), bytes(128)):
        with Conn(shared().address) as c:
            raw = struct.pack("<HI10x", 1, 0) + data
            c.send(make_pdu(H2C_TERM, raw, hlen=24))
            assert c.ended() is None
    with Conn(shared().address) as c:
        c.send(make_pdu(H2C_TERM, struct.pack("<HI10x", 1, 0) + bytes(200), hlen=24))
        c.ended()
    shared().serves()


# ---- Connect ----

def refused_connect(status, where=None, subnqn=NQN, **kw):
    with Queue(shared().address) as q:
        data = {k: kw.pop(k) for k in ("hostnqn", "hostid", "cntlid") if k in kw}
        cid = q.cid()
        q.submit_raw(connect_sqe(cid, **kw), connect_data(subnqn, **data), capsule=True)
        r = q.wait(cid, check=False)
        expect(status, r.status & ~0x4000)
        if where is not None:
            assert r.dw0 == where, f"dw0 {r.dw0:#x}: wanted {where:#x}"
    shared().serves()


DATA = 1 << 16  # in DW0 of a refusal: the offset is into the data


def test_unknown_and_malformed_nqns_are_refused_with_their_place():
    for nqn in ("nqn.2026-01.io.lambda:nobody", "", "x", NQN + "x", NQN[:-1], b"a" * 256, b"\xff" * 256, NQN.encode() + b"\0x", DISCOVERY + "2"):
        if isinstance(nqn, bytes) and nqn.startswith(NQN.encode()):
            continue  # what follows the NUL is not part of the name
        refused_connect(0x182, DATA | 256, subnqn=nqn)


def test_host_names_that_are_none_are_refused():
    for nqn in ("", b"h" * 256):
        refused_connect((0x182, 0x184), hostnqn=nqn)


def test_a_controller_id_that_does_not_exist_is_refused():
    for cntlid in (0xFFF0, 0xFFFE, 0x7777):
        refused_connect(0x182, DATA | 16, cntlid=cntlid)


def test_an_io_queue_without_an_admin_queue_is_refused():
    for cntlid in (0, 0x7777, 0xFFFF, 0xFFFE):
        refused_connect(0x182, DATA | 16, qid=1, sqsize=127, cntlid=cntlid)


def test_queue_numbers_and_sizes_out_of_bounds_are_refused():
    with shared().host() as h:
        limit = h.admin.get_property(0, True) & 0xFFFF
        for qid, sqsize, status in ((9, 127, (0x182, 0x101)), (0xFFFF, 127, (0x182, 0x101)), (2, 0, (0x182, 0x102)),
                                    (2, limit + 1, (0x182, 0x102)), (2, 0xFFFF, (0x182, 0x102))):
            refused_connect(status, qid=qid, sqsize=sqsize, cntlid=h.cntlid)
        refused_connect((0x182, 0x101, 0x0C), qid=1, sqsize=127, cntlid=h.cntlid)  # is taken
        h.q[0].flush()
    refused_connect((0x182, 0x102), sqsize=0)
    refused_connect((0x182, 0x102), sqsize=0xFFFF)


def test_another_host_cannot_join_a_controller():
    with shared().host() as h:
        refused_connect((0x182, 0x184, 0x18), qid=2, sqsize=127, cntlid=h.cntlid, hostid=b"\x99" * 16)
        refused_connect((0x182, 0x184), qid=2, sqsize=127, cntlid=h.cntlid, hostnqn="nqn.2014-08.org.nvmexpress:uuid:other")
        refused_connect(0x182, qid=2, sqsize=127, cntlid=h.cntlid, subnqn=DISCOVERY)
        h.q[0].flush()


def test_an_io_queue_of_a_controller_that_is_not_enabled_is_refused():
    with Queue(shared().address) as q:
        q.connect(NQN)
        refused_connect((0x0C, 0x182), qid=1, sqsize=127, cntlid=q.cntlid)


def test_a_record_format_from_the_future_is_refused():
    refused_connect(0x180, recfmt=1)


def test_connect_data_of_a_wrong_length_are_refused():
    for length in (0, 4, 1020, 1023, 1025, 4096):
        with Queue(shared().address) as q:
            cid = q.cid()
            q.submit_raw(connect_sqe(cid, sgl=sgl_of(IN_CAPSULE, length)), connect_data(NQN).ljust(4096, b"\0")[:length], capsule=True)
            r = q.wait(cid, check=False)
            if length < 1024:
                expect((0x0F, 0x02, 0x04, 0x180, 0x16), r.status & ~0x4000)
            else:
                expect((0, 0x0F, 0x02, 0x04, 0x180), r.status & ~0x4000)
    shared().serves()


def test_a_second_connect_on_a_queue_is_a_sequence_error():
    with shared().host() as h:
        for q in (h.admin, h.q[0]):
            cid = q.cid()
            q.submit_raw(connect_sqe(cid), connect_data(NQN), capsule=True)
            expect(0x0C, q.wait(cid, check=False).status & ~0x4000)
        h.q[0].flush()


def test_commands_before_connect_are_sequence_errors():
    for entry in (sqe(6, 1, sgl=sgl_of(BY_TRANSPORT, 4096), cdw10=1), sqe(2, 1, 1, sgl=sgl_of(BY_TRANSPORT, 512)), sqe(0x18, 1),
                  struct.pack("<BBHB19x16sB3xI16x", 0x7F, 0x40, 1, 4, sgl_of(BY_TRANSPORT, 0), 1, 0)):
        with Queue(shared().address) as q:
            q.submit_raw(entry)
            try:
                expect((0x0C, 0x01), q.wait(1, check=False).status & ~0x4000)
            except Closed as e:
                assert e.term and e.term[0] == SEQUENCE
    shared().serves()


def test_fabrics_commands_that_do_not_exist_are_refused():
    with shared().host() as h:
        for kind in (2, 3, 5, 6, 0x55, 0xFF):
            for q in (h.admin, h.q[0]):
                cid = q.cid()
                q.submit_raw(struct.pack("<BBHB19x16s24x", 0x7F, 0x40, cid, kind, sgl_of(BY_TRANSPORT, 0)))
                expect((0x01, 0x02), q.wait(cid, check=False).status & ~0x4000)
        cid = h.q[0].cid()
        h.q[0].submit_raw(struct.pack("<BBHB19x16sB3xI16x", 0x7F, 0x40, cid, 4, sgl_of(BY_TRANSPORT, 0), 1, 0))
        expect((0x01, 0x02, 0x0C), h.q[0].wait(cid, check=False).status & ~0x4000)


# ---- data ----

def untouched(mark=b"\x5a", at=2000, n=64):
    """Run in a fresh connection: blocks at.. still hold @mark."""
    with shared().host() as h:
        assert h.q[0].read(at, n, h.block) == mark * n * h.block, "something was written"


def marked(h, mark=b"\x5a", at=2000, n=64):
    h.q[0].write(at, mark * n * h.block, h.block)
    return h.q[0]


def test_h2c_data_that_nobody_asked_for_end_the_connection():
    with shared().host() as h:
        marked(h)
        h.q[0].send_data(77, 77, 0, bytes(512))
        terminated(h.q[0], (FIELD, OUT_OF_RANGE, SEQUENCE))
    with Conn(shared().address) as c:
        c.send_pdu(H2C_DATA, struct.pack("<HHII4x", 0, 0, 0, 512), bytes(512))
        terminated(c, (FIELD, OUT_OF_RANGE, SEQUENCE))
    untouched()


def test_h2c_data_with_a_wrong_tag_or_cid_end_the_connection_and_write_nothing():
    for forge in (lambda c, t: (c, t ^ 0x4001), lambda c, t: (c, (t + 1) & 0xFFFF), lambda c, t: (c, 0xFFFF), lambda c, t: (c ^ 1, t),
                  lambda c, t: (0xFFFF, t)):
        with shared().host() as h:
            q = marked(h)
            cid, tag, _, length = waiting_write(q, block=h.block)
            cid, tag = forge(cid, tag)
            q.send_data(cid, tag, 0, b"\xee" * length)
            terminated(q, (FIELD, OUT_OF_RANGE))
        untouched()


def test_h2c_data_outside_of_what_was_asked_for_end_the_connection_and_write_nothing():
    for offset, more, datal in ((4, 0, None), (512, 0, None), (0, 4, None), (0, 512, None), (0xFFFFFFFC, 0, None), (0x80000000, 0, None),
                                (0, 0, 0), (0, 0, 4), (0, 0, 0xFFFFFFFF), (0, 0, 0xFFFFFFF0), (0, -508, 512), (0, 0, 0x7FFFFFFF)):
        with shared().host() as h:
            q = marked(h)
            cid, tag, _, length = waiting_write(q, block=h.block)
            q.send_data(cid, tag, offset, b"\xee" * (length + more), datal=datal)
            terminated(q, (FIELD, OUT_OF_RANGE, LIMIT))
        untouched()


def test_h2c_data_that_come_twice_or_out_of_order_end_the_connection_and_write_nothing():
    for order in ((0, 0), (512, 0), (0, 1024), (0, 256)):
        with shared().host() as h:
            q = marked(h)
            cid, tag, _, length = waiting_write(q, block=h.block)
            try:
                for at in order:
                    q.send_data(cid, tag, at, b"\xee" * 512, last=False)
            except Closed:
                pass
            terminated(q, (FIELD, OUT_OF_RANGE, LIMIT))
        untouched()


def test_last_pdu_flags_that_lie_end_the_connection_or_are_no_matter():
    with shared().host() as h:  # "last", but more is to come
        q = marked(h)
        cid, tag, _, length = waiting_write(q, block=h.block)
        q.send_data(cid, tag, 0, b"\xee" * 512, last=True)
        terminated(q, (FIELD, OUT_OF_RANGE, SEQUENCE, LIMIT))
    untouched()


def test_h2c_data_above_the_agreed_limit_end_the_connection():
    with Liod(config={"max_h2c_data": "16K"}) as s:
        with s.host() as h:
            q = h.q[0]
            assert q.maxh2c == 16384 < h.mdts
            data = os.urandom(h.mdts)
            q.write(0, data, h.block)
            assert q.read(0, h.mdts // h.block, h.block) == data
            cid, tag, _, length = waiting_write(q, h.mdts // h.block, 0, block=h.block)
            assert length == h.mdts
            q.send_data(cid, tag, 0, bytes(q.maxh2c + 4), last=False)
            terminated(q, (FIELD, LIMIT, OUT_OF_RANGE))
        with s.host() as h:
            assert h.q[0].read(0, h.mdts // h.block, h.block) == data


def test_h2c_data_in_many_small_pieces_are_a_write():
    with shared().host() as h:
        q, b = h.q[0], h.block
        data = os.urandom(16 * b)
        cid, tag, _, length = waiting_write(q, 16, 2000, block=b)
        assert length == 16 * b
        at = 0
        while at < length:
            n = min(length - at, 4 + 4 * (at % 37))
            q.send_data(cid, tag, at, data[at:at + n], last=at + n == length)
            at += n
        q.wait(cid)
        assert q.read(2000, 16, b) == data


def test_h2c_data_padded_to_another_alignment_are_taken_from_their_offset_or_refused():
    with shared().host() as h:
        q, b = h.q[0], h.block
        marked(h)
        cid, tag, _, length = waiting_write(q, 16, 2000, block=b)
        q.send_data(cid, tag, 0, b"\x77" * length, align=64)
        try:
            q.wait(cid)
        except Closed as e:
            assert e.term[0] == FIELD
            return
        assert q.read(2000, 16, b) == b"\x77" * 16 * b


def test_data_that_never_come_write_nothing():
    with shared().host() as h:
        q = marked(h)
        waiting_write(q, block=h.block)
        cid, tag, _, length = waiting_write(q, 32, 2032, block=h.block)
        q.send_data(cid, tag, 0, b"\xee" * 512, last=False)
        shared().serves()
    untouched()


def test_half_a_capsule_writes_nothing():
    with shared().host() as h:
        q, b = marked(h), h.block
        raw = make_pdu(CMD, sqe(1, 99, 1, sgl=sgl_of(IN_CAPSULE, 8 * b), cdw10=2000, cdw12=7), b"\xee" * 8 * b)
        for cut in (1, 7, 8, 40, 71, 72, 73, len(raw) - 1):
            with shared().host() as other:
                other.q[0].send(raw[:cut])
        q.flush()
    untouched()


def test_a_capsule_with_more_data_than_is_allowed_ends_the_connection_or_the_command():
    with shared().host() as h:
        q, n = marked(h), h.in_capsule + h.block
        cid = q.cid()
        try:
            q.submit_raw(sqe(1, cid, 1, sgl=sgl_of(IN_CAPSULE, n), cdw10=2000, cdw12=n // h.block - 1), b"\xee" * n, capsule=True)
            expect((0x0F, 0x02, 0x16, 0x04), q.wait(cid, check=False).status & ~0x4000)
        except Closed as e:
            assert e.term is None or e.term[0] in (FIELD, LIMIT)
    untouched()
    shared().serves()


# ---- commands ----

def test_a_duplicate_command_id_is_refused_or_ends_the_connection():
    with shared().host() as h:
        q, b = marked(h), h.block
        cid, tag, _, length = waiting_write(q, 16, 2000, block=b)
        q.send_pdu(CMD, sqe(2, cid, 1, sgl=sgl_of(BY_TRANSPORT, b)))
        try:
            p = q.recv_pdu()
            assert p.type == RSP
            expect(0x03, struct.unpack_from("<H", p.head, 22)[0] >> 1 & 0x3FFF)
            q.send_data(cid, tag, 0, b"\x5a" * length)
            q.wait(cid)
            q.flush()
        except Closed as e:
            assert e.term and e.term[0] in (FIELD, SEQUENCE)
    untouched()
    shared().serves()


def test_more_commands_than_the_queue_has_entries_hurt_nobody_else():
    with shared().host(sqsize=3) as h:
        q = h.q[0]
        try:
            for i in range(2000):
                q.send_pdu(CMD, sqe(1, i + 1, 1, sgl=sgl_of(BY_TRANSPORT, 64 * h.block), cdw10=0, cdw12=63))
        except Closed:
            pass
        shared().serves()


def test_a_thousand_writes_that_wait_for_data_leave_others_their_buffers():
    hosts = [shared().host(queues=2) for _ in range(8)]
    for h in hosts:
        n = h.mdts // h.block
        for q in h.q:
            for i in range(64):
                q.send_pdu(CMD, sqe(1, i + 1, 1, sgl=sgl_of(BY_TRANSPORT, n * h.block), cdw10=0, cdw12=n - 1))
    with shared().host() as h:
        h.q[0].write(2000, b"\x5a" * h.block, h.block)
        assert h.q[0].read(2000, 1, h.block) == b"\x5a" * h.block
    for h in hosts:
        h.close()
    with shared().host() as h:
        data = os.urandom(h.mdts)
        h.q[0].write(0, data, h.block)
        assert h.q[0].read(0, h.mdts // h.block, h.block) == data


def test_keep_alive_and_other_admin_commands_on_an_io_queue_are_not_admin_commands():
    with shared().host() as h:
        expect((0x01, 0x02, 0x0B), h.q[0].status(0x18))
        expect((0x01, 0x02, 0x0B), h.q[0].status(0x06, want=4096, cdw10=1))


if __name__ == "__main__":
    liod.finish(tap.main)
