# SPDX-License-Identifier: Apache-2.0
"""Functions in the controller, over extents of a namespace: programs, submit, fetch, input, cancel, λ-writes, malformed requests."""
import os
import random
import struct
import time

import liod
import tap
from computing import (BUSY, CANCEL, DECOMPRESS, EXTENTS, FETCH, FUEL, HANDLE_USED, HOLE, INFO, NEXT, NO_HANDLE, NO_OBJECT, NO_PROGRAM,
                       OBJECT, ORDER, PROGRAM, REFUSED, STREAM, SUBMIT, TOO_BIG, VERSION, Computing, extents, function, request)
from exported import CREATE, READ, TRUNCATE, WRITE, Files
from liod import Liod, expect, shared
from nvmetcp import Refused

E2BIG, EBADF, EACCES, EBUSY, ENOSPC, EDOM, ETIME = 7, 9, 13, 16, 28, 33, 62


def computing(host):
    return Computing(host.q[0])


def put(host, data, nsid=1, at=0):
    """Write @data at a block boundary, padded with zeros."""
    b = dict(host.namespaces())[nsid]
    for i in range(0, len(data), 65536):
        piece = data[i:i + 65536]
        host.q[0].write((at + i) // b, piece.ljust(-(-len(piece) // b) * b, b"\0"), b, nsid=nsid)


def get(host, nsid, at, n):
    b = dict(host.namespaces())[nsid]
    first, last = at // b, -(-(at + n) // b)
    return b"".join(host.q[0].read(s, 1, b, nsid=nsid) for s in range(first, last))[at - first * b:][:n]


def endless(spin):
    return request(spin, extents(1, (0, 100)), flags=FUEL, fuel=1 << 49)


def test_identify_says_that_the_controller_computes():
    with shared().host() as h:
        vendor = h.admin.identify(1)[3072:]
        assert vendor[:8] == b"LAMBDAIO" and struct.unpack_from("<HH", vendor, 8) == (1, 1)
        effects = h.admin.log(5, 4096)
        for opcode in (CANCEL, SUBMIT, FETCH, INFO, PROGRAM, 0x85):
            assert effects[1024 + 4 * opcode] & 1, hex(opcode)


def test_the_abilities_page_has_versions_limits_and_a_name():
    with shared().host() as h:
        page = computing(h).info(0)
        assert len(page) == 256
        low, high, _, _, tiers, cores, handles, _, wait, waiting = struct.unpack_from("<HHIQIIIIII", page)
        assert (low, high) == (1, 1) and tiers & 1 and cores and handles and waiting and wait == 5000
        assert page[96:].startswith(b"lambda-io ")
        c = computing(h)
        assert c.info(0, offset=100, size=64) == page[100:164] and c.info(0, offset=256) == b""
        expect(2, h.q[0].status(INFO, want=64, cdw10=0, cdw11=64, cdw12=257))
        expect(2, h.q[0].status(INFO, want=64, cdw10=4, cdw11=64))


def test_a_function_runs_over_extents_in_the_order_of_the_file():
    with shared().host() as h:
        c = computing(h)
        program = c.upload("echo")
        for nsid, _ in h.namespaces():
            data = os.urandom(300000)
            put(h, data, nsid)
            out, result = c.run(request(program, extents(nsid, (0, len(data)))))
            assert out == data and result.error == 0 and result.bytes_in == result.bytes_out == len(data), result
            pieces = [(100, 7), (65536, 40000), (HOLE, 5000), (3, 1), (64, 4096), (HOLE, 1), (4160, 10)]
            want = b"".join(bytes(n) if at == HOLE else data[at:at + n] for at, n in pieces)
            out, result = c.run(request(program, extents(nsid, *pieces)))
            assert out == want and result.error == 0, (len(out), len(want), result)


def test_a_fold_gives_its_row_and_a_range_is_of_the_file():
    with shared().host() as h:
        c = computing(h)
        program = c.upload("total")
        values = list(range(40000))
        put(h, struct.pack(f"<{len(values)}Q", *values))
        out, result = c.run(request(program, extents(1, (0, 8 * len(values)))))
        assert struct.unpack("<QQ", out) == (len(values), sum(values)), out
        assert result.calls >= 1 and result.threads >= 1 and result.tier in (1, 2) and result.wall_ns
        # the extents are bytes 800 and on of a file; so are offset and length
        out, _ = c.run(request(program, extents(1, (800, 8 * 1000), base=800), offset=880, length=80))
        assert struct.unpack("<QQ", out) == (10, sum(values[110:120]))


def test_output_of_many_fetches_comes_whole_and_in_order():
    with shared().host() as h:
        c = computing(h)
        program = c.upload("echo")
        data = os.urandom(1 << 20) * 12
        put(h, data, at=1 << 20)
        source = extents(1, (1 << 20, len(data)))
        for size in (1 << 20, 1 << 16, 5000):
            part = data if size > 5000 else data[:1 << 20]
            out, result = c.run(request(program, extents(1, (1 << 20, len(part)))), size=size)
            assert out == part and result.bytes_out == len(part), (size, len(out), result)
        # several at once, in the order of their coming
        expect(0, c.submit(500, request(program, source)))
        cids, out, result = [c.fetch_send(500, size=1 << 18) for _ in range(4)], b"", None
        while not result:
            r = liod_reply(c, cids.pop(0))
            assert r.offset == len(out)
            out += r.data
            result = r.result
            if not result:
                cids.append(c.fetch_send(500, size=1 << 18))
        assert out == data
        for cid in cids:
            expect(NO_HANDLE, c.q.wait(cid, check=False).status & 0x7FF)


def liod_reply(c, cid):
    from computing import reply_of
    return reply_of(c.q.wait(cid).data)


def test_output_can_be_asked_for_again_until_it_is_acknowledged():
    with shared().host() as h:
        c = computing(h)
        program = c.upload("echo")
        data = os.urandom(200000)
        put(h, data)
        expect(0, c.submit(1, request(program, extents(1, (0, len(data))))))
        first = c.fetch(1, offset=0, size=8192)
        while not first.data:
            first = c.fetch(1, offset=0, size=8192)
        again = c.fetch(1, offset=0, size=8192)
        assert again.data[:len(first.data)] == first.data and again.offset == 0
        at = len(again.data)
        expect(ORDER, c.fetch_status(1, offset=at + 1))
        expect(ORDER, c.fetch_status(1, offset=at - 1))
        second = c.fetch(1, offset=at, size=8192)
        assert second.offset == at and second.data == data[at:at + len(second.data)]
        if second.data:
            expect(ORDER, c.fetch_status(1, offset=0))
        rest, _ = b"", None
        out, result = bytearray(again.data + second.data), None
        while not result:
            r = c.fetch(1, offset=len(out))
            out += r.data
            result = r.result
        assert out == data
        expect(NO_HANDLE, c.fetch_status(1))


def test_a_request_and_a_program_may_come_in_parts():
    with Liod() as s, s.host() as h:
        c = computing(h)
        program = c.upload("echo", part=777)
        data = os.urandom(100000)
        put(h, data)
        pairs = [(i * 10, 10) for i in range(9000, 0, -1)]
        req = request(program, extents(1, *pairs))
        expect(0, c.submit(5, req, part=4099))
        out, result = c.collect(5)
        assert out == b"".join(data[a:a + n] for a, n in pairs) and not result.error
        # parts out of order; the handle is free afterwards
        q = h.q[0]
        expect(ORDER, q.status(SUBMIT, out=req[:100], cdw10=6, cdw11=len(req), cdw12=100, cdw13=100))
        expect(0, q.status(SUBMIT, out=req[:100], cdw10=6, cdw11=len(req), cdw12=0, cdw13=100))
        expect(ORDER, q.status(SUBMIT, out=req[:100], cdw10=6, cdw11=len(req), cdw12=101, cdw13=100))
        expect(ORDER, c.fetch_status(6))
        expect(0, q.status(SUBMIT, out=req[:100], cdw10=6, cdw11=len(req), cdw12=0, cdw13=100))
        expect(ORDER, q.status(SUBMIT, out=req[100:200], cdw10=6, cdw11=len(req) - 1, cdw12=100, cdw13=100))
        image, digest = function("total")
        expect(ORDER, q.status(PROGRAM, out=digest + image[:50], cdw10=len(image), cdw11=50, cdw13=50))
        expect(0, q.status(PROGRAM, out=digest + image[:50], cdw10=len(image), cdw11=0, cdw13=50))
        expect(ORDER, q.status(PROGRAM, out=digest + image[:50], cdw10=len(image), cdw11=51, cdw13=50))
        expect(ORDER, q.status(PROGRAM, out=digest + image[50:99], cdw10=len(image) + 1, cdw11=50, cdw13=49))
        expect(0, q.status(PROGRAM, out=digest + image[50:], cdw10=len(image), cdw11=50, cdw13=len(image) - 50))
        expect(0, q.status(PROGRAM, out=digest + image[:50], cdw10=len(image), cdw11=0, cdw13=50))  # it is there


def test_programs_are_verified_before_they_are_accepted_and_belong_to_a_host():
    with Liod() as s, s.host() as h, s.host(hostnqn="nqn.2026-01.io.lambda:other", hostid=os.urandom(16)) as other:
        c = computing(h)
        image, digest = function("echo")
        for bad in (b"no object file", image[:-100], b"\x7fELF" + bytes(200)):
            try:
                c.upload(bad)
                raise AssertionError("accepted")
            except Refused as r:
                expect(REFUSED, r.status)
            assert c.info(3), "the page says why"
        expect(REFUSED, h.q[0].status(PROGRAM, out=bytes(32) + image, cdw10=len(image), cdw13=len(image)))
        assert b"hash" in c.info(3)
        put(h, bytes(4096))
        expect(NO_PROGRAM, c.submit(1, request(digest, extents(1, (0, 10)))))
        c.upload("echo")
        loaded = c.info(1)
        assert len(loaded) == 96 and loaded[:32] == digest and struct.unpack_from("<Q", loaded, 32)[0] == len(image)
        assert loaded[48:].rstrip(b"\0") == b"echo"
        assert c.run(request(digest, extents(1, (0, 10))))[0] == bytes(10)
        expect(NO_PROGRAM, computing(other).submit(1, request(digest, extents(1, (0, 10)))))
        assert computing(other).info(1) == b"" and computing(other).info(3) == b""


def test_a_fetch_that_comes_first_waits_for_its_submit():
    with shared().host() as h:
        c = computing(h)
        program = c.upload("total")
        put(h, bytes(800))
        cid = c.fetch_send(9)
        time.sleep(0.05)
        expect(0, c.submit(9, request(program, extents(1, (0, 800)))))
        r = liod_reply(c, cid)
        while not r.result:
            r = c.fetch(9)
        assert r.result.error == 0
        expect(NO_HANDLE, c.fetch_status(10, wait=50))
        expect(NO_HANDLE, c.fetch_status(10, wait=0))
        # what was refused tells the fetch at once what the submit was told
        cid = c.fetch_send(11)
        expect(NO_PROGRAM, c.submit(11, request(bytes(32), extents(1, (0, 800)))))
        expect(NO_PROGRAM, c.q.wait(cid, check=False).status & 0x7FF)
        expect(NO_PROGRAM, c.fetch_status(11))


def test_handles_are_one_runs_each_and_free_again():
    with shared().host(queues=2) as h:
        c = computing(h)
        spin = c.upload("spin")
        put(h, bytes(4096))
        req = endless(spin)
        expect(0, c.submit(3, req))
        expect(HANDLE_USED, c.submit(3, req))
        r = c.fetch(3, wait=100)
        assert not r.result and not r.data, r
        other = Computing(h.q[1])
        expect(HANDLE_USED, other.submit(3, req))
        r = other.fetch(3, wait=50)
        assert not r.result and not r.data
        waiting = other.fetch_send(3)
        expect(0, other.cancel(3))
        expect(NO_HANDLE, h.q[1].wait(waiting, check=False).status & 0x7FF)
        expect(NO_HANDLE, c.cancel(3))
        expect(NO_HANDLE, c.fetch_status(3))
        total = c.upload("total")
        expect(0, c.submit(3, request(total, extents(1, (0, 80)))))
        out, _ = other.collect(3)
        assert struct.unpack("<QQ", out) == (10, 0)


def test_cancel_in_each_state_leaves_nothing():
    with Liod(config={"lambda_max_running": 1}) as s:
        with s.host() as h:
            c = computing(h)
            spin, echo = c.upload("spin"), c.upload("echo")
            put(h, os.urandom(8 << 20))
            long = endless(spin)
            much = request(echo, extents(1, (0, 8 << 20)))
            for handle in range(1, 6):
                expect(0, c.submit(handle, long))  # one runs, the others wait
            assert b"queued=4" in c.info(2) and b"handles=5" in c.info(2), c.info(2)
            for handle in (3, 1, 5, 2, 4):
                expect(0, c.cancel(handle))
            expect(0, h.q[0].status(SUBMIT, out=much[:50], cdw10=7, cdw11=len(much), cdw13=50))
            expect(0, c.cancel(7))
            expect(0, c.submit(8, much))
            assert c.fetch(8, size=4096).data or True
            expect(0, c.cancel(8))
            waits_for(lambda: b"running=0" in c.info(2) and b"handles=0" in c.info(2), c)
            assert c.run(request(echo, extents(1, (0, 5000))))[1].error == 0
            expect(0, c.submit(9, long))
            expect(0, c.submit(10, long))
            expect(0, c.submit(11, much))
        with s.host() as h:
            c = computing(h)
            waits_for(lambda: b"running=0" in c.info(2) and b"queued=0" in c.info(2), c)


def waits_for(condition, c):
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, c.info(2)
        time.sleep(0.02)


def test_a_connection_that_ends_frees_what_it_had():
    with Liod() as s, s.host(hostid=os.urandom(16)) as watcher:
        w = computing(watcher)
        for _ in range(3):
            with s.host() as h:
                c = computing(h)
                spin = c.upload("spin")
                expect(0, c.submit(1, endless(spin)))
                c.fetch_send(1)
                expect(0, c.submit(2, request(spin)))
                h.q[0].submit(0x85, out=bytes(1000), cdw10=2, cdw11=1000)
                h.q[0].reset()
        waits_for(lambda: b"\nrunning=0" in w.info(2) and b"host_request_bytes=0" in w.info(2), w)
        s.serves()


def test_a_waiting_fetch_can_be_aborted():
    with shared().host() as h:
        c = computing(h)
        spin = c.upload("spin")
        put(h, bytes(4096))
        expect(0, c.submit(1, endless(spin)))
        cid = c.fetch_send(1)
        c.info(0)  # the fetch is there before its abort
        assert h.admin.call(0x08, cdw10=1 | cid << 16).dw0 == 0
        expect(7, h.q[0].wait(cid, check=False).status & 0x7FF)
        expect(0, c.cancel(1))
        cid = c.fetch_send(77)
        c.info(0)
        assert h.admin.call(0x08, cdw10=1 | cid << 16).dw0 == 0
        expect(7, h.q[0].wait(cid, check=False).status & 0x7FF)


def test_a_stream_goes_through_a_function_and_comes_back():
    with shared().host() as h:
        c = computing(h)
        lines = c.upload("lines")
        text = b"".join(b"line %d\n" % i for i in range(20000))
        expect(0, c.submit(1, request(lines, arg=struct.pack("<Q", 5))))
        want = b"".join(b"%d line %d\n" % (i + 5, i) for i in range(20000))
        out, at = b"", 0
        while at < len(text):
            piece = text[at:at + 50000]
            status = c.input(1, piece, at, at + len(piece) == len(text))
            expect((0, BUSY), status)
            if not status:
                at += len(piece)
            r = c.fetch(1, wait=20)
            out += r.data
        while not r.result:
            r = c.fetch(1)
            out += r.data
        assert out == want and r.result.error == 0, (len(out), len(want), r.result)
        # an empty one, and parts that were taken already
        expect(0, c.submit(2, request(lines, arg=struct.pack("<Q", 1))))
        expect(0, c.input(2, b"", 0, True))
        assert c.collect(2)[0] == b""
        expect(0, c.submit(3, request(lines, arg=struct.pack("<Q", 1))))
        expect(0, c.input(3, b"ab", 0))
        expect(0, c.input(3, b"abc\n", 0))
        expect(ORDER, c.input(3, b"d", 5))
        expect(0, c.input(3, b"", 4, True))
        assert c.collect(3)[0] == b"1 abc\n"
        expect(NO_HANDLE, c.input(3, b"x", 0))
        expect(0, c.submit(4, request(lines, extents(1, (0, 10)), arg=struct.pack("<Q", 1))))
        expect((2, NO_HANDLE), c.input(4, b"x", 0))
        c.collect(4)


def test_a_lambda_write_stores_exactly_what_the_function_returned():
    with shared().host() as h:
        c = computing(h)
        echo = c.upload("echo")
        for nsid, block in h.namespaces():
            old = os.urandom(256 << 10)
            data = os.urandom(100001)
            put(h, old, nsid)
            put(h, data, nsid, at=1 << 20)
            pieces = [(70001, 60000), (5, 3), (8, 1), (9, 4087), (20480, 8192), (4096, 100), (30000, 27618)]
            assert sum(n for _, n in pieces) == len(data)
            want, at = bytearray(old), 0
            for where, n in pieces:
                want[where:where + n] = data[at:at + n]
                at += n
            out, result = c.run(request(echo, extents(nsid, (1 << 20, len(data))), extents(nsid, *pieces)))
            assert out == b"" and result.error == 0 and result.bytes_written == len(data), result
            assert get(h, nsid, 0, len(old)) == want, nsid
            # less than the extents hold: the rest keeps its bytes
            want[10:13] = data[:3]
            out, result = c.run(request(echo, extents(nsid, (1 << 20, 3)), extents(nsid, (10, 5000))))
            assert result.bytes_written == 3 and get(h, nsid, 0, len(old)) == want
            # the input as a stream
            expect(0, c.submit(900, request(echo, b"", extents(nsid, (512, 6)))))
            expect(0, c.input(900, b"stream", 0, True))
            assert c.collect(900)[1].bytes_written == 6
            assert get(h, nsid, 511, 8) == want[511:512] + b"stream" + want[518:519]


def test_a_lambda_write_that_fails_leaves_the_old_bytes():
    with shared().host() as h:
        c = computing(h)
        echo, refuse = c.upload("echo"), c.upload("refuse")
        old = os.urandom(65536)
        put(h, old)
        put(h, bytes(3 << 20), at=1 << 20)
        put(h, b"\1" * 4096, at=4 << 20)
        out, result = c.run(request(echo, extents(1, (1 << 20, 1001)), extents(1, (0, 500), (8192, 500))))
        assert result.error == -ENOSPC and result.bytes_written == 0 and "1000" in result.text, result
        out, result = c.run(request(refuse, extents(1, (1 << 20, (3 << 20) + 10)), extents(1, (0, 4 << 20)), b"\1"))
        assert result.error == -EDOM and result.bytes_written == 0, result
        assert get(h, 1, 0, len(old)) == old


def test_large_output_of_a_lambda_write_is_staged_in_a_file():
    with shared().host() as h:
        c = computing(h)
        echo = c.upload("echo")
        data = os.urandom(1 << 20)
        n = 20 << 20
        for nsid, _ in h.namespaces():
            put(h, data, nsid, at=40 << 20)
            out, result = c.run(request(echo, extents(nsid, *[(40 << 20, 1 << 20)] * 20), extents(nsid, (7, n))))
            assert result.error == 0 and result.bytes_written == n, result
            for at in (7, 7 + (5 << 20), 7 + (19 << 20)):
                assert get(h, nsid, at, 70000) == data[:70000]
            assert get(h, nsid, 7 + n - 5, 5) == data[-5:]


def test_a_function_sees_every_write_that_completed_before():
    with shared().host() as h:
        c = computing(h)
        echo = c.upload("echo")
        for nsid, b in h.namespaces():
            for i in range(30):
                data = bytes([i + 1]) * b
                h.q[0].write(i % 3, data, b, nsid=nsid)
                out, _ = c.run(request(echo, extents(nsid, (i % 3 * b, b))))
                assert out == data, (nsid, i)


def test_errors_come_as_a_result_with_a_reason():
    with Liod(config={"lambda_max_memory": "64M", "lambda_max_time": "60s"}) as s, s.host() as h:
        c = computing(h)
        echo, refuse, spin = c.upload("echo"), c.upload("refuse"), c.upload("spin")
        put(h, bytes(100) + b"\7" + bytes(5000))
        ext = extents(1, (0, 5000))
        out, result = c.run(request(refuse, ext, arg=b"\7"))
        assert result.error == -EDOM and result.text, result
        out, result = c.run(request(echo, ext, memory=65 << 20))
        assert result.error == -E2BIG and result.text.startswith("memory: "), result
        out, result = c.run(request(spin, ext, timeout_ns=50_000_000, flags=FUEL, fuel=1 << 49))
        assert result.error == -ETIME and result.text, result
        out, result = c.run(request(echo, ext, max_output=100))
        assert result.error == -ENOSPC and result.text, result
        out, result = c.run(request(spin, ext, flags=FUEL, fuel=100000))
        assert result.error == -ETIME, result
        text = "".join(s.lines)
    text = "".join(s.lines)
    assert text.count("event=run ") == 5, text
    assert "name=refuse" in text and "outcome=failed error=EDOM" in text and "outcome=refused error=E2BIG" in text, text


def malformed(digest):
    """What is wrong with each, the request, and the statuses that may say so."""
    ext, field = extents(1, (0, 100)), 2
    size = 64 << 20
    whole = request(digest, ext)

    def raw(at, fmt, value):
        b = bytearray(whole)
        struct.pack_into(fmt, b, at, value)
        return bytes(b)

    yield "version 2", request(digest, ext, version=2), VERSION
    yield "version 0", request(digest, ext, version=0), VERSION
    for op in (0, 2, 15, 22, 65535):
        yield f"op {op}", request(digest, ext, op=op), field
    for flags in (4, 8, 1 << 31):
        yield f"flags {flags}", request(digest, ext, flags=flags), field
    yield "fuel without the flag", request(digest, ext, fuel=5), field
    yield "the flag without fuel", request(digest, ext, flags=FUEL), field
    for i in range(3):
        reserved = [0, 0, 0]
        reserved[i] = 1
        yield f"reserved {i}", request(digest, ext, reserved=reserved), field
    yield "tier", request(digest, ext, tier=3), field
    yield "offset", request(digest, ext, offset=1 << 63), field
    yield "a range that wraps", request(digest, ext, offset=100, length=(1 << 64) - 50), field
    yield "source kind", request(digest, ext, source_kind=3), field
    yield "sink kind", request(digest, ext, sink_kind=3), field
    yield "source without its part", request(digest, source_kind=EXTENTS), field
    yield "object without its part", request(digest, source_kind=OBJECT), field
    yield "stream with a part", request(digest, ext, source_kind=STREAM), field
    yield "source not of 8", request(digest, ext + b"1234"), field
    for name, at in (("source_len", 108), ("sink_len", 112), ("arg_len", 116)):
        for value in (1, 8, 0x7FFFFFF8, 0xFFFFFFF8, 0xFFFFFFFF):
            if value + 32 * (at == 108) or value:
                yield f"{name} {value}", raw(at, "<I", value), field
    for n in (0, 2, 3, 0xFFFFFFFF, 0x10000001):
        yield f"n {n}", request(digest, extents(1, (0, 100), n=n)), field
    yield "length 0", request(digest, extents(1, (0, 0))), field
    yield "a hole of length 0", request(digest, extents(1, (HOLE, 0))), field
    for at, n in ((size, 1), (size - 1, 2), (0, size + 1), (1 << 62, 1), (1 << 63, 1), (HOLE - 1, 1), (HOLE - 1, 3), (5, (1 << 63) - 1)):
        yield f"extent {at}+{n}", request(digest, extents(1, (at, n))), (0x80, field)
    yield "lengths that wrap", request(digest, extents(1, *[(HOLE, 1 << 62)] * 4)), field
    yield "base that wraps", request(digest, extents(1, (0, 100), base=(1 << 63) - 50), offset=(1 << 63) - 50), field
    yield "base too large", request(digest, extents(1, (0, 100), base=1 << 63)), field
    yield "a range in front of the base", request(digest, extents(1, (0, 100), base=100), offset=99), field
    yield "decompress behind the start", request(digest, extents(1, (0, 100), base=100), offset=100, flags=DECOMPRESS), field
    for nsid in (0, 3, 1025, 0xFFFFFFFF):
        yield f"nsid {nsid}", request(digest, extents(nsid, (0, 100))), 0x0B
        yield f"sink nsid {nsid}", request(digest, ext, extents(nsid, (0, 100))), 0x0B
    yield "sink hole", request(digest, ext, extents(1, (HOLE, 100))), field
    yield "sink base", request(digest, ext, extents(1, (0, 100), base=1)), field
    for pairs in (((0, 100), (99, 1)), ((99, 1), (0, 100)), ((0, 10), (20, 10), (9, 2)), ((0, 100), (50, 10)), ((5, 5), (5, 5))):
        yield f"sink overlaps {pairs}", request(digest, ext, extents(1, *pairs)), 0x114
    yield "no such object", request(digest, struct.pack("<II", 1, 0)), NO_OBJECT
    yield "object's reserved", request(digest, struct.pack("<II", 1, 1)), field
    yield "no such object to write", request(digest, ext, struct.pack("<IIQ", 1, 0, 0), sink_kind=OBJECT), NO_OBJECT
    yield "object's place", request(digest, ext, struct.pack("<IIQ", 1, 0, 1 << 63), sink_kind=OBJECT), field
    yield "object's other reserved", request(digest, ext, struct.pack("<IIQ", 1, 1, 0), sink_kind=OBJECT), field
    for n in (1, 3, 4, 127):
        yield f"{n} bytes", whole[:n], field
    yield "one byte more", whole + b"x", field
    yield "one byte less", whole[:-1], field


def test_what_is_malformed_is_refused_and_the_next_command_is_served():
    with shared().host() as h:
        c = computing(h)
        digest = c.upload("echo")
        put(h, bytes(4096))
        for i, (what, req, status) in enumerate(malformed(digest)):
            got = c.submit(1000 + i, req)
            assert got in (status if isinstance(status, tuple) else (status,)), (what, hex(got))
            expect(got, c.fetch_status(1000 + i))
        assert c.run(request(digest, extents(1, (0, 100))))[0] == bytes(100)


def test_command_fields_are_checked():
    with shared().host() as h:
        q, c = h.q[0], computing(h)
        digest = c.upload("echo")
        req = request(digest, extents(1, (0, 100)))
        n = len(req)
        good = {"cdw10": 1, "cdw11": n, "cdw12": 0, "cdw13": n}
        for wrong in ({"cdw2": 1}, {"cdw3": 1}, {"cdw14": 1}, {"cdw15": 1}, {"cdw12": 1}, {"cdw12": n}, {"cdw12": 0xFFFFFFFF}, {"cdw11": n - 1}):
            expect(2, q.status(SUBMIT, out=req, **{**good, **wrong}))
        expect(0x0B, q.status(SUBMIT, out=req, nsid=77, **good))
        expect(0x0F, q.status(SUBMIT, out=req, **{**good, "cdw13": n - 1}))
        expect(TOO_BIG, q.status(SUBMIT, out=req, **{**good, "cdw11": 0xFFFFFFFF}))
        for wrong in ({"cdw11": 0}, {"cdw11": 1023}, {"cdw11": (1 << 20) + 4096}, {"cdw15": 1}, {"cdw2": 1}):
            expect((2, 0x0F), q.status(FETCH, want=4096, **{"cdw10": 1, "cdw11": 4096, **wrong}))
        for wrong in ({"cdw11": 1}, {"cdw12": 1}, {"cdw13": 1}, {"cdw14": 1}, {"cdw15": 1}):
            expect(2, q.status(CANCEL, cdw10=1, **wrong))
        image, _ = function("echo")
        part = {"cdw10": len(image), "cdw11": 0, "cdw13": len(image)}
        for wrong in ({"cdw10": len(image) - 1}, {"cdw11": 1}, {"cdw12": 1}, {"cdw14": 1}, {"cdw15": 1}, {"cdw2": 1}):
            expect(2, q.status(PROGRAM, out=digest + image, **{**part, **wrong}))
        expect(TOO_BIG, q.status(PROGRAM, out=digest + image, **{**part, "cdw10": 0xFFFFFFF0}))
        expect(2, q.status(PROGRAM, out=digest, **{**part, "cdw13": 0}))
        for wrong in ({"cdw14": 2}, {"cdw13": 0x80000000}, {"cdw2": 1}):
            expect(2, q.status(0x85, out=bytes(8), **{"cdw10": 1, "cdw11": 8, **wrong}))
        expect(2, q.status(0x85, cdw10=1, cdw11=0))
        assert c.run(req)[1].error == 0


def test_an_overloaded_server_says_when_to_come_again():
    with Liod(config={"lambda_max_running": 1, "lambda_max_queued": 2, "lambda_max_handles": 4, "lambda_max_waiting": 2}) as s, s.host() as h:
        c = computing(h)
        spin = c.upload("spin")
        put(h, bytes(4096))
        req = endless(spin)
        for handle in (1, 2, 3):
            expect(0, c.submit(handle, req))
        r = h.q[0].wait(c.submit_send(4, req), check=False)
        expect(BUSY, r.status & 0x7FF)
        assert 1 <= r.dw0 <= 1000 and not r.status & 0x4000
        cid = c.fetch_send(4)
        r = h.q[0].wait(cid, check=False)
        expect(BUSY, r.status & 0x7FF)
        assert r.dw0
        waiting = [c.fetch_send(1), c.fetch_send(2)]
        expect(BUSY, c.fetch_status(3))
        for handle in (1, 2, 3):
            expect(0, c.cancel(handle))
        for cid in waiting:
            expect(NO_HANDLE, h.q[0].wait(cid, check=False).status & 0x7FF)
        # handles: requests that are not complete count too
        for handle in range(10, 14):
            expect(0, h.q[0].status(SUBMIT, out=req[:8], cdw10=handle, cdw11=len(req), cdw13=8))
        expect(BUSY, h.q[0].status(SUBMIT, out=req[:8], cdw10=14, cdw11=len(req), cdw13=8))
        for handle in range(10, 14):
            expect(0, c.cancel(handle))
        expect(0, c.submit(1, req))
        expect(0, c.cancel(1))


def test_a_read_only_namespace_is_read_and_not_written():
    with Liod("ram:1M", "ram:1M,ro") as s, s.host() as h:
        c = computing(h)
        echo = c.upload("echo")
        assert c.run(request(echo, extents(2, (0, 100))))[0] == bytes(100)
        expect(0x20, c.submit(1, request(echo, extents(1, (0, 100)), extents(2, (0, 100)))))


def test_a_null_namespace_reads_as_zeros():
    with Liod("null:1G") as s, s.host() as h:
        c = computing(h)
        assert c.run(request(c.upload("echo"), extents(1, (12345, 100000), (0, 5))))[0] == bytes(100005)


def test_any_command_in_any_order_by_two_queues_leaves_nothing():
    rounds, seed = int(os.environ.get("LAMBDA_ROUNDS", "6")), int(os.environ.get("LAMBDA_SEED", "1"))
    rng = random.Random(seed)
    with Liod(config={"threads": 2, "lambda_max_queued": 5, "lambda_max_handles": 12}) as s, s.host(hostid=os.urandom(16)) as watcher:
        w = computing(watcher)
        for i in range(rounds):
            h = s.host(queues=2)
            programs = {name: computing(h).upload(name) for name in ("echo", "spin", "lines", "total")}
            put(h, bytes(range(256)) * 1024)
            sources = [extents(1, (0, 100)), extents(1, (0, 256 << 10)), extents(1, *[(0, 256 << 10)] * 30), b""]
            for _ in range(150):
                c, handle = Computing(rng.choice(h.q)), rng.randrange(8)
                what = rng.randrange(10)
                if what < 4:
                    name = rng.choice(list(programs))
                    sink = extents(1, (8 << 20, 16 << 20)) if rng.random() < 0.3 else b""
                    req = request(programs[name], rng.choice(sources), sink, bytes(8) if name == "lines" else b"",
                                  **({"flags": FUEL, "fuel": 1 << 49} if name == "spin" else {}))
                    cut = rng.choice((len(req), 100))
                    c.q.submit(SUBMIT, out=req[:cut], cdw10=handle, cdw11=len(req), cdw13=cut)
                elif what < 7:
                    c.fetch_send(handle, size=rng.choice((1024, 65536, 1 << 20)), offset=rng.choice((NEXT, NEXT, 0, 5)),
                                 wait=rng.choice((0, 20, 5000)))
                elif what == 7:
                    c.q.submit(CANCEL, cdw10=handle)
                elif what == 8:
                    c.q.submit(0x85, out=b"x\n" * 500, cdw10=handle, cdw11=1000, cdw14=rng.randrange(2))
                elif c.q.pending:
                    cid = rng.choice(list(c.q.pending))
                    h.admin.call(0x08, cdw10=c.q.qid | cid << 16)
                while any(q.poll.poll(0) and q.step() for q in h.q) or any(len(q.pending) > 60 and q.step() for q in h.q):
                    pass
                for q in h.q:
                    for cid in [k for k, one in q.pending.items() if one.done]:
                        del q.pending[cid]
            if i % 2:
                for q in (h.q[0], h.admin, h.q[1]):
                    q.reset()
            h.close()
        waits_for(lambda: b"\nrunning=0\nqueued=0" in w.info(2) and b"host_request_bytes=0" in w.info(2), w)
        s.serves()


class Exported:
    """A server with directories, a host of it."""

    def __init__(self, *options, **kw):
        self.top = os.path.join(os.environ["T"], f"export-{len(os.listdir(os.environ['T']))}")
        os.mkdir(self.top)
        self.liod = Liod("ram:64M", args=[x for o in options for x in ("--export", o.replace("DIR", self.top))], **kw)

    def __enter__(self):
        self.host = self.liod.host(queues=2)
        self.files, self.c = Files(self.host.q[0]), computing(self.host)
        self.c.handle = 1 << 20
        return self

    def __exit__(self, *exc):
        self.host.close()
        self.liod.__exit__(*exc)

    def write(self, name, data):
        with open(os.path.join(self.top, name), "wb") as f:
            f.write(data)

    def read(self, name):
        with open(os.path.join(self.top, name), "rb") as f:
            return f.read()


def from_object(number):
    return struct.pack("<II", number, 0)


def writing(program, source, number, at=0, **kw):
    """A request of a λ-write into an object."""
    return request(program, source, struct.pack("<IIQ", number, 0, at), sink_kind=OBJECT, **kw)


def test_a_function_runs_over_an_exported_file():
    with Exported("e=DIR,rw") as e:
        data = os.urandom(3000000)
        e.write("file", data)
        echo = e.c.upload("echo")
        obj = e.files.open("e/file")
        out, result = e.c.run(request(echo, from_object(obj)))
        assert out == data and result.error == 0 and result.bytes_in == len(data), result
        out, result = e.c.run(request(echo, from_object(obj), offset=1000, length=5))
        assert out == data[1000:1005], result
        out, result = e.c.run(request(echo, from_object(obj), offset=len(data), length=5))
        assert out == b"" and result.error == 0, result
        # closed while a run waits to be fetched
        expect(0, e.c.submit(5, request(echo, from_object(obj))))
        e.files.close(obj)
        assert e.c.collect(5)[0] == data
        expect(NO_OBJECT, e.c.submit(6, request(echo, from_object(obj))))
        e.write("empty", b"")
        assert e.c.run(request(echo, from_object(e.files.open("e/empty"))))[0] == b""
        other = Computing(e.host.q[1])  # of the same controller
        obj = e.files.open("e/file")
        expect(0, other.submit(7, request(echo, from_object(obj))))
        assert e.c.collect(7)[0] == data


def test_a_file_that_changes_meanwhile_is_reported():
    with Exported("e=DIR,rw") as e:
        data = os.urandom(1 << 20) * 16
        e.write("file", data)
        echo = e.c.upload("echo")
        obj = e.files.open("e/file")
        # nobody fetches: the function waits with a full ring
        expect(0, e.c.submit(1, request(echo, from_object(obj))))
        first = e.c.fetch(1)
        with open(os.path.join(e.top, "file"), "ab") as f:
            f.write(b"more")
        out, result = bytearray(first.data), first.result
        while not result:
            r = e.c.fetch(1)
            out += r.data
            result = r.result
        assert result.error == -EBUSY and result.flags == 1 and "e/file" in result.text, result
        out, result = e.c.run(request(echo, from_object(obj)), size=1 << 20)
        assert out == data + b"more" and result.error == 0 and result.flags == 0, result
    assert any("outcome=changed error=EBUSY" in line for line in e.liod.lines)


def test_a_lambda_write_goes_into_an_exported_file():
    with Exported("e=DIR,rw", "ro=DIR") as e:
        data = os.urandom(200001)
        e.write("from", data)
        e.write("to", bytes(100))
        echo, refuse = e.c.upload("echo"), e.c.upload("refuse")
        source = from_object(e.files.open("e/from"))
        to = e.files.open("e/to", READ | WRITE)
        out, result = e.c.run(writing(echo, source, to, 50))
        assert out == b"" and result.error == 0 and result.bytes_written == len(data), result
        assert e.read("to") == bytes(50) + data
        new = e.files.open("e/new", WRITE | CREATE | TRUNCATE)
        expect(0, e.c.submit(1, writing(echo, b"", new)))
        expect(0, e.c.input(1, b"a stream", 0, True))
        assert e.c.collect(1)[1].bytes_written == 8 and e.read("new") == b"a stream"
        # from itself, and what fails changes nothing
        out, result = e.c.run(writing(echo, from_object(to), to, len(data) + 50))
        assert result.error == 0 and e.read("to") == (bytes(50) + data) * 2, result
        out, result = e.c.run(writing(refuse, from_object(to), new, arg=data[-1:]))
        assert result.error == -EDOM and result.bytes_written == 0 and e.read("new") == b"a stream", result
        # 20 MiB, through the file that it is staged in
        e.write("large", data * 105)
        out, result = e.c.run(writing(echo, from_object(e.files.open("e/large")), new, 8))
        assert result.error == 0 and result.bytes_written == 105 * len(data), result
        assert e.read("new") == b"a stream" + data * 105


def test_what_an_export_or_a_file_does_not_allow_ends_as_a_run_with_a_reason():
    image, digest = function("echo")
    with Exported("any=DIR,rw", "none=DIR,functions=none", "one=DIR,functions=" + digest.hex()) as e:
        e.write("file", bytes(1000))
        echo, total = e.c.upload("echo"), e.c.upload("total")
        for name, program, error in (("any", total, 0), ("none", echo, -EACCES), ("one", echo, 0), ("one", total, -EACCES)):
            out, result = e.c.run(request(program, from_object(e.files.open(name + "/file"))))
            assert result.error == error and bool(result.text) == bool(error), (name, result)
        for req in (request(echo, from_object(e.files.open("any/file", WRITE))),
                    writing(echo, from_object(e.files.open("any/file")), e.files.open("any/file", READ))):
            out, result = e.c.run(req)
            assert result.error in (-EACCES, -EBADF) and result.text and result.bytes_written == 0, result
        assert e.read("file") == bytes(1000)


if __name__ == "__main__":
    liod.finish(tap.main)
