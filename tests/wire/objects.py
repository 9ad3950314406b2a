# SPDX-License-Identifier: Apache-2.0
"""Exported directories over the wire: paths, open files, limits, whose connection is served, and file systems that hang."""
import ctypes
import os
import random
import resource
import signal
import socket
import struct
import sys
import time
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tap  # noqa: E402
from exported import (CLOSE, CREATE, DIRECTORY, EXCLUSIVE, FILE, LIST, MKDIR, NO_OBJECT, OPEN, READ, REMOVE, RENAME,  # noqa: E402
                      SET_SIZE, SIZE, STAT, SYMLINK, SYNC, TRUNCATE, WRITE, Files, fails, request)
from liod import LIOD, NQN, Liod, expect  # noqa: E402
from nvmetcp import DISCOVERY, Closed, Conn, Host, Refused  # noqa: E402
from tap import Skip  # noqa: E402

SEED = int(os.environ.get("OBJECTS_SEED", "1"))
ROUNDS = int(os.environ.get("OBJECTS_ROUNDS", "300"))
INVALID_FIELD, INVALID_NS = 0x02, 0x0B

_server = None


def tree(name):
    path = os.path.join(os.environ["T"], name)
    if not os.path.isdir(path):
        os.makedirs(path)
    return path


def put(*where, data=b"x"):
    with open(os.path.join(*where), "wb") as f:
        f.write(data)


def server():
    """One for most tests: rw and ro are two exports of one directory."""
    global _server
    if _server is None:
        top = tree("shared")
        _server = Liod(args=("--export", f"rw={top},rw", "--export", f"ro={top}"), config={"lambda_max_objects": 64})
        _server.top = top
    return _server


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def said(liod, text, times=1):
    """The lines of the server's log with that text, once there are so many."""
    until(lambda: sum(text in x for x in liod.lines) >= times)
    return [x for x in liod.lines if text in x]


class Session:
    def __init__(self, liod=None, **kw):
        self.host = (liod or server()).host(**kw)
        self.files = Files(self.host.q[0])

    def __enter__(self):
        return self.files

    def __exit__(self, *exc):
        self.host.close()


def refused(status, fn, *args, **kw):
    try:
        fn(*args, **kw)
    except Refused as r:
        expect(status, r.status)
        return
    raise AssertionError(f"no failure, wanted status {status:#x}")


def test_files_are_opened_read_and_described():
    data = random.Random(1).randbytes(3 << 20)
    put(server().top, "data", data=data)
    st = os.stat(os.path.join(server().top, "data"))
    with Session() as f:
        for export in ("ro", "rw"):
            obj = f.open(f"{export}/data")
            got = b"".join(f.read(obj, 1 << 20, at) for at in range(0, len(data), 1 << 20))
            assert got == data
            assert f.read(obj, 777, 12345) == data[12345:12345 + 777]
            assert f.size(obj) == len(data)
            f.close(obj)
            s = f.stat(f"{export}/data")
            assert (s.size, s.inode, s.type, s.mode) == (len(data), st.st_ino, FILE, st.st_mode & 0o7777)
            assert s.mtime * 10**9 + s.mtime_ns == st.st_mtime_ns and s.ctime * 10**9 + s.ctime_ns == st.st_ctime_ns
            assert (s.uid, s.gid, s.links, s.writable) == (st.st_uid, st.st_gid, 1, export == "rw")
        assert f.stat("ro").type == DIRECTORY


def test_a_read_ends_where_the_file_ends():
    put(server().top, "short", data=b"0123456789")
    with Session() as f:
        obj = f.open("ro/short")
        assert f.read(obj, 100) == b"0123456789"
        assert f.read(obj, 100, 7) == b"789"
        assert f.read(obj, 100, 10) == b""
        assert f.read(obj, 4096, 1 << 40) == b""
        assert f.read(obj, 0) == b""
        put(server().top, "short", data=b"")
        assert f.read(obj, 100) == b""


