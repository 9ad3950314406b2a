# SPDX-License-Identifier: Apache-2.0
"""Connections as a well-behaved host makes them: handshake, digests, discovery, Connect, the order of a stock driver."""
import os
import struct

import liod
import tap
from liod import NQN, expect, shared
from nvmetcp import DISCOVERY, HOSTID, Conn, Host, Queue, Refused


def test_a_handshake_agrees_on_each_combination_of_digests():
    for h in (False, True):
        for d in (False, True):
            with Conn(shared().address, hdgst=h, ddgst=d) as c:
                assert (c.hdgst, c.ddgst) == (h, d)


def test_commands_and_data_flow_both_ways_under_each_combination_of_digests():
    for digests in range(4):
        with shared().host(hdgst=bool(digests & 1), ddgst=bool(digests & 2)) as h:
            data = os.urandom(16 * h.block)
            h.q[0].write(digests * 64, data, h.block)
            h.q[0].write(digests * 64 + 32, data, h.block, by_r2t=True)
            assert h.q[0].read(digests * 64, 16, h.block) == data
            assert h.q[0].read(digests * 64 + 32, 16, h.block) == data


def test_data_are_aligned_as_the_host_asks():
    for hpda in (0, 1, 15, 31):
        with shared().host(hpda=hpda, hdgst=True, ddgst=True) as h:
            data = os.urandom(8 * h.block)
            h.q[0].write(0, data, h.block)
            assert h.q[0].read(0, 8, h.block) == data


def test_a_handshake_that_comes_byte_by_byte_is_a_handshake():
    with Conn(shared().address, handshake=False) as c:
        icreq = struct.pack("<BBBBIHBBI112x", 0, 0, 128, 0, 128, 0, 0, 0, 0)
        for b in icreq:
            c.send(bytes([b]))
        assert c.recv_pdu().type == 1


def read_discovery(address, piece, subnqn=DISCOVERY):
    with Queue(address) as q:
        q.connect(subnqn)
        q.enable()
        page = q.identify(1)
        assert page[111] == 2, "controller type: discovery"
        head = q.log(0x70, 20)
        count = struct.unpack_from("<QQH", head)[1]
        size = 1024 * (count + 1)
        log = b"".join(q.log(0x70, min(piece, size - at), offset=at) for at in range(0, size, piece))
        again = q.log(0x70, 20)
        assert head[:8] == again[:8], "the generation did not change"
    return count, log


def records(log):
    for at in range(1024, len(log), 1024):
        e = log[at:at + 1024]
        yield {"trtype": e[0], "adrfam": e[1], "subtype": e[2], "treq": e[3], "portid": struct.unpack_from("<H", e, 4)[0],
               "cntlid": struct.unpack_from("<H", e, 6)[0], "asqsz": struct.unpack_from("<H", e, 8)[0],
               "trsvcid": e[32:64].rstrip(b"\0 ").decode(), "subnqn": e[256:512].rstrip(b"\0").decode(),
               "traddr": e[512:768].rstrip(b"\0 ").decode()}


def test_the_discovery_log_reads_by_its_first_20_bytes_and_then_by_offset():
    count, log = read_discovery(shared().address, 1 << 20)
    found = [r for r in records(log) if r["subnqn"] == NQN]
    assert len(found) == 1 and count >= 1
    r = found[0]
    assert (r["trtype"], r["adrfam"], r["subtype"]) == (3, 1, 2), r
    assert (r["traddr"], int(r["trsvcid"])) == shared().address, r
    assert r["cntlid"] == 0xFFFF and r["asqsz"] >= 32, r


def test_the_discovery_log_is_the_same_in_pieces_of_any_size():
    whole = read_discovery(shared().address, 1 << 20)
    for piece in (4, 20, 1024, 1028):
        assert read_discovery(shared().address, piece) == whole


def test_a_discovery_controller_has_no_io_queues_and_no_namespaces():
    with Queue(shared().address) as q:
        q.connect(DISCOVERY)
        q.enable()
        with Queue(shared().address) as io:
            try:
                io.connect(DISCOVERY, qid=1, cntlid=q.cntlid)
            except Refused:
                pass
            else:
                raise AssertionError("an I/O queue was given")
        assert q.status(0x06, want=4096, nsid=1, cdw10=0) != 0
        q.keep = q.call(0x18) if q.identify(1)[320] else None


def test_connect_takes_its_data_in_the_capsule_or_by_r2t():
    for by_r2t in (False, True):
        with Queue(shared().address) as q:
            assert q.connect(NQN, by_r2t=by_r2t).dw0 & 0xFFFF != 0xFFFF


def test_every_controller_has_an_id_of_its_own_which_identify_repeats():
    hosts = [shared().host() for _ in range(5)]
    ids = [h.cntlid for h in hosts]
    assert len(set(ids)) == 5
    for h in hosts:
        assert struct.unpack_from("<H", h.admin.identify(1), 78)[0] == h.cntlid
        h.close()


def test_a_queue_without_sq_flow_control_answers_sqhd_ffff():
    with shared().host(cattr=4) as h:
        assert h.q[0].flush().sqhd == 0xFFFF
    with shared().host() as h:
        assert h.q[0].flush().sqhd < 128


def test_sqhd_goes_around_the_queue():
    with shared().host(sqsize=7) as h:
        heads = [h.q[0].flush().sqhd for _ in range(20)]
        assert len(set(heads)) == 8 and all((b - a) % 8 == 1 for a, b in zip(heads, heads[1:])), heads


