# SPDX-License-Identifier: Apache-2.0
"""A small NVMe/TCP host made for testing, written from the specifications and sharing nothing with the server.

Conn speaks PDUs, well-formed or not; Queue adds commands (capsules, R2T, C2HData); Host is an admin queue and
I/O queues.  Numbers are those of NVM Express Base 2.0 and TCP Transport 1.0.  What the server sends is checked
as it comes: header lengths, offsets, digests, order of data, SQ head; a violation raises Violation.
"""
import collections
import select
import socket
import struct
import time

ICREQ, ICRESP, H2C_TERM, C2H_TERM, CMD, RSP, H2C_DATA, C2H_DATA, R2T = 0, 1, 2, 3, 4, 5, 6, 7, 9
HLEN = {ICREQ: 128, ICRESP: 128, H2C_TERM: 24, C2H_TERM: 24, CMD: 72, RSP: 24, H2C_DATA: 24, C2H_DATA: 24, R2T: 24}
HDGST, DDGST, LAST, SUCCESS = 1, 2, 4, 8

DISCOVERY = "nqn.2014-08.org.nvmexpress.discovery"
HOSTNQN = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000001"
HOSTID = bytes(range(16))

IN_CAPSULE, BY_TRANSPORT = 0x01, 0x5A
DNR = 0x4000


class Violation(Exception):
    """The server broke the protocol."""


class Closed(Exception):
    """The server ended the connection; .term is its C2HTermReq as (fes, fei, bytes of the header), or None."""

    def __init__(self, why, term=None):
        super().__init__(f"{why}, term={term}")
        self.term = term


class Refused(Exception):
    """A command ended with an error status."""

    def __init__(self, status, result):
        super().__init__(f"status {status:#x}")
        self.status, self.result = status, result


def _table():
    rows = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        rows.append(n)
    return rows


_CRC = _table()


def crc32c(data):
    crc, table = 0xFFFFFFFF, _CRC
    for b in data:
        crc = crc >> 8 ^ table[(crc ^ b) & 255]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def sqe(opcode, cid=0, nsid=0, cdw2=0, cdw3=0, mptr=0, sgl=None, cdw10=0, cdw11=0, cdw12=0, cdw13=0, cdw14=0, cdw15=0,
        flags=0x40):
    return struct.pack("<BBHIIIQ16sIIIIII", opcode, flags, cid, nsid, cdw2, cdw3, mptr, sgl or sgl_of(BY_TRANSPORT, 0),
                       cdw10, cdw11, cdw12, cdw13, cdw14, cdw15)


def sgl_of(kind, length, address=0):
    return struct.pack("<QI3xB", address, length, kind)


def connect_sqe(cid, qid=0, sqsize=31, kato=0, cattr=0, recfmt=0, sgl=None):
    return struct.pack("<BBHB19x16sHHHBxI12x", 0x7F, 0x40, cid, 1, sgl or sgl_of(IN_CAPSULE, 1024), recfmt, qid, sqsize,
                       cattr, kato)


def disconnect_sqe(cid, recfmt=0):
    return struct.pack("<BBHB19x16sH22x", 0x7F, 0x40, cid, 8, sgl_of(BY_TRANSPORT, 0), recfmt)


def connect_data(subnqn, hostnqn=HOSTNQN, hostid=HOSTID, cntlid=0xFFFF):
    encoded = [n if isinstance(n, bytes) else n.encode() for n in (subnqn, hostnqn)]
    return struct.pack("<16sH238x256s256s256x", hostid, cntlid, *encoded)


def property_get_sqe(cid, offset, wide):
    return struct.pack("<BBHB19x16sB3xI16x", 0x7F, 0x40, cid, 4, sgl_of(BY_TRANSPORT, 0), 1 if wide else 0, offset)


def property_set_sqe(cid, offset, value, wide=False):
    return struct.pack("<BBHB19x16sB3xIQ8x", 0x7F, 0x40, cid, 0, sgl_of(BY_TRANSPORT, 0), 1 if wide else 0, offset, value)


