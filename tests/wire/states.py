# SPDX-License-Identifier: Apache-2.0
"""Silence, slowness and broken connections in every state: others are served, nothing is written, nothing stays behind."""
import os
import signal
import socket
import struct
import time

import liod
import tap
from liod import NQN, Liod
from nvmetcp import (BY_TRANSPORT, CMD, H2C_DATA, IN_CAPSULE, Closed, Conn, Queue, Refused, connect_data, connect_sqe, disconnect_sqe, make_pdu, sgl_of, sqe)

ICREQ = make_pdu(0, struct.pack("<HBBI112x", 0, 0, 0, 0))
B = 4096  # a RAM namespace's block
MARK = b"\x5a" * 64 * B


def waits_until(true, what, seconds=20):
    """Poll for something that the server does by itself; how long it takes is no matter of passing unless it never does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def r2t(q, at=2000, n=16, **kw):
    cid = q.cid()
    q.submit_raw(sqe(1, cid, 1, sgl=sgl_of(BY_TRANSPORT, n * B), cdw10=at, cdw12=n - 1, **kw), bytes(n * B))
    p = q.recv_pdu()
    return cid, struct.unpack_from("<H", p.head, 10)[0]


def half_a_pdu(q):
    q.send(make_pdu(CMD, sqe(1, 500, 1, sgl=sgl_of(IN_CAPSULE, 2 * B), cdw10=2000, cdw12=1), b"\xee" * 2 * B)[:1000])


def half_of_the_data(q):
    cid, tag = r2t(q)
    q.send_data(cid, tag, 0, b"\xee" * 8 * B, last=False)


def data_pdu_half_sent(q):
    cid, tag = r2t(q)
    q.send(make_pdu(H2C_DATA, struct.pack("<HHII4x", cid, tag, 0, 16 * B), b"\xee" * 16 * B, flags=4)[:3000])


def reads_not_taken(q):
    for i in range(60):
        q.submit(2, want=128 * B, nsid=1, cdw12=127)


def writes_on_their_way(q):
    for i in range(60):
        q.submit(1, out=b"\x11" * 8 * B, nsid=1, cdw10=8 * i, cdw12=7)


# name: what a connection is doing when it breaks or falls silent; each takes the server, returns sockets
def accepted(s):
    return [Conn(s.address, handshake=False)]


def half_an_icreq(s):
    c = Conn(s.address, handshake=False)
    c.send(ICREQ[:60])
    return [c]


def shaken_hands(s):
    return [Conn(s.address)]


def half_a_connect(s):
    c = Conn(s.address)
    c.send(make_pdu(CMD, connect_sqe(1), connect_data(NQN))[:500])
    return [c]


def connect_without_its_data(s):
    c = Conn(s.address)
    c.send_pdu(CMD, connect_sqe(1, sgl=sgl_of(BY_TRANSPORT, 1024)))
    return [c]


def connected(s):
    q = Queue(s.address)
    q.connect(NQN)
    return [q]


def connected_io(s):
    h = s.host(queues=2)
    return [h.admin, *h.q]


def events_outstanding(s):
    h = s.host(queues=1)
    for _ in range(3):
        h.admin.submit(0x0C)
    return [h.admin, *h.q]


def on_io(act):
    def state(s):
        h = s.host(queues=1)
        act(h.q[0])
        return [h.q[0], h.admin]
    state.__name__ = act.__name__
    return state


STATES = [accepted, half_an_icreq, shaken_hands, half_a_connect, connect_without_its_data, connected, connected_io, events_outstanding,
          *map(on_io, (r2t, half_a_pdu, half_of_the_data, data_pdu_half_sent, reads_not_taken, writes_on_their_way))]


def marked(s):
    with s.host() as h:
        h.q[0].write(2000, MARK, B)
    return s


def untouched(s):
    with s.host() as h:
        assert h.q[0].read(2000, 64, B) == MARK, "something was written"


def ends_in_every_state(end):
    with Liod() as s:
        marked(s)
        s.serves()
        before = s.descriptors()
        for state in STATES:
            for first in (0, -1):
                conns = state(s)
                end(conns[first])
                s.serves()
                for c in conns:
                    end(c)
        untouched(s)
        waits_until(lambda: s.descriptors() <= before, "descriptors stay behind")


def test_resets_in_every_state():
    ends_in_every_state(Conn.reset)


def test_orderly_ends_in_every_state():
    ends_in_every_state(Conn.close)


def test_half_closed_connections_in_every_state():
    def end(c):
        try:
            c.sock.shutdown(socket.SHUT_WR)
            while c.sock.recv(1 << 20):
                pass
        except OSError:
            pass
        c.close()
    ends_in_every_state(end)


def test_silence_in_a_handshake_or_inside_a_pdu_ends_the_connection_and_writes_nothing():
    slow = [s for s in STATES if s.__name__ not in ("connected", "connected_io", "events_outstanding", "reads_not_taken",
                                                    "writes_on_their_way")]
    with Liod(config={"handshake_timeout": "2s", "stall_timeout": "2s"}) as s:
        marked(s)
        kept = s.host(queues=1)
        waiting = [(state.__name__, state(s)) for state in slow]
        for name, conns in waiting:
            try:
                conns[0].ended(20)
            except TimeoutError:
                raise AssertionError(f"{name}: the server waits for ever") from None
        untouched(s)
        kept.q[0].flush()  # an idle queue is no stalled one
        kept.close()


def test_a_reader_that_takes_nothing_is_ended_or_kept_within_bounds():
    with Liod(config={"stall_timeout": "1s", "buffer_memory": "16M"}) as s:
        hosts = [s.host(queues=2) for _ in range(6)]
        for h in hosts:
            for q in h.q:
                q.sock.setsockopt(1, 8, 4096)  # SO_RCVBUF
                for i in range(100):
                    q.submit(2, want=h.mdts, nsid=1, cdw12=h.mdts // B - 1)
        for _ in range(5):
            s.serves()
        assert s.resident() < (64 + 16 + 200) << 20, f"{s.resident() >> 20} MiB resident"
        for h in hosts:
            h.close()
        s.serves()


def test_a_slow_reader_gets_everything_in_the_end():
    with Liod(config={"buffer_memory": "8M"}) as s, s.host(queues=2) as h:
        data = os.urandom(h.mdts)
        n = h.mdts // B
        h.q[0].write(0, data, B)
        flight = [(q, q.submit(2, want=h.mdts, nsid=1, cdw12=n - 1)) for _ in range(20) for q in h.q]
        time.sleep(0.3)
        s.serves()
        for q, cid in flight:
            assert q.wait(cid).data == data


def test_many_writers_share_few_buffers():
    with Liod(config={"buffer_memory": "4M"}) as s:
        hosts = [s.host(queues=1) for _ in range(6)]
        n = hosts[0].mdts // B
        data = os.urandom(n * B)
        flight = [(h.q[0], h.q[0].submit(1, out=data, by_r2t=True, nsid=1, cdw10=i * n, cdw12=n - 1))
                  for _ in range(4) for i, h in enumerate(hosts)]
        pending = dict.fromkeys(h.q[0] for h in hosts)
        while any(not q.pending[cid].done for q, cid in flight):
            for q in pending:
                try:
                    q.step(timeout=0.01)
                except TimeoutError:
                    pass
        for q, cid in flight:
            q.wait(cid)
        for i, h in enumerate(hosts):
            assert h.q[0].read(i * n, n, B) == data
            h.close()


def test_200_silent_connections_leave_a_server_that_serves():
    with Liod() as s:
        s.serves()
        before = s.descriptors()
        silent = [Conn(s.address, handshake=False) for _ in range(200)]
        s.serves()
        for c in silent[:100]:
            c.send(ICREQ[:7])
        s.serves()
        for c in silent:
            c.close()
        waits_until(lambda: s.descriptors() <= before, "descriptors stay behind")


def test_an_idle_server_with_idle_connections_uses_no_cpu():
    with Liod() as s:
        hosts = [s.host(queues=2) for _ in range(20)]
        spent = s.cpu_seconds()
        time.sleep(2)
        spent = s.cpu_seconds() - spent
        assert spent <= 0.1, f"{spent} CPU seconds in two seconds of nothing"
        for h in hosts:
            h.close()


def test_connections_above_the_limit_are_turned_away_and_room_comes_back():
    with Liod(config={"max_connections": "8"}) as s:
        conns = [Conn(s.address) for _ in range(8)]
        try:
            Conn(s.address, timeout=5)
        except (Closed, OSError):
            pass
        else:
            raise AssertionError("a ninth connection was served")
        for c in conns:
            c.close()

        def served():
            try:
                return s.serves()
            except (Closed, OSError):
                return False
        waits_until(served, "no room comes back")


def test_controllers_above_the_limit_are_refused_as_busy():
    with Liod(config={"max_controllers": "3"}) as s:
        hosts = [s.host(queues=0) for _ in range(3)]
        try:
            s.host(queues=0)
        except Refused as e:
            assert e.status == 0x181, hex(e.status)
        else:
            raise AssertionError("a fourth controller was made")
        hosts.pop().close()

        def one_more():
            try:
                s.host(queues=0).close()
                return True
            except Refused:
                return False
        waits_until(one_more, "no room comes back")
        for h in hosts:
            h.close()


def test_io_queues_go_when_their_admin_queue_goes():
    with Liod() as s:
        for end in (Conn.close, Conn.reset):
            h = s.host(queues=2)
            end(h.admin)
            for q in h.q:
                q.ended()
            h.close()
        s.serves()


def test_an_admin_queue_outlives_its_io_queues():
    with Liod() as s, s.host(queues=2) as h:
        h.q[0].reset()
        h.q[1].flush()
        h.q[1].close()
        h.admin.identify(1)

        def again():
            try:
                h.q[0] = h.add(1)
                return True
            except Exception:
                return False
        waits_until(again, "the queue's number does not come free")
        h.q[0].flush()


def test_sigterm_drains_what_is_outstanding():
    path = os.path.join(os.environ["T"], "drained")
    with open(path, "wb") as f:
        f.truncate(16 << 20)
    s = Liod(path)
    try:
        h = s.host(queues=2)
        B = h.block
        data = {i: os.urandom(64 * B) for i in range(40)}
        flight = [(q, q.submit(1, out=data[i], by_r2t=True, nsid=1, cdw10=i * 64, cdw12=63), i)
                  for i, q in ((i, h.q[i % 2]) for i in data)]
        for q, cid, _ in flight[:2]:
            q.step()
        s.proc.send_signal(signal.SIGTERM)
        acked = []
        for q, cid, i in flight:
            try:
                if q.wait(cid, check=False).status == 0:
                    acked.append(i)
            except (Closed, TimeoutError):
                continue
        h.close()
        assert s.end(None) == 0
        with open(path, "rb") as f:
            for i in acked:
                f.seek(i * 64 * B)
                assert f.read(64 * B) == data[i], f"an acknowledged write is missing: {i}"
    finally:
        s.kill()


def test_sigterm_ends_a_server_whose_hosts_are_idle_or_silent():
    s = Liod()
    try:
        keep = [c for state in STATES for c in state(s)]
        assert s.end() == 0
        for c in keep:
            c.close()
    finally:
        s.kill()


def disconnect(q, recfmt=0):
    cid = q.cid()
    q.submit_raw(disconnect_sqe(cid, recfmt))
    return cid


def test_disconnect_ends_its_queue_and_no_other():
    with liod.shared().host(queues=2) as h:
        assert struct.unpack_from("<H", h.admin.identify(1), 1804)[0] & 1, "OFCS offers Disconnect"
        for _ in range(20):
            h.q[0].wait(disconnect(h.q[0]))
            assert h.q[0].ended() is None
            h.q[0].close()
            h.q[0] = h.add(1)  # the number is free as soon as the answer is here
            h.q[0].read(0, 1, h.block)
        h.q[1].flush()
        h.admin.call(0x18)


def test_disconnect_is_the_last_that_is_answered():
    with liod.shared().host() as h:
        q, block = h.q[0], dict(h.namespaces())[2]
        q.write(0, b"\x33" * block, block, nsid=2)
        reads = [q.submit(2, want=64 * block, nsid=2, cdw10=64 * i, cdw12=63) for i in range(50)]
        last = disconnect(q)
        behind = q.cid()
        q.submit_raw(sqe(1, behind, 2, sgl=sgl_of(IN_CAPSULE, block), cdw10=0, cdw12=0), b"\xee" * block, capsule=True)
        q.wait(last)
        assert all(q.pending[c].done for c in reads), "reads were outstanding when Disconnect was answered"
        q.ended()
        assert not q.pending[behind].done
        q = h.q[0] = h.add(1)
        assert q.read(0, 1, block, nsid=2) == b"\x33" * block


def test_disconnect_with_data_outstanding_ends_the_queue_and_writes_nothing():
    with liod.shared().host() as h:
        q = h.q[0]
        q.write(2000, MARK[:16 * B], B)
        r2t(q)
        q.wait(disconnect(q))
        q.ended()
        q.close()
        q = h.q[0] = h.add(1)
        assert q.read(2000, 16, B) == MARK[:16 * B]


def test_disconnect_is_refused_on_the_admin_queue_and_in_an_unknown_format():
    with liod.shared().host() as h:
        liod.expect(0x185, h.admin.wait(disconnect(h.admin), check=False).status & 0x7FF)
        liod.expect(0x180, h.q[0].wait(disconnect(h.q[0], recfmt=1), check=False).status & 0x7FF)
        h.admin.call(0x18)
        h.q[0].flush()


def test_who_disconnects_and_reads_no_answer_is_not_waited_for_for_ever():
    with Liod(config={"stall_timeout": "500ms"}) as s:
        with s.host(hostid=bytes(15) + b"\7") as h:
            before = s.descriptors()
            reads_not_taken(h.q[0])
            disconnect(h.q[0])
            waits_until(lambda: s.descriptors() == before - 1, "the connection stays")
            h.admin.call(0x18)
        s.serves()

if __name__ == "__main__":
    liod.finish(tap.main)
