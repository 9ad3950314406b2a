# SPDX-License-Identifier: Apache-2.0
"""What liod.service allows is enough: liod serves, and its workers compute, under the restrictions of the unit (see confined.py)."""
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile

import confined
import liod
import tap
from liod import LIOD, Liod

UNIT = os.path.join(os.environ.get("SRC", "."), "dist", "liod.service.in")
CONFINED = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "confined.py"), UNIT]
MIB = 1 << 20


def needed():
    """Skips where the unit's restrictions cannot be put on."""
    for tool in ("systemd-analyze", "cc"):
        if not shutil.which(tool):
            raise tap.Skip(f"{tool} is not there")
    if os.uname().machine not in confined.ARCH:
        raise tap.Skip(f"no filters for {os.uname().machine}")
    with open(LIOD, "rb") as f:
        if any(s in f.read() for s in (b"__asan_init", b"__tsan_init")):
            raise tap.Skip("sanitizers make system calls of their own")
    os.chmod(os.environ["T"], 0o711)
    p = subprocess.run([*CONFINED, "/bin/sh", "-c", f"test -x '{LIOD}' && test -x '{os.environ['T']}'"], capture_output=True, text=True)
    if p.returncode == 1 and "confined:" in p.stderr:
        raise tap.Skip(p.stderr.strip())
    if p.returncode:
        raise tap.Skip("another user does not reach the server or the tests' folder")


def folder(server_may_write=True):
    path = tempfile.mkdtemp(dir=os.environ["T"])
    os.chmod(path, 0o777 if server_may_write else 0o755)
    return path


def disk(path):
    with open(path, "wb") as f:
        f.truncate(64 * MIB)
    os.chmod(path, 0o666)
    return path


class Service(Liod):
    """The server as its unit lets it be."""
    def popen(self, argv, **kw):
        return super().popen([*CONFINED, *argv], **kw)


def test_storage_is_served_under_the_units_restrictions_by_io_uring_and_by_threads():
    needed()
    for how in ("yes", "no"):
        path = disk(os.path.join(folder(), "disk"))
        # Only its own user and root are served on loopback; this test may be a third.
        with Service(path, config={"io_uring": how}, args=["--allow-uid", str(os.getuid())]) as s:
            with open(f"/proc/{s.proc.pid}/status") as f:
                status = dict(line.split(":", 1) for line in f)
            assert status["Seccomp"].strip() == "2" and status["NoNewPrivs"].strip() == "1", "it is not confined"
            assert int(status["CapEff"], 16) == 0
            with s.host(queues=2) as h:
                q, block = h.q[0], h.block
                data = os.urandom(256 * block)
                q.write(0, data, block)
                q.write(300, data[:block], block)
                q.flush()
                assert q.read(0, 256, block) == data
                assert q.status(8, nsid=1, cdw10=8, cdw12=7) == 0, "Write Zeroes"
                assert q.status(9, out=bytes(4) + (8).to_bytes(4, "little") + (64).to_bytes(8, "little"), nsid=1, cdw11=4) == 0, "deallocate"
                assert q.read(8, 8, block) == bytes(8 * block) and q.read(0, 8, block) == data[:8 * block]
                with open(path, "r+b") as f:
                    f.truncate(128 * MIB)
                event = h.admin.submit(0x0C)
                h.admin.call(0x09, cdw10=0xB, cdw11=0x100)
                s.proc.send_signal(signal.SIGHUP)
                h.admin.wait(event)
            s.serves()


def test_functions_run_compiled_under_the_units_restrictions():
    needed()
    lio = os.environ.get("LIO")
    if not lio or not os.path.exists(os.path.join(os.environ.get("LIO_FUNCTIONS", ""), "count.o")):
        raise tap.Skip("no functions were built")
    where = folder(server_may_write=False)
    with open(os.path.join(where, "a"), "w") as f:
        f.write("hello\nworld\n")
    os.chmod(os.path.join(where, "a"), stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    with Service("ram:1M", args=["--export", f"x={where}", "--allow-uid", str(os.getuid())]) as s:
        for tier in ("template", "interp"):
            p = subprocess.run([lio, "run", "count", "--tier", tier, "lio://%s:%d/x/a" % s.address], capture_output=True, text=True, timeout=120)
            assert p.returncode == 0 and p.stdout == "2\t2\t12\n", f"{tier}: {p.stdout}{p.stderr}" + "".join(s.lines)


if __name__ == "__main__":
    liod.finish(tap.main)
