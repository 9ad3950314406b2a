# SPDX-License-Identifier: Apache-2.0
"""Requests on paths and objects, from docs/lambda-commands.md: what a host of exported directories sends."""
import collections
import errno
import os
import struct

from nvmetcp import Refused

CANCEL, SUBMIT, FETCH, OBJECT_DO, OBJECT_WRITE, OBJECT_READ = 0x80, 0x81, 0x82, 0x90, 0x91, 0x92
OPEN, STAT, LIST, RENAME, REMOVE, MKDIR = 16, 17, 18, 19, 20, 21
READ, WRITE, CREATE, EXCLUSIVE, TRUNCATE = 1, 2, 4, 8, 16
CLOSE, SYNC, SET_SIZE, SIZE = 1, 2, 3, 4
BUSY, NO_OBJECT, ERRNO = 0x1C0, 0x1C8, 0x1C9
FILE, DIRECTORY, SYMLINK, OTHER = 1, 2, 3, 4

Stat = collections.namedtuple("Stat", "size inode mtime ctime mtime_ns ctime_ns mode links uid gid type writable")
Entry = collections.namedtuple("Entry", "name type size mtime cookie")


def encoded(path):
    return path if isinstance(path, bytes) else os.fsencode(path)


def request(op, path=b"", path2=b"", flags=0, mode=0, cookie=0, version=1, reserved=0):
    path, path2 = encoded(path), encoded(path2)
    return struct.pack("<HHIIHHQQ", version, op, flags, mode, len(path), len(path2), cookie, reserved) + path + path2


def stat_of(raw):
    return Stat(*struct.unpack_from("<QQqqIIIIIIBB", raw))


class Files:
    """What one I/O queue can ask of the server's exports; a failure is an OSError with the server's text."""

    handle = 0

    def __init__(self, queue):
        self.q = queue

    def start(self, op, path=b"", path2=b"", raw=None, **fields):
        """Send a request; its handle, for finish()."""
        Files.handle += 1
        data = raw if raw is not None else request(op, path, path2, **fields)
        self.q.call(SUBMIT, out=data, cdw10=Files.handle, cdw11=len(data), cdw13=len(data))
        return Files.handle

    def fetch(self, handle, offset, size=65536):
        cid = self.q.submit(FETCH, want=size, cdw10=handle, cdw11=size, cdw12=offset & 0xFFFFFFFF, cdw13=offset >> 32,
                            cdw14=1000)
        self.q.pending[cid].may_be_short = True
        return self.q.wait(cid).data

    def finish(self, handle):
        out = b""
        while True:
            answer = self.fetch(handle, len(out))
            flags, length, offset, _, _ = struct.unpack_from("<IIQQQ", answer)
            assert offset == len(out), (offset, len(out))
            out += answer[32:32 + length]
            if flags & 1:
                break
        at = 32 + (length + 7) // 8 * 8
        error, _, text_len = struct.unpack_from("<iII", answer, at)
        text = answer[at + 136:at + 136 + text_len].decode(errors="surrogateescape")
        if error:
            assert text and ": " in text, f"error {error} with text {text!r}"
            raise OSError(-error, text)
        return out

    def ask(self, op, path=b"", path2=b"", **fields):
        return self.finish(self.start(op, path, path2, **fields))

    def open(self, path, flags=READ, mode=0o644):
        out = self.ask(OPEN, path, flags=flags, mode=mode)
        assert len(out) == 72
        return struct.unpack_from("<I", out)[0]

    def stat(self, path):
        out = self.ask(STAT, path)
        assert len(out) == 64
        return stat_of(out)

    def page(self, path, cookie=0):
        out, at, entries = self.ask(LIST, path, cookie=cookie), 0, []
        while at < len(out):
            cookie, size, mtime, kind, name_len = struct.unpack_from("<QQqB5xH", out, at)
            assert out[at + 25:at + 30] == bytes(5)
            entries.append(Entry(out[at + 32:at + 32 + name_len], kind, size, mtime, cookie))
            at += 32 + (name_len + 7) // 8 * 8
        assert at == len(out)
        return entries

    def list(self, path=b""):
        entries, cookie = [], 0
        while page := self.page(path, cookie):
            entries += page
            cookie = page[-1].cookie
        return {e.name: e for e in entries}

    def rename(self, path, path2):
        self.ask(RENAME, path, path2)

    def remove(self, path):
        self.ask(REMOVE, path)

    def mkdir(self, path, mode=0o755):
        self.ask(MKDIR, path, mode=mode)

    # ---- objects ----
    def result(self, cid):
        try:
            return self.q.wait(cid)
        except Refused as r:
            if r.status == ERRNO:
                raise OSError(r.result.dw0, os.strerror(r.result.dw0)) from None
            raise

    def start_read(self, obj, size, offset=0, **kw):
        cid = self.q.submit(OBJECT_READ, want=size, cdw10=obj, cdw11=size, cdw12=offset & 0xFFFFFFFF, cdw13=offset >> 32, **kw)
        self.q.pending[cid].may_be_short = True
        return cid

    def read(self, obj, size, offset=0, **kw):
        return self.result(self.start_read(obj, size, offset, **kw)).data

    def write(self, obj, data, offset=0, **kw):
        return self.result(self.q.submit(OBJECT_WRITE, out=data, cdw10=obj, cdw11=len(data), cdw12=offset & 0xFFFFFFFF,
                                         cdw13=offset >> 32, **kw)).dw0

    def do(self, obj, what, operand=0, **kw):
        r = self.result(self.q.submit(OBJECT_DO, cdw10=obj, cdw11=what, cdw12=operand & 0xFFFFFFFF, cdw13=operand >> 32, **kw))
        return r.dw0 | r.dw1 << 32

    def close(self, obj):
        self.do(obj, CLOSE)

    def size(self, obj):
        return self.do(obj, SIZE)


def fails(name, fn, *args, says="", **kw):
    """fn fails with that errno, and the server's text says so."""
    try:
        fn(*args, **kw)
    except OSError as e:
        got = errno.errorcode.get(e.errno, e.errno)
        assert got == name, f"{got} ({e}), wanted {name}"
        assert says in e.strerror, f"{e.strerror!r} does not say {says!r}"
        return e
    raise AssertionError(f"no failure, wanted {name}")