def test_offsets_and_lengths_that_make_no_sense_are_refused():
    put(server().top, "numbers", data=b"0123456789")
    with Session() as f:
        obj = f.open("rw/numbers", READ | WRITE)
        for at in (1 << 63, (1 << 63) - 1, (1 << 63) - 4095, (1 << 64) - 1, (1 << 64) - 4096):
            fails("EINVAL", f.read, obj, 4096, at)
            fails("EFBIG", f.write, obj, b"x" * 4096, at)
        fails("EFBIG", f.do, obj, SET_SIZE, 1 << 63)
        fails("EFBIG", f.do, obj, SET_SIZE, (1 << 64) - 1)
        refused(INVALID_FIELD, f.read, obj, (1 << 20) + 1)
        for what in (0, 5, 0xFFFFFFFF):
            refused(INVALID_FIELD, f.do, obj, what)
        for what in (CLOSE, SYNC, SIZE):
            refused(INVALID_FIELD, f.do, obj, what, 1)
        for field in ("cdw2", "cdw3", "cdw14", "cdw15"):
            refused(INVALID_FIELD, f.read, obj, 10, **{field: 1})
            refused(INVALID_FIELD, f.write, obj, b"x", **{field: 1})
            refused(INVALID_FIELD, f.do, obj, SYNC, **{field: 1})
        refused(INVALID_NS, f.read, obj, 10, nsid=2)
        assert f.read(obj, 10, nsid=1) == b"0123456789"


def test_files_are_written_truncated_synced_renamed_and_removed():
    top = server().top
    with Session() as f:
        f.mkdir("rw/new")
        obj = f.open("rw/new/a", READ | WRITE | CREATE | EXCLUSIVE, 0o600)
        assert os.stat(f"{top}/new/a").st_mode & 0o777 == 0o600
        big = random.Random(2).randbytes(1 << 20)
        assert f.write(obj, big) == len(big)
        assert f.write(obj, b"tail", len(big) + 10) == 4
        assert f.size(obj) == len(big) + 14
        f.do(obj, SYNC)
        assert f.read(obj, 100, len(big)) == bytes(10) + b"tail"
        f.do(obj, SET_SIZE, 5)
        assert f.read(obj, 100) == big[:5]
        f.do(obj, SET_SIZE, 8)
        assert f.read(obj, 100) == big[:5] + bytes(3)
        fails("EEXIST", f.open, "rw/new/a", WRITE | CREATE | EXCLUSIVE)
        put(top, "new", "b", data=b"older")
        f.rename("rw/new/a", "rw/new/b")
        assert open(f"{top}/new/b", "rb").read() == big[:5] + bytes(3)
        fails("ENOTEMPTY", f.remove, "rw/new", says="not empty")
        fails("ENOENT", f.remove, "rw/new/a")
        f.remove("rw/new/b")
        assert f.read(obj, 5) == big[:5], "what is open stays readable"
        f.close(obj)
        f.remove("rw/new")
        assert not os.path.exists(f"{top}/new")
        obj = f.open("rw/t", WRITE | CREATE)
        f.write(obj, b"12345")
        f.close(obj)
        obj = f.open("rw/t", WRITE | TRUNCATE)
        assert f.size(obj) == 0
        fails("EBADF", f.read, obj, 10)


def test_a_read_only_export_and_a_read_only_object_change_nothing():
    put(server().top, "kept", data=b"kept")
    with Session() as f:
        for flags in (WRITE, READ | WRITE, WRITE | TRUNCATE, WRITE | CREATE, WRITE | CREATE | EXCLUSIVE):
            fails("EROFS", f.open, "ro/kept", flags, says="read-only")
        fails("EROFS", f.mkdir, "ro/d")
        fails("EROFS", f.remove, "ro/kept")
        fails("EROFS", f.rename, "ro/kept", "ro/lost")
        obj = f.open("rw/kept")
        fails("EBADF", f.write, obj, b"lost")
        fails("EBADF", f.do, obj, SET_SIZE, 0)
        f.do(obj, SYNC)
        assert f.read(obj, 10) == b"kept"
        fails("EXDEV", f.rename, "rw/kept", "ro/kept", says="another export")