Pdu = collections.namedtuple("Pdu", "type flags head data")
Result = collections.namedtuple("Result", "status dw0 dw1 sqhd data")


def make_pdu(kind, rest, data=b"", flags=0, hdgst=False, ddgst=False, align=4, hlen=None, pdo=None, plen=None,
             bad_hdgst=False, bad_ddgst=False, extra_flags=True):
    """A PDU: the common header and @rest, then data; any field may be forged."""
    real = 8 + len(rest)
    hlen = real if hlen is None else hlen
    start = real + (4 if hdgst else 0)
    if data:
        start = -(-start // align) * align
    end = start + len(data) + (4 if ddgst and data else 0)
    if extra_flags:
        flags |= (HDGST if hdgst else 0) | (DDGST if ddgst and data else 0)
    head = struct.pack("<BBBBI", kind, flags, hlen, (start if data else 0) if pdo is None else pdo,
                       end if plen is None else plen) + rest
    out = head
    if hdgst:
        out += struct.pack("<I", crc32c(head) ^ (1 if bad_hdgst else 0))
    if data:
        out = out.ljust(start, b"\0") + data
        if ddgst:
            out += struct.pack("<I", crc32c(data) ^ (1 if bad_ddgst else 0))
    return out


class Conn:
    """One TCP connection to the server."""

    def __init__(self, address, hdgst=False, ddgst=False, handshake=True, hpda=0, maxr2t=0, timeout=20):
        self.sock = socket.create_connection(address, timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.poll = select.poll()
        self.poll.register(self.sock, select.POLLIN)
        self.timeout = timeout
        self.hdgst = self.ddgst = False
        self.buf = bytearray()
        self.cpda, self.maxh2c, self.hpda = 4, 0, (hpda + 1) * 4
        self.sent = None  # a list that records what is sent, for the fuzzer
        if handshake:
            self.handshake(hdgst, ddgst, hpda, maxr2t)

    def handshake(self, hdgst=False, ddgst=False, hpda=0, maxr2t=0):
        digest = (1 if hdgst else 0) | (2 if ddgst else 0)
        self.send(make_pdu(ICREQ, struct.pack("<HBBI112x", 0, hpda, digest, maxr2t)))
        p = self.recv_pdu()
        if p.type != ICRESP or len(p.head) != 128:
            raise Violation(f"wanted ICResp, got {p}")
        pfv, cpda, got, self.maxh2c = struct.unpack_from("<HBBI", p.head, 8)
        if pfv != 0 or got & ~digest or self.maxh2c < 4096 or self.maxh2c % 4 or cpda > 31:
            raise Violation(f"ICResp pfv={pfv} cpda={cpda} digest={got} maxh2cdata={self.maxh2c}")
        self.cpda = (cpda + 1) * 4
        self.hdgst, self.ddgst = bool(got & 1), bool(got & 2)
        return got

    def send(self, raw):
        if self.sent is not None:
            self.sent.append(bytes(raw))
        try:
            self.sock.sendall(raw)
        except (ConnectionError, BrokenPipeError) as e:
            raise Closed(f"while sending: {e}") from None

    def send_pdu(self, kind, rest, data=b"", **forged):
        forged = {"hdgst": self.hdgst, "ddgst": self.ddgst, "align": self.cpda, **forged}
        self.send(make_pdu(kind, rest, data, **forged))

    def _fill(self, n, deadline):
        while len(self.buf) < n:
            left = deadline - time.monotonic()
            if left <= 0 or not self.poll.poll(left * 1000):
                raise TimeoutError(f"nothing from the server for {self.timeout} s")
            try:
                got = self.sock.recv(1 << 20)
            except ConnectionError as e:
                raise Closed(str(e)) from None
            if not got:
                raise Closed("end of file" + (" inside a PDU" if self.buf else ""))
            self.buf += got

    def recv_pdu(self, timeout=None):
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        self._fill(8, deadline)
        kind, flags, hlen, pdo, plen = struct.unpack_from("<BBBBI", self.buf)
        if kind not in (ICRESP, C2H_TERM, RSP, C2H_DATA, R2T) or hlen != HLEN[kind] or plen < hlen or plen > 1 << 26:
            raise Violation(f"header of type {kind}, hlen {hlen}, pdo {pdo}, plen {plen}")
        self._fill(plen, deadline)
        raw = bytes(self.buf[:plen])
        del self.buf[:plen]
        at, data, digests = hlen, b"", kind not in (ICRESP, C2H_TERM)
        if bool(flags & HDGST) != (self.hdgst and digests):
            raise Violation(f"type {kind}: header digest flag {flags:#x}, agreed {self.hdgst}")
        if flags & HDGST:
            if struct.unpack_from("<I", raw, hlen)[0] != crc32c(raw[:hlen]):
                raise Violation("wrong header digest")
            at += 4
        if kind == C2H_TERM:
            fes, fei = struct.unpack_from("<HI", raw, 8)
            raise Closed("terminated", (fes, fei, raw[hlen:]))
        if kind == C2H_DATA:
            length = struct.unpack_from("<I", raw, 16)[0]
            tail = 4 if flags & DDGST else 0
            if pdo < at or pdo % self.hpda or pdo + length + tail != plen or not length:
                raise Violation(f"C2HData pdo {pdo} datal {length} plen {plen}")
            if bool(flags & DDGST) != self.ddgst:
                raise Violation("data digest flag")
            data = raw[pdo:pdo + length]
            if tail and struct.unpack_from("<I", raw, pdo + length)[0] != crc32c(data):
                raise Violation("wrong data digest")
        elif plen != at:
            raise Violation(f"type {kind}: plen {plen}")
        return Pdu(kind, flags, raw[:hlen], data)

    def ended(self, timeout=None):
        """Wait for the server to end the connection; its termination request or None. Anything else it sends is dropped."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            try:
                self.recv_pdu(deadline - time.monotonic())
            except Closed as c:
                if c.term is None:
                    return None
                try:  # after a termination request the connection closes too, once ours is closed or a time has passed
                    self.sock.shutdown(socket.SHUT_WR)
                    while self.sock.recv(4096):
                        pass
                except OSError:
                    pass
                return c.term

    def reset(self):
        """Close with RST."""
        if self.sock.fileno() < 0:
            return
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Pending:
    def __init__(self, out, want):
        self.out, self.want, self.got = out, want, bytearray()
        self.sent, self.done, self.r2ts = 0, None, 0
        self.may_be_short = False  # DW0 says how many bytes come


class Queue(Conn):
    """A queue pair: commands in flight, data by whatever way the server asks for."""

    def __init__(self, address, **kw):
        super().__init__(address, **kw)
        self.qid, self.size, self.in_capsule = 0, 32, 8192
        self.pending, self.next_cid, self.no_flow = {}, 1, False
        self.head, self.order, self.cntlid = 0, [], None

    def connect(self, subnqn, qid=0, sqsize=31, kato=0, cntlid=0xFFFF, cattr=0, hostnqn=HOSTNQN, hostid=HOSTID, recfmt=0,
                by_r2t=False):
        data = connect_data(subnqn, hostnqn, hostid, cntlid)
        cid = self.cid()
        sgl = sgl_of(BY_TRANSPORT if by_r2t else IN_CAPSULE, 1024)
        self.qid, self.size, self.no_flow = qid, sqsize + 1, bool(cattr & 4)
        self.submit_raw(connect_sqe(cid, qid, sqsize, kato, cattr, recfmt, sgl), data, capsule=not by_r2t)
        r = self.wait(cid)
        self.cntlid = r.dw0 & 0xFFFF
        return r

    def cid(self):
        while True:
            self.next_cid = self.next_cid % 0xFFFE + 1
            if self.next_cid not in self.pending:
                return self.next_cid

    def submit_raw(self, entry, out=b"", want=0, capsule=False, **forged):
        cid = struct.unpack_from("<H", entry, 2)[0]
        self.pending[cid] = Pending(b"" if capsule else out, want)
        self.send_pdu(CMD, entry, out if capsule else b"", **forged)
        return cid

    def submit(self, opcode, out=b"", want=0, by_r2t=False, **fields):
        """Send a command with @out going to the controller, or @want bytes coming; its CID."""
        cid = fields.pop("cid", None)
        cid = self.cid() if cid is None else cid
        capsule = bool(out) and not by_r2t and len(out) <= self.in_capsule
        sgl = fields.pop("sgl", None) or sgl_of(IN_CAPSULE if capsule else BY_TRANSPORT, len(out) or want)
        return self.submit_raw(sqe(opcode, cid, sgl=sgl, **fields), out, want, capsule)

    def send_data(self, cid, ttag, offset, data, last=True, datal=None, **forged):
        self.send_pdu(H2C_DATA, struct.pack("<HHII4x", cid, ttag, offset, len(data) if datal is None else datal), data,
                      flags=LAST if last else 0, **forged)

    def step(self, timeout=None):
        """Take one PDU and act on it."""
        p = self.recv_pdu(timeout)
        if p.type == RSP:
            dw0, dw1, sqhd, sqid, cid, status = struct.unpack_from("<IIHHHH", p.head, 8)
            one = self.pending.get(cid)
            if one is None or one.done or status & 1:
                raise Violation(f"response to CID {cid}: not outstanding, or phase bit set (status {status:#x})")
            if not self.no_flow and self.qid is not None and sqhd >= self.size:
                raise Violation(f"SQHD {sqhd} in a queue of {self.size}")
            if not status and one.may_be_short and len(one.got) != dw0:
                raise Violation(f"CID {cid} succeeded with {len(one.got)} bytes, its result says {dw0}")
            if not status and one.want and len(one.got) != one.want and not one.may_be_short:
                raise Violation(f"CID {cid} succeeded with {len(one.got)} of {one.want} bytes")
            one.done = Result(status >> 1, dw0, dw1, sqhd, bytes(one.got))
            self.order.append(cid)
        elif p.type == C2H_DATA:
            cid, _, offset, length = struct.unpack_from("<HHII", p.head, 8)
            one = self.pending.get(cid)
            if one is None or one.done or offset != len(one.got) or offset + length > one.want:
                raise Violation(f"C2HData for CID {cid}, offset {offset}, length {length}")
            one.got += p.data
            if p.flags & SUCCESS:
                if not p.flags & LAST or len(one.got) != one.want or not self.no_flow:
                    raise Violation(f"success flag: flags {p.flags:#x}, {len(one.got)} of {one.want}")
                one.done = Result(0, 0, 0, 0xFFFF, bytes(one.got))
                self.order.append(cid)
        elif p.type == R2T:
            cid, ttag, offset, length = struct.unpack_from("<HHII", p.head, 8)
            one = self.pending.get(cid)
            if one is None or one.done or offset != one.sent or not length or offset + length > len(one.out):
                raise Violation(f"R2T for CID {cid}, offset {offset}, length {length}")
            one.r2ts += 1
            for at in range(offset, offset + length, self.maxh2c):
                n = min(self.maxh2c, offset + length - at)
                self.send_data(cid, ttag, at, one.out[at:at + n], at + n == offset + length)
            one.sent = offset + length
        else:
            raise Violation(f"{p}")
        return p

    def wait(self, cid, check=True):
        while not self.pending[cid].done:
            self.step()
        r = self.pending.pop(cid).done
        if check and r.status:
            raise Refused(r.status & ~DNR, r)
        return r

    def wait_any(self):
        while True:
            for cid in self.order:
                if cid in self.pending:
                    return cid, self.wait(cid, check=False)
            self.order.clear()
            self.step()

    def call(self, opcode, out=b"", want=0, **kw):
        return self.wait(self.submit(opcode, out, want, **kw))

    def status(self, opcode, out=b"", want=0, **kw):
        """The status that a command ends with, DNR taken off."""
        return self.wait(self.submit(opcode, out, want, **kw), check=False).status & ~DNR

    # ---- properties ----
    def get_property(self, offset, wide=False):
        cid = self.cid()
        self.submit_raw(property_get_sqe(cid, offset, wide))
        r = self.wait(cid)
        return r.dw0 | r.dw1 << 32

    def set_property(self, offset, value, wide=False):
        cid = self.cid()
        self.submit_raw(property_set_sqe(cid, offset, value, wide))
        return self.wait(cid)

    def enable(self):
        cap = self.get_property(0, True)
        self.set_property(0x14, 0x460001 | (6 << 4 if cap >> 43 & 1 else 0))
        until = time.monotonic() + 10
        while not self.get_property(0x1C) & 1:
            if time.monotonic() > until:
                raise Violation("CSTS.RDY stays 0")

    # ---- admin ----
    def identify(self, cns, nsid=0, csi=0, cntid=0):
        return self.call(0x06, want=4096, nsid=nsid, cdw10=cns | cntid << 16, cdw11=csi << 24).data

    def log(self, lid, length, nsid=0xFFFFFFFF, offset=0, rae=False):
        n = length // 4 - 1
        return self.call(0x02, want=length, nsid=nsid, cdw10=lid | (0x8000 if rae else 0) | (n & 0xFFFF) << 16,
                         cdw11=n >> 16, cdw12=offset & 0xFFFFFFFF, cdw13=offset >> 32).data

    # ---- NVM ----
    def read(self, slba, nlb, block, nsid=1, **kw):
        return self.call(0x02, want=nlb * block, nsid=nsid, cdw10=slba & 0xFFFFFFFF, cdw11=slba >> 32, cdw12=nlb - 1, **kw).data

    def write(self, slba, data, block, nsid=1, fua=False, **kw):
        return self.call(0x01, out=data, nsid=nsid, cdw10=slba & 0xFFFFFFFF, cdw11=slba >> 32,
                         cdw12=len(data) // block - 1 | (1 << 30 if fua else 0), **kw)

    def flush(self, nsid=1):
        return self.call(0x00, nsid=nsid)


class Host:
    """A controller with I/O queues, ready for use; .q are the I/O queues."""

    def __init__(self, address, subnqn, queues=1, sqsize=127, kato=0, cattr=0, hostnqn=HOSTNQN, hostid=HOSTID, **kw):
        self.address, self.subnqn, self.kw = address, subnqn, kw
        self.who = {"hostnqn": hostnqn, "hostid": hostid}
        self.q = []
        self.admin = Queue(address, **kw)
        try:
            self.admin.connect(subnqn, kato=kato, **self.who)
            self.cntlid = self.admin.cntlid
            self.admin.enable()
            page = self.admin.identify(1)
            self.in_capsule = struct.unpack_from("<I", page, 1792)[0] * 16 - 64
            self.mdts = 4096 << page[77] if page[77] else 1 << 20
            if queues:
                self.admin.call(0x09, cdw10=7, cdw11=(queues - 1) << 16 | (queues - 1))
            for i in range(queues):
                self.q.append(self.add(i + 1, sqsize, cattr))
            self.block = 1 << self.admin.identify(0, 1)[130] if queues else 0  # of NSID 1
        except BaseException:
            self.close()
            raise

    def add(self, qid, sqsize=127, cattr=0):
        q = Queue(self.address, **self.kw)
        try:
            q.connect(self.subnqn, qid=qid, sqsize=sqsize, cntlid=self.cntlid, cattr=cattr, **self.who)
        except BaseException:
            q.close()
            raise
        q.in_capsule = self.in_capsule
        return q

    def namespaces(self):
        """(NSID, block size) of each."""
        active = struct.unpack("<1024I", self.admin.identify(2))
        return [(n, 1 << self.admin.identify(0, n)[130]) for n in active if n]

    def close(self):
        for q in [*self.q, self.admin]:
            q.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
