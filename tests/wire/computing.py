# SPDX-License-Identifier: Apache-2.0
"""λ commands as docs/lambda-commands.md writes them, for tests; shares nothing with the server."""
import collections
import hashlib
import os
import struct

from nvmetcp import Refused

CANCEL, SUBMIT, FETCH, INPUT, INFO, PROGRAM = 0x80, 0x81, 0x82, 0x85, 0x86, 0x89
BUSY, NO_PROGRAM, NO_HANDLE, HANDLE_USED, VERSION, TOO_BIG, REFUSED, ORDER, NO_OBJECT, ERRNO = range(0x1C0, 0x1CA)
NEXT = END_OF_FILE = HOLE = (1 << 64) - 1
STREAM, OBJECT, EXTENTS = 0, 1, 2
DECOMPRESS, FUEL = 1, 2
END, STARTED = 1, 2
INPUT_LAST = 1
CHANGED = 1

FUNCTIONS = os.environ.get("LIO_FUNCTIONS", "build/tests/fault")

Reply = collections.namedtuple("Reply", "flags offset data done total result")
RunResult = collections.namedtuple(
    "RunResult", "error flags threads tier io error_offset bytes_in bytes_out bytes_written trailing io_ns run_ns queue_ns wall_ns "
    "compile_ns fuel calls reruns queued running cores text")


def function(name):
    """The object file of a function of tests/fault, and its hash."""
    with open(os.path.join(FUNCTIONS, name + ".o"), "rb") as f:
        image = f.read()
    return image, hashlib.sha256(image).digest()


def extents(nsid, *pairs, base=0, n=None):
    return struct.pack("<IIQ", nsid, len(pairs) if n is None else n, base) + b"".join(struct.pack("<QQ", *p) for p in pairs)


def request(program, source=b"", sink=b"", arg=b"", version=1, op=1, flags=0, offset=0, length=END_OF_FILE, chunk=0, fuel=0, memory=0,
            max_output=0, timeout_ns=0, threads=0, tier=0, source_kind=None, sink_kind=None, reserved=(0, 0, 0), source_len=None,
            sink_len=None, arg_len=None):
    def kind(part, given):
        return given if given is not None else STREAM if not part else OBJECT if len(part) == 8 else EXTENTS

    sink_kind = kind(sink, sink_kind)
    return struct.pack("<HHI32sQQQQQQQIBBBBIIIIQ", version, op, flags, program, offset, length, chunk, fuel, memory, max_output,
                       timeout_ns, threads, tier, kind(source, source_kind), sink_kind, reserved[0],
                       len(source) if source_len is None else source_len, len(sink) if sink_len is None else sink_len,
                       len(arg) if arg_len is None else arg_len, reserved[1], reserved[2]) + source + sink + arg


def reply_of(data):
    flags, length, offset, done, total = struct.unpack_from("<IIQQQ", data)
    assert not flags & ~3 and 32 + length <= len(data), (flags, length)
    at, result = 32 + length, None
    if flags & END:
        at = 32 + -(-length // 8) * 8
        v = struct.unpack_from("<iIIHBB13QIIII", data, at)
        assert v[-1] == 0 and v[2] <= 639 and at + 136 + v[2] == len(data), v
        result = RunResult(v[0], v[1], *v[3:-1], data[at + 136:].decode())
    else:
        assert at == len(data)
    return Reply(flags, offset, data[32:32 + length], done, total, result)


def low_high(offset):
    return {"cdw12": offset & 0xFFFFFFFF, "cdw13": offset >> 32}


class Computing:
    """λ commands on one queue."""

    def __init__(self, queue, most=1 << 20):
        self.q, self.most, self.handle = queue, most, 0

    def short(self, opcode, want, **fields):
        cid = self.q.submit(opcode, want=want, **fields)
        self.q.pending[cid].may_be_short = True
        return cid

    def info(self, page, offset=0, size=65536):
        return self.q.wait(self.short(INFO, size, cdw10=page, cdw11=size, **low_high(offset))).data

    def upload(self, name_or_image, part=None):
        """Its hash; Refused if it is."""
        image, digest = function(name_or_image) if isinstance(name_or_image, str) else \
            (name_or_image, hashlib.sha256(name_or_image).digest())
        part = part or self.most - 32
        for at in range(0, len(image), part):
            piece = image[at:at + part]
            self.q.call(PROGRAM, out=digest + piece, cdw10=len(image), cdw11=at, cdw13=len(piece))
        return digest

    def submit_send(self, handle, req, part=None):
        """All parts but the last one answered; the last one's CID."""
        part = part or self.most
        for at in range(0, len(req), part):
            piece = req[at:at + part]
            cid = self.q.submit(SUBMIT, out=piece, cdw10=handle, cdw11=len(req), cdw12=at, cdw13=len(piece))
            if at + part < len(req):
                self.q.wait(cid)
        return cid

    def submit(self, handle, req, part=None):
        return self.q.wait(self.submit_send(handle, req, part), check=False).status & 0x7FF

    def fetch_send(self, handle, size=65536, offset=NEXT, wait=5000):
        return self.short(FETCH, size, cdw10=handle, cdw11=size, cdw14=wait, **low_high(offset))

    def fetch(self, handle, **kw):
        return reply_of(self.q.wait(self.fetch_send(handle, **kw)).data)

    def fetch_status(self, handle, **kw):
        return self.q.wait(self.fetch_send(handle, **kw), check=False).status & 0x7FF

    def cancel(self, handle):
        return self.q.status(CANCEL, cdw10=handle)

    def input(self, handle, data, at=0, last=False):
        return self.q.status(INPUT, out=data, cdw10=handle, cdw11=len(data), cdw14=INPUT_LAST if last else 0, **low_high(at))

    def collect(self, handle, size=65536):
        """All output and the result."""
        out = bytearray()
        while True:
            r = self.fetch(handle, size=size)
            assert r.offset == len(out), (r.offset, len(out))
            out += r.data
            if r.result:
                return bytes(out), r.result

    def run(self, req, size=65536):
        """Submit and fetch back to back."""
        self.handle += 1
        cid = self.submit_send(self.handle, req)
        first = self.fetch_send(self.handle, size)
        status = self.q.wait(cid, check=False)
        r = self.q.wait(first, check=False)
        if status.status:
            assert r.status & 0x7FF == status.status & 0x7FF, (r, status)
            raise Refused(status.status & 0x7FF, status)
        r = reply_of(r.data)
        if r.result:
            return r.data, r.result
        out, result = bytearray(r.data), None
        while not result:
            r = self.fetch(self.handle, size=size)
            assert r.offset == len(out)
            out += r.data
            result = r.result
        return bytes(out), result