def test_nothing_outside_an_export_is_reached():
    top, out = server().top, tree("outside")
    put(out, "secret", data=b"secret")
    os.symlink("../outside/secret", f"{top}/link")
    os.symlink("../outside", f"{top}/dir-link")
    os.symlink("/etc", f"{top}/absolute")
    os.mkfifo(f"{top}/fifo")
    with Session() as f:
        for path in ("rw/link", "rw/dir-link/secret", "rw/absolute/passwd"):
            fails("EXDEV", f.open, path, READ, says=path)
            fails("EXDEV", f.open, path, WRITE | CREATE)
        fails("EXDEV", f.page, "rw/dir-link")
        fails("EXDEV", f.remove, "rw/dir-link/secret")
        fails("EXDEV", f.rename, "rw/dir-link/secret", "rw/got")
        fails("EXDEV", f.mkdir, "rw/dir-link/made")
        fails("EACCES", f.open, "rw/fifo", says="FIFO")
        for path in ("rw/../outside/secret", "rw/..", "..", "rw/./kept", "rw//kept", "rw/kept/", "/etc/passwd", "/", "rw/",
                     b"rw/a\0b", b"rw/\0", b"\0"):
            fails("EINVAL", f.open, path, READ, says="in the path")
            fails("EINVAL", f.stat, path)
            fails("EINVAL", f.page, path)
            fails("EINVAL", f.remove, path)
            fails("EINVAL", f.rename, path, "rw/x")
            fails("EINVAL", f.rename, "rw/x", path)
        fails("ENAMETOOLONG", f.open, "rw/" + "n" * 256)
        fails("ENAMETOOLONG", f.open, "rw/" + "n/" * 3000 + "n")
        assert f.stat("rw/link").type == SYMLINK
        for path in ("etc/passwd", "RW/kept", "rwx/kept", "r", "rw\n"):
            e = fails("ENOENT", f.open, path, says="no such export; this server has rw, ro")
            assert "\n" not in e.strerror
        fails("ENOENT", f.stat, "")
    assert open(f"{out}/secret", "rb").read() == b"secret" and os.listdir(out) == ["secret"]
    assert not os.path.exists(f"{top}/got")


def test_names_are_bytes():
    names = [b"new\nline", b"\x01\x7f", b"\x80\xfe\xff", b"\xc3(", b" ", b"-rf", b"...", b"n" * 255, "λ".encode()]
    folder = os.path.join(server().top, "bytes")
    os.mkdir(folder)
    with Session() as f:
        for n in names:
            f.close(f.open(b"rw/bytes/" + n, WRITE | CREATE | EXCLUSIVE))
        assert set(f.list("ro/bytes")) == set(names) == set(os.listdir(folder.encode()))
        for n in names:
            f.rename(b"rw/bytes/" + n, b"rw/bytes/moved")
            f.remove(b"rw/bytes/moved")
    assert not os.listdir(folder)


def test_long_lists_come_in_pages_each_name_once():
    folder = os.path.join(server().top, "long")
    os.mkdir(folder)
    wanted = {f"{i}-{'n' * (i % 180)}".encode() for i in range(4000)}
    for n in wanted:
        put(folder.encode(), n, data=b"ab")
    with Session() as f:
        pages, cookie, got = 0, 0, []
        while page := f.page("ro/long", cookie):
            got += page
            pages += 1
            cookie = page[-1].cookie
        assert len(got) == len(wanted) and {e.name for e in got} == wanted and pages > 1, pages
        assert all((e.type, e.size) == (FILE, 2) for e in got)
        assert {n: e.type for n, e in f.list().items()} == {b"rw": DIRECTORY, b"ro": DIRECTORY}
        assert [e.name for e in f.page("", 1)] == [b"ro"] and f.page("", 2) == [] and f.page("", 1 << 63) == []
        fails("ENOTDIR", f.page, "ro/kept")
        for cookie in (1, 12345, 1 << 40, (1 << 63) - 1, (1 << 64) - 1):
            try:
                f.page("ro/long", cookie)
            except OSError:
                pass


