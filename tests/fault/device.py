# SPDX-License-Identifier: Apache-2.0
"""What the server acknowledged with Flush or FUA outlives kill -9 and a power cut; a disk that fills up or breaks becomes
the right status.  disk.c (preloaded under the server's thread pool) is the disk that loses power, fills up or breaks; with
io_uring nothing can stand in between, so there kill -9 alone is tested.
"""
import errno
import os
import random
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "wire"))
import liod  # noqa: E402
import tap  # noqa: E402
from liod import Liod, expect  # noqa: E402
from nvmetcp import Closed  # noqa: E402

DISK = os.environ.get("DISK_SO", "build/tests/fault/libdisk.so")
SEED = int(os.environ.get("SEED", 7))
ROUNDS = int(os.environ.get("ROUNDS", 6))
MIB = 1 << 20
POOL = {"io_uring": "no"}


def path(name, size=16 * MIB):
    p = os.path.join(os.environ["T"], name)
    with open(p, "wb") as f:
        f.truncate(size)
    return p


def preloaded(disk, **more):
    return {"LD_PRELOAD": os.path.abspath(DISK), "DISK": disk, **more,
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}


class Writer(threading.Thread):
    """One host that owns some slots of SLOT blocks: writes versions into them, and knows which version each may hold.

    A slot's content is its number and version, repeated: a mixture of two versions in one block shows.
    """
    SLOT = 8

    def __init__(self, server, first, count, seed, done):
        super().__init__()
        self.server, self.rng, self.stop_at = server, random.Random(seed), done
        self.slots = range(first, first + count)
        self.durable = dict.fromkeys(self.slots, 0)  # at least this version is to be there
        self.latest = dict.fromkeys(self.slots, 0)   # at most this
        self.acked, self.failed = 0, None

    @staticmethod
    def content(slot, version, block):
        return struct.pack("<QQ", slot, version) * (Writer.SLOT * block // 16)

    def run(self):
        try:
            with self.server.host(queues=2, hostid=struct.pack("<QQ", self.slots[0], 1)) as h:
                self.work(h)
        except (Closed, OSError, TimeoutError):
            pass  # the server was killed
        except Exception as e:
            self.failed = e

    def work(self, h):
        b = h.block
        while not self.stop_at():
            q = self.rng.choice(h.q)
            flight = []
            for slot in self.rng.sample(self.slots, 6):
                fua = self.rng.random() < 0.25
                self.latest[slot] += 1
                version = self.latest[slot]
                cid = q.submit(1, out=self.content(slot, version, b), nsid=1, cdw10=slot * self.SLOT,
                               cdw12=self.SLOT - 1 | (1 << 30 if fua else 0), by_r2t=self.rng.random() < 0.5)
                flight.append((cid, slot, version, fua))
            for cid, slot, version, fua in flight:
                q.wait(cid)
                self.acked += 1
                if fua:
                    self.durable[slot] = version
            if self.rng.random() < 0.4:
                seen = dict(self.latest)  # all of these are acknowledged
                self.rng.choice(h.q).flush()
                self.durable.update(seen)

    def check(self, h):
        b = h.block
        for slot in self.slots:
            got = h.q[0].read(slot * self.SLOT, self.SLOT, b)
            for at in range(0, len(got), b):
                number, version = struct.unpack_from("<QQ", got, at)
                if version == 0 and got[at:at + b] == bytes(b):
                    number = slot
                else:
                    assert got[at:at + b] == self.content(slot, version, b)[:b], f"slot {slot}: a block of two versions"
                assert number == slot and self.durable[slot] <= version <= self.latest[slot], \
                    f"slot {slot}: version {version}, but {self.durable[slot]} was acknowledged as durable ({self.latest[slot]} sent)"


def load_until(server, seed, seconds, cut):
    end = [False]
    writers = [Writer(server, 100 * i, 100, seed + i, lambda: end[0]) for i in range(3)]
    for w in writers:
        w.start()
    time.sleep(seconds)
    until = time.monotonic() + 60  # on a busy machine there is not yet much by then
    while sum(w.acked for w in writers) <= 50 and not any(w.failed for w in writers) and time.monotonic() < until:
        time.sleep(0.01)
    cut()
    end[0] = True
    for w in writers:
        w.join(60)
        if w.failed:
            raise w.failed
    assert sum(w.acked for w in writers) > 50, "there was no load"
    return writers


def killed_under_load(config):
    rng = random.Random(SEED)
    for round_ in range(ROUNDS):
        disk = path(f"killed{round_}")
        with_disk = Liod(disk, config=config)
        try:
            writers = load_until(with_disk, SEED + 10 * round_, rng.uniform(0.15, 0.6), with_disk.proc.kill)
        finally:
            with_disk.kill()
        with Liod(disk, config=config) as s, s.host() as h:
            for w in writers:
                w.check(h)
        os.unlink(disk)


def test_kill_9_under_write_load_loses_nothing_acknowledged_with_io_uring():
    killed_under_load({})


def test_kill_9_under_write_load_loses_nothing_acknowledged_with_the_pool():
    killed_under_load(POOL)


def test_a_power_cut_under_write_load_loses_nothing_that_flush_or_fua_acknowledged():
    """Nothing survives but what was synced; then, of the rest, a random part as well, block by block."""
    rng = random.Random(SEED)
    lost = 0
    for round_ in range(ROUNDS):
        disk, image, dirty = path(f"cut{round_}"), path(f"image{round_}"), os.path.join(os.environ["T"], f"dirty{round_}")
        s = Liod(disk, config=POOL, env=preloaded(disk, DISK_DURABLE=image, DISK_DIRTY=dirty))
        try:
            writers = load_until(s, SEED + 10 * round_, rng.uniform(0.15, 0.6), s.proc.kill)
        finally:
            s.kill()
        with open(dirty, "rb") as f:
            count, = struct.unpack("<Q", f.read(8))
            ranges = [struct.unpack("<QQ", f.read(16)) for _ in range(count)]
        lost += count
        with Liod(image, config=POOL) as s, s.host() as h:
            for w in writers:
                w.check(h)
        with open(disk, "rb") as live, open(image, "r+b") as after:
            for offset, length in ranges:
                for at in range(offset, offset + length, 4096):
                    if rng.random() < 0.5:
                        live.seek(at)
                        after.seek(at)
                        after.write(live.read(min(4096, offset + length - at)))
        with Liod(image) as s, s.host() as h:
            for w in writers:
                w.check(h)
        for p in (disk, image, dirty):
            os.unlink(p)
    assert lost, "no write was ever lost: the cut tests nothing"


def test_a_disk_that_loses_what_was_not_synced_is_noticed_by_the_test_itself():
    """Without Flush and FUA the same load does lose writes: the cut is a real one."""
    disk, image = path("unsynced"), path("unsynced-image")
    s = Liod(disk, config=POOL, env=preloaded(disk, DISK_DURABLE=image, DISK_DIRTY=image + ".dirty"))
    try:
        with s.host() as h:
            h.q[0].write(0, b"\x31" * 8 * h.block, h.block, fua=True)
            h.q[0].write(8, b"\x32" * 8 * h.block, h.block)
            h.q[0].flush()
            h.q[0].write(16, b"\x33" * 8 * h.block, h.block)
            block = h.block
            s.proc.kill()
    finally:
        s.kill()
    with open(image, "rb") as f:
        got = f.read(24 * block)
    assert got == b"\x31" * 8 * block + b"\x32" * 8 * block + bytes(8 * block)


def test_zeroes_and_deallocation_are_durable_once_flushed_or_forced():
    disk, image = path("zeroes"), path("zeroes-image")
    s = Liod(disk, config=POOL, env=preloaded(disk, DISK_DURABLE=image, DISK_DIRTY=image + ".dirty"))
    try:
        with s.host() as h:
            b = h.block
            h.q[0].write(0, b"\x44" * 64 * b, b, fua=True)
            h.q[0].call(8, nsid=1, cdw10=8, cdw12=7 | 1 << 30)  # forced
            h.q[0].call(8, nsid=1, cdw10=24, cdw12=7)
            h.q[0].flush()
            h.q[0].call(8, nsid=1, cdw10=40, cdw12=7)  # neither
            s.proc.kill()
    finally:
        s.kill()
    with open(image, "rb") as f:
        got = f.read(64 * b)
    assert got[8 * b:16 * b] == bytes(8 * b), "zeroes written with FUA"
    assert got[24 * b:32 * b] == bytes(8 * b), "zeroes before a flush"
    assert got[:8 * b] + got[16 * b:24 * b] + got[32 * b:] == b"\x44" * 48 * b


def test_the_shutdown_that_a_host_asks_for_makes_everything_durable():
    disk, image = path("shutdown"), path("shutdown-image")
    s = Liod(disk, config=POOL, env=preloaded(disk, DISK_DURABLE=image, DISK_DIRTY=image + ".dirty"))
    try:
        with s.host() as h:
            b = h.block
            h.q[0].write(0, b"\x55" * 8 * b, b)
            h.admin.set_property(0x14, 0x464061)
            while h.admin.get_property(0x1C) >> 2 & 3 != 2:
                pass
            s.proc.kill()
    finally:
        s.kill()
    with open(image, "rb") as f:
        assert f.read(8 * b) == b"\x55" * 8 * b


def test_sigterm_makes_everything_durable():
    disk, image = path("term"), path("term-image")
    with Liod(disk, config=POOL, env=preloaded(disk, DISK_DURABLE=image, DISK_DIRTY=image + ".dirty")) as s, s.host() as h:
        b = h.block
        h.q[0].write(0, b"\x66" * 8 * b, b)
    with open(image, "rb") as f:
        assert f.read(8 * b) == b"\x66" * 8 * b


class Broken:
    """A server over a disk that fails as fail() says."""

    def __init__(self, name):
        self.disk = path(name)
        self.how = self.disk + ".fail"
        self.fail("")
        self.server = Liod(self.disk, config=POOL, env=preloaded(self.disk, DISK_FAIL=self.how))

    def fail(self, *what):
        with open(self.how + ".new", "w") as f:
            f.write(" ".join(what))
        os.rename(self.how + ".new", self.how)

    def __enter__(self):
        self.server.__enter__()
        return self

    def __exit__(self, *exc):
        self.fail("")
        self.server.__exit__(*exc)


def test_io_errors_become_media_errors_and_the_server_serves_on():
    with Broken("eio") as d, d.server.host() as h:
        q, b = h.q[0], h.block
        q.write(0, b"\x11" * 8 * b, b, fua=True)
        d.fail(f"read:{errno.EIO}")
        expect(0x281, q.status(2, want=8 * b, nsid=1, cdw12=7))
        expect((0x281, 0x285), q.status(5, out=b"\x11" * 8 * b, nsid=1, cdw12=7))
        expect(0x281, q.status(0x0C, nsid=1, cdw12=7))
        d.fail(f"write:{errno.EIO}")
        expect(0x280, q.status(1, out=b"\x22" * 8 * b, nsid=1, cdw12=7))
        d.fail(f"zero:{errno.EIO}")
        expect((0x280, 0x281, 0x06), q.status(8, nsid=1, cdw12=7))
        d.fail("")
        assert q.read(0, 8, b) == b"\x11" * 8 * b
        d.server.serves()


def test_a_flush_that_fails_says_so_and_the_data_are_not_claimed_later():
    with Broken("sync") as d, d.server.host() as h:
        q, b = h.q[0], h.block
        q.write(0, b"\x11" * 8 * b, b)
        d.fail(f"sync:{errno.EIO}:1")
        status_ = q.status(0, nsid=1)
        assert status_, "a failed flush was acknowledged"
        expect((0x280, 0x06), status_)
        again = q.status(0, nsid=1)  # the kernel has dropped the pages and would say yes: the server must remember
        assert again, "a flush after a failed one was acknowledged, though what was written before is lost"
        d.server.ends_with = 2  # it cannot promise at its end either


def test_a_full_disk_is_capacity_exceeded_and_room_makes_it_work_again():
    with Broken("full") as d, d.server.host() as h:
        q, b = h.q[0], h.block
        q.write(0, b"\x11" * 8 * b, b, fua=True)
        d.fail(f"write:{errno.ENOSPC}")
        for fua in (0, 1 << 30):
            expect(0x81, q.status(1, out=b"\x22" * 8 * b, nsid=1, cdw12=7 | fua))
        assert q.read(0, 8, b) == b"\x11" * 8 * b
        d.fail("")
        q.write(8, b"\x22" * 8 * b, b, fua=True)
        d.server.serves()


def test_a_full_file_system_is_capacity_exceeded_with_io_uring_as_well():
    mnt = os.path.join(os.environ["T"], "small")
    os.mkdir(mnt)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", mnt], capture_output=True).returncode:
        raise tap.Skip("mounting a small tmpfs needs more rights")
    try:
        for config in ({}, POOL):
            disk = os.path.join(mnt, "disk")
            with open(disk, "wb") as f:
                f.truncate(8 * MIB)
            with Liod(disk, config=config) as s, s.host() as h:
                q, b = h.q[0], h.block
                n = 65536 // b
                seen = [q.status(1, out=b"\x33" * n * b, nsid=1, cdw10=i * n, cdw12=n - 1) for i in range(60)]
                assert seen[0] == 0 and set(seen) == {0, 0x81}, [hex(x) for x in set(seen)]
                kept = seen.index(0x81)
                for i in range(kept):
                    assert q.read(i * n, n, b) == b"\x33" * n * b
                q.call(9, out=struct.pack("<IIQ", 0, n * kept, 0), nsid=1, cdw10=0, cdw11=4)
                q.write(40 * n, b"\x44" * n * b, b)
                assert q.read(40 * n, n, b) == b"\x44" * n * b
                s.serves()
            os.unlink(disk)
    finally:
        subprocess.run(["umount", "-l", mnt])


def test_a_disk_that_is_cut_short_under_the_server_gives_errors_not_old_data():
    for config in ({}, POOL):
        disk = path("short")
        with Liod(disk, config=config) as s, s.host() as h:
            q, b = h.q[0], h.block
            last = 16 * MIB // b - 8
            q.write(last, b"\x55" * 8 * b, b, fua=True)
            os.truncate(disk, 8 * MIB)
            expect((0x281, 0x80, 0x06), q.status(2, want=8 * b, nsid=1, cdw10=last, cdw12=7))
            assert q.read(0, 8, b) == bytes(8 * b)
            s.serves()
        os.unlink(disk)


def test_a_lost_disk_is_an_error_at_start_that_names_it():
    gone = os.path.join(os.environ["T"], "nowhere", "disk")
    p = subprocess.run([liod.LIOD, "--listen", "127.0.0.1:0", "--namespace", gone], capture_output=True, text=True, timeout=30)
    assert p.returncode == 2 and gone in p.stderr and "ENOENT" in p.stderr, p.stderr


def test_one_disk_is_not_served_twice():
    disk = path("locked")
    with Liod(disk):
        p = subprocess.run([liod.LIOD, "--listen", "127.0.0.1:0", "--namespace", disk], capture_output=True, text=True, timeout=30)
        assert p.returncode == 2 and disk in p.stderr, f"{p.returncode} {p.stderr}"


def test_names_of_namespaces_outlive_a_restart():
    disk, names = path("named"), []
    for _ in range(2):
        with Liod(disk) as s, s.host(queues=0) as h:
            names.append((h.admin.identify(3, 1), h.admin.identify(0, 1)[104:128]))
    assert names[0] == names[1]


if __name__ == "__main__":
    liod.finish(tap.main)