def test_the_stock_drivers_order_of_commands_works():
    """As Linux 6.12 does it; the demands are those that make its connect fail or complain."""
    a = shared().address
    with Queue(a) as q:
        q.connect(NQN, sqsize=31, kato=5000)
        cap = q.get_property(0, True)
        assert cap & 0xFFFF >= 127 and cap >> 37 & 1, f"CAP {cap:#x}"
        q.set_property(0x14, 0x460060 if cap >> 43 & 1 else 0x460000)
        cap = q.get_property(0, True)
        q.set_property(0x14, 0x460061 if cap >> 43 & 1 else 0x460001)
        while not q.get_property(0x1C) & 1:
            pass
        vs = q.get_property(8)
        assert vs >= 0x10300
        page = q.identify(1)
        field = struct.unpack_from
        assert field("<I", page, 80)[0] == vs
        assert field("<H", page, 320)[0] > 0, "KAS"
        ioccsz, iorcsz, icdoff = field("<IIH", page, 1792)
        assert ioccsz >= 4 and iorcsz >= 1 and icdoff == 0
        assert field("<H", page, 78)[0] == q.cntlid
        assert field("<I", page, 536)[0] & 3, "SGLS"
        assert field("<H", page, 514)[0] >= 128, "MAXCMD"
        nn, mnan = field("<I", page, 516)[0], field("<I", page, 540)[0]
        assert nn >= 2
        assert 1 <= mnan <= nn
        assert page[768:1024].rstrip(b"\0").decode() == NQN
        assert page[512] == 0x66 and page[513] == 0x44, "SQES, CQES"
        if page[261] & 2:
            q.log(5, 4096, nsid=0)
        if page[76] & 8:
            q.log(0xC, 4096)
        q.log(2, 512)
        granted = q.call(0x09, cdw10=7, cdw11=1 << 16 | 1).dw0
        queues = min(granted & 0xFFFF, granted >> 16, 1) + 1
        io = []
        for i in range(queues):
            io.append(Queue(a))
            io[-1].connect(NQN, qid=i + 1, sqsize=127, cntlid=q.cntlid)
        oaes = field("<I", page, 92)[0]
        if oaes:
            q.call(0x09, cdw10=0xB, cdw11=oaes)
        q.submit(0x0C)
        if cap >> 43 & 1:
            q.call(0x06, want=4096, cdw10=6)
        active = field("<1024I", q.identify(2))
        assert active[:3] == (1, 2, 0)
        for nsid in active[:2]:
            descriptors = q.call(0x06, want=4096, nsid=nsid, cdw10=3).data
            kinds, at = [], 0
            while descriptors[at + 1]:
                kinds.append(descriptors[at])
                at += 4 + descriptors[at + 1]
            assert 2 in kinds or 3 in kinds, "a namespace has a lasting name"
            both = [q.submit(0x06, want=4096, nsid=nsid, cdw10=0) for _ in range(2)]
            for cid in both:
                nsze = field("<Q", q.wait(cid).data)[0]
                assert nsze
        q.call(0x18)
        for i in io:
            i.read(0, 8, 1 << q.identify(0, 1)[130])
        q.set_property(0x14, 0x464061)
        while q.get_property(0x1C) >> 2 & 3 != 2:
            pass
        for i in io:
            i.close()
    shared().serves()


def test_many_queues_share_a_controller():
    with shared().host(queues=4) as h:
        for i, q in enumerate(h.q):
            q.write(i * 8, bytes([i + 1]) * 8 * h.block, h.block)
        for q in h.q:
            for i in range(4):
                assert q.read(i * 8, 8, h.block) == bytes([i + 1]) * 8 * h.block


def test_a_deep_queue_answers_everything_that_was_sent_at_once():
    with shared().host(sqsize=127) as h:
        q = h.q[0]
        data = os.urandom(127 * h.block)
        q.write(0, data, h.block)
        cids = {q.submit(2, want=h.block, nsid=1, cdw10=i): i for i in range(127)}
        for cid, i in cids.items():
            assert q.wait(cid).data == data[i * h.block:(i + 1) * h.block]


def test_many_capsules_in_one_segment_are_many_commands():
    with shared().host() as h:
        q, raw = h.q[0], []
        q.sent = raw
        socket, q.sock = q.sock, Swallow()
        cids = [q.submit(2, want=h.block, nsid=1, cdw10=i) for i in range(64)]
        q.sock, q.sent = socket, None
        q.send(b"".join(raw))
        for cid in cids:
            q.wait(cid)


class Swallow:
    """A socket that keeps what is sent to itself."""

    def sendall(self, _):
        pass


def test_disconnect_of_an_io_queue_is_answered_and_closes_it():
    with shared().host(queues=2) as h:
        cid = h.q[0].cid()
        h.q[0].submit_raw(struct.pack("<BBHB19x16sH22x", 0x7F, 0x40, cid, 8, bytes(15) + b"\x5a", 0))
        status = h.q[0].wait(cid, check=False).status
        if status == 0:
            assert h.q[0].ended() is None
        else:
            expect((0x01, 0x02, 0x0C), status & 0x3FFF)
        h.q[1].flush()


def test_a_reset_through_cc_ends_the_io_queues_and_keeps_the_admin_queue():
    with shared().host(queues=1) as h:
        h.admin.set_property(0x14, 0x460060)
        assert h.admin.get_property(0x1C) & 1 == 0
        h.q[0].ended()
        h.admin.enable()
        h.q[0].close()
        h.q[0] = h.add(1)
        h.q[0].flush()


def test_two_hosts_of_one_name_are_two_controllers():
    with shared().host(hostid=HOSTID) as a, Host(shared().address, NQN, hostid=HOSTID) as b:
        assert a.cntlid != b.cntlid
        a.q[0].flush()
        b.q[0].flush()


if __name__ == "__main__":
    liod.finish(tap.main)