def test_numbers_of_objects_are_the_controllers_own():
    put(server().top, "mine", data=b"mine")
    with Session() as a, Session() as b:
        obj = a.open("ro/mine")
        for wrong in (0, obj + 1, obj ^ 0x10000, 0xFFFFFFFF, 0x10000):
            refused(NO_OBJECT, a.read, wrong, 10)
            refused(NO_OBJECT, a.write, wrong, b"x")
            refused(NO_OBJECT, a.do, wrong, CLOSE)
            refused(NO_OBJECT, a.do, wrong, SYNC)
        refused(NO_OBJECT, b.read, obj, 10)
        refused(NO_OBJECT, b.close, obj)
        assert a.read(obj, 10) == b"mine"
        a.close(obj)
        refused(NO_OBJECT, a.read, obj, 10)
        refused(NO_OBJECT, a.close, obj)
        again = a.open("ro/mine")
        assert again != obj, "a number is not given again at once"
        refused(NO_OBJECT, a.read, obj, 10)


def test_open_objects_are_bounded_and_end_with_their_controller():
    liod = server()
    put(liod.top, "many", data=b"many")
    before = liod.descriptors()
    session = Session()
    with session as f:
        all_of_them = [f.open("rw/many", READ | WRITE) for _ in range(64)]
        assert len(set(all_of_them)) == 64
        fails("ENFILE", f.open, "rw/many")
        f.close(all_of_them.pop())
        all_of_them.append(f.open("rw/many"))
        fails("ENFILE", f.open, "rw/many")
        with Session() as other:
            other.open("rw/many")
        # A reset closes them.
        session.host.admin.set_property(0x14, 0)
    assert until(lambda: liod.descriptors() <= before), (before, liod.descriptors())


def test_an_object_closed_under_reads_serves_them():
    data = bytes(range(256)) * 4096
    put(server().top, "under", data=data)
    with Session() as f:
        for _ in range(20):
            obj = f.open("ro/under")
            reads = [f.start_read(obj, 65536, i * 65536) for i in range(16)]
            f.close(obj)
            for i, cid in enumerate(reads):
                r = f.q.wait(cid, check=False)
                assert r.status & 0x7FF in (0, NO_OBJECT)
                if not r.status:
                    assert r.data == data[i * 65536:(i + 1) * 65536]
            refused(NO_OBJECT, f.read, obj, 1)


def test_requests_that_are_malformed_are_refused():
    with Session() as f:
        good = request(STAT, "ro/kept")
        for raw in (good[:-1], good + b"x", good[:31], request(STAT, "ro/kept", "ro/kept"), request(STAT, "ro/kept", flags=1),
                    request(STAT, "ro/kept", reserved=1), request(STAT, "ro/kept", cookie=1), request(15, "ro/kept"),
                    request(22, "ro/kept"), request(OPEN, "ro/kept", flags=0x20), request(OPEN, "ro/kept", flags=1, mode=0o10000)):
            refused((INVALID_FIELD, 0x1C4, 0x1C7), f.start, STAT, raw=raw)
        for flags in (0, CREATE, READ | CREATE, READ | TRUNCATE, WRITE | EXCLUSIVE):
            fails("EINVAL", f.open, "rw/kept", flags)
        fails("EINVAL", f.open, "rw/setuid", WRITE | CREATE, 0o4755)
        fails("EINVAL", f.mkdir, "rw/sticky", 0o1777)
        assert f.stat("ro").type == DIRECTORY


def test_random_work_on_a_file_agrees_with_a_model():
    rng, model = random.Random(SEED), bytearray()
    with Session() as f:
        obj = f.open("rw/model", READ | WRITE | CREATE)
        for _ in range(ROUNDS):
            at, n = rng.randrange(200000), rng.choice((1, 7, 512, 4096, 5000, 70000))
            kind = rng.randrange(10)
            if kind < 4:
                data = rng.randbytes(n)
                assert f.write(obj, data, at) == n
                if at > len(model):
                    model.extend(bytes(at - len(model)))
                model[at:at + n] = data
            elif kind < 8:
                assert f.read(obj, n, at) == model[at:at + n]
            elif kind == 8:
                f.do(obj, SET_SIZE, at)
                del model[at:]
                model.extend(bytes(at - len(model)))
            else:
                assert f.size(obj) == len(model)
        f.do(obj, SYNC)
    with open(f"{server().top}/model", "rb") as file:
        assert file.read() == model, f"OBJECTS_SEED={SEED}"


def test_a_write_that_does_not_fit_says_how_much_did_and_then_why():
    with Liod(args=("--export", f"rw={tree('full')},rw")) as liod:
        resource.prlimit(liod.proc.pid, resource.RLIMIT_FSIZE, (10000, 10000))
        with Session(liod) as f:
            obj = f.open("rw/f", READ | WRITE | CREATE)
            assert f.write(obj, b"x" * 8192) == 8192
            assert f.write(obj, b"y" * 8192, 8192) == 10000 - 8192
            fails("EFBIG", f.write, obj, b"y" * 100, 10000)
            fails("EFBIG", f.do, obj, SET_SIZE, 20000)
            assert f.size(obj) == 10000
            assert f.read(obj, 20000) == b"x" * 8192 + b"y" * (10000 - 8192)


def test_a_server_of_exports_alone_is_found_and_connected():
    put(tree("alone"), "file", data=b"alone")
    with Liod(args=("--export", f"a={tree('alone')}"), bare=True) as liod:
        with Host(liod.address, DISCOVERY, queues=0) as h:
            log = h.admin.log(0x70, 1024 + 1024)
        assert struct.unpack_from("<Q", log, 8)[0] == 1
        nqn = log[1024 + 256:1024 + 512].rstrip(b"\0").decode()
        assert nqn == NQN
        with Host(liod.address, nqn) as h:
            assert h.namespaces() == []
            f = Files(h.q[0])
            assert f.read(f.open("a/file"), 100) == b"alone"
            h.admin.call(0x18)  # Keep Alive
            h.q[0].call(0x00, nsid=0xFFFFFFFF)  # Flush of all


def test_exports_that_are_added_are_served_after_a_reload():
    conf = os.path.join(os.environ["T"], "exports.conf")
    put(tree("first"), "f", data=b"1")
    put(tree("second"), "f", data=b"2")
    section = "[subsystem " + NQN + "]\nnamespace = ram:1M\n"
    lines = [f"export = first={tree('first')}\n"]
    put(conf, data="".join([*lines, section]).encode())
    with Liod(args=("--config", conf)) as liod, Session(liod) as f:
        assert f.read(f.open("first/f"), 9) == b"1"
        fails("ENOENT", f.open, "second/f")
        lines = [f"export = first={tree('first')},rw\n", "export = gone=/nowhere\n", f"export = second={tree('second')}\n"]
        put(conf, data="".join([*lines, section]).encode())
        liod.proc.send_signal(signal.SIGHUP)
        assert said(liod, "event=reloaded")
        assert f.read(f.open("second/f"), 9) == b"2"
        fails("EROFS", f.open, "first/f", WRITE)
        text = "".join(liod.lines)
        assert "event=reload-incomplete export=first=" in text and "altered" in text and "/nowhere" in text


# ---- whose connection ----

def as_user(uid, fn):
    """fn() in a child of that uid; what it returned, a short text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reader)
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            os.write(writer, str(fn()).encode()[:200])
        except BaseException as e:  # noqa: BLE001
            os.write(writer, repr(e).encode()[:200])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as f:
        text = f.read().decode()
    os.waitpid(pid, 0)
    return text


def shakes_hands(address):
    try:
        Conn(address).close()
    except (Closed, OSError) as e:
        return f"closed {e}"
    return "served"


def need_root():
    if os.geteuid():
        raise Skip("needs root to be another user")


def test_another_local_user_is_refused_before_a_byte_is_served():
    need_root()
    with Liod() as liod:
        assert shakes_hands(liod.address) == "served"
        before = liod.descriptors()
        for _ in range(20):
            text = as_user(4242, lambda: shakes_hands(liod.address))
            assert text.startswith("closed"), text
        refusals = said(liod, "event=connection-refused", 20)
        assert len(refusals) == 20 and "uid 4242" in refusals[0] and "--allow-uid 4242" in refusals[0], refusals
        assert liod.serves()
        assert until(lambda: liod.descriptors() <= before), (before, liod.descriptors())


def test_a_user_who_is_allowed_is_served_and_no_other():
    need_root()
    with Liod(args=("--allow-uid", "4242", "--set", "allow_uid=4243")) as liod:
        assert as_user(4242, lambda: shakes_hands(liod.address)) == "served"
        assert as_user(4243, lambda: shakes_hands(liod.address)) == "served"
        assert as_user(4244, lambda: shakes_hands(liod.address)).startswith("closed")


def test_a_connection_whose_socket_was_closed_is_nobodys():
    """A closed socket has no owner, and old kernels call that root: what was sent before must not be done."""
    need_root()
    victim = tree("victim")
    os.chmod(victim, 0o755)
    with Liod(args=("--export", f"v={victim},rw")) as liod:
        def send_and_go():
            s = socket.create_connection(liod.address)
            s.send(bytes(128))
            s.close()
            return "sent"
        for _ in range(200):
            assert as_user(4242, send_and_go) == "sent"
        assert liod.serves()
        assert len(said(liod, "event=connection-refused", 200)) == 200


def test_insecure_network_serves_every_user():
    need_root()
    with Liod(args=("--insecure-network",)) as liod:
        assert as_user(4242, lambda: shakes_hands(liod.address)) == "served"


def test_version_6_is_looked_at_too():
    need_root()
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        raise Skip("no IPv6 loopback") from None
    with Liod(args=("--listen", "[::1]:0")) as liod:
        address = ("::1", int(said(liod, "address=[::1]:")[0].rsplit(":", 1)[1]))
        assert shakes_hands(address) == "served"
        assert as_user(4242, lambda: shakes_hands(address)).startswith("closed")


def test_sockets_that_speak_version_4_by_version_6_are_found():
    """Both the server's (from a service manager: dual-stack) and the host's may be such."""
    need_root()
    with Liod() as liod:
        def mapped():
            s = socket.socket(socket.AF_INET6)
            s.connect(("::ffff:127.0.0.1", liod.address[1]))
            s.sendall(struct.pack("<BBBBIHBBI112x", 0, 0, 128, 0, 128, 0, 0, 0, 0))
            s.settimeout(20)
            try:
                return "served" if s.recv(1) else "closed"
            except OSError:
                return "closed"
        try:
            socket.socket(socket.AF_INET6).close()
        except OSError:
            raise Skip("no IPv6") from None
        assert mapped() == "served"
        assert as_user(4242, mapped) == "closed"


class LiodOf(Liod):
    """A server of that user."""

    def __init__(self, uid, args):
        self.uid = uid
        super().__init__(args=args)

    def popen(self, *argv, **kw):
        return super().popen(*argv, user=self.uid, group=self.uid, extra_groups=[], **kw)


def test_a_server_that_is_no_root_serves_its_own_user_and_root():
    need_root()
    top = tree("own")
    os.chmod(top, 0o755)
    os.chmod(os.environ["T"], 0o755)
    put(top, "f", data=b"own")
    os.chmod(os.path.join(top, "f"), 0o600)
    if as_user(4242, lambda: os.access(LIOD, os.X_OK) and os.access(top, os.R_OK)) != "True":
        raise Skip("the server's program or the test's files are not there for other users")
    with LiodOf(4242, ["--export", f"own={top}"]) as liod:
        assert as_user(4242, lambda: shakes_hands(liod.address)) == "served"
        assert as_user(4243, lambda: shakes_hands(liod.address)).startswith("closed")
        with Session(liod) as f:
            fails("EACCES", f.open, "own/f")
            assert f.stat("own/f").size == 3


# ---- a file system that hangs ----

class Hung:
    """A FUSE file system that nobody serves: whoever asks it waits until it goes."""

    def __init__(self, path):
        need_root()
        self.path, self.libc = path, ctypes.CDLL(None, use_errno=True)
        try:
            self.fd = os.open("/dev/fuse", os.O_RDWR)
        except OSError as e:
            raise Skip(f"/dev/fuse: {e}") from None
        options = f"fd={self.fd},rootmode=40000,user_id=0,group_id=0".encode()
        if self.libc.mount(b"hung", path.encode(), b"fuse", 0, options):
            os.close(self.fd)
            raise Skip(f"mount: {os.strerror(ctypes.get_errno())}")

    def end(self):
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.end()
        self.libc.umount2(self.path.encode(), 2)


def test_a_file_system_that_hangs_hangs_its_own_export_only():
    put(tree("fine"), "f", data=b"fine")
    with Hung(tree("hung")) as hung, Liod(args=("--export", f"hung={hung.path},rw", "--export", f"fine={tree('fine')}")) as liod:
        with Session(liod) as stuck, Session(liod) as f:
            waiting = [stuck.start(LIST, "hung") for _ in range(20)]
            waiting += [stuck.start(OPEN, "hung/f", flags=READ), stuck.start(MKDIR, "hung/d", mode=0o755),
                        stuck.start(REMOVE, "hung/f"), stuck.start(RENAME, "hung/f", "hung/g")]
            for _ in range(50):
                assert f.read(f.open("fine/f"), 10) == b"fine"
                assert b"f" in f.list("fine")
            assert liod.serves()
            hung.end()
            for handle in waiting:
                try:
                    stuck.finish(handle)
                except OSError:
                    continue
                raise AssertionError("a request on what hung succeeded")


def test_more_than_can_wait_for_what_hangs_is_refused():
    put(tree("fine"), "f", data=b"fine")
    with Hung(tree("hung2")) as hung, Liod(args=("--export", f"hung={hung.path}", "--export", f"fine={tree('fine')}")) as liod:
        sessions = [Session(liod) for _ in range(20)]
        for s in sessions:
            for _ in range(240):
                s.files.start(STAT, "hung/f")
        fails("EBUSY", sessions[-1].files.ask, STAT, "hung/f", says="does not answer")
        with Session(liod) as f:
            assert f.read(f.open("fine/f"), 10) == b"fine"
        for s in sessions:
            s.host.close()
        assert liod.serves()
        hung.end()


def test_exports_have_metrics():
    with Liod(args=("--export", f"m={tree('metrics')},rw", "--metrics", "127.0.0.1:0")) as liod, Session(liod) as f:
        where = said(liod, "event=metrics")[0].rsplit("address=", 1)[1].strip()
        f.open("m/f", WRITE | CREATE)
        with urllib.request.urlopen(f"http://{where}/metrics", timeout=20) as page:
            text = page.read().decode()
        assert "\nliod_objects 1\n" in text and '\nliod_export_queue{export="m"} 0\n' in text, text


if __name__ == "__main__":
    code = 0
    try:
        tap.main()
    except SystemExit as end:
        code = end.code or 0
    if _server:
        _server.serves()
        assert _server.end() == 0
        _server.kill()
    sys.exit(code)
