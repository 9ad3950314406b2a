# SPDX-License-Identifier: Apache-2.0
"""A liod for a test: started on a port of its own, seen to serve, ended with what it said kept."""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from nvmetcp import DISCOVERY, Host  # noqa: E402

LIOD = os.environ.get("LIOD", "build/tools/liod")
NQN = "nqn.2026-01.io.lambda:wire"
EXTRA = os.environ.get("LIOD_ARGS", "").split()


class Liod:
    """The server, with a RAM namespace (NSID 1) unless others are named, or none is wanted (bare)."""

    def __init__(self, *namespaces, args=(), config=None, env=None, port=0, bare=False):
        argv = [LIOD, "--listen", f"127.0.0.1:{port}", "--nqn", NQN]
        for key, value in (config or {}).items():
            argv += ["--set", f"{key}={value}"]
        for n in namespaces or (() if bare else ("ram:64M",)):
            argv += ["--namespace", str(n)]
        self.lines, self.ready, self.ends_with = [], threading.Event(), 0
        self.proc = self.popen([*argv, *args, *EXTRA], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                               errors="replace", env={**os.environ, **(env or {})})
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if not self.ready.wait(30) or not getattr(self, "address", None):
            self.kill()
            raise RuntimeError("liod does not start:\n" + "".join(self.lines))

    def popen(self, argv, **kw):
        return subprocess.Popen(argv, **kw)

    def _read(self):
        for line in self.proc.stderr:
            self.lines.append(line)
            m = re.search(r"listening address=127\.0\.0\.1:(\d+)", line)
            if m and not self.ready.is_set():
                self.address = ("127.0.0.1", int(m.group(1)))
                self.ready.set()
        self.ready.set()

    def host(self, **kw):
        return Host(self.address, NQN, **kw)

    def serves(self, nsid=1):
        """A stranger can connect and read: raises when not."""
        assert self.proc.poll() is None, f"liod ended with {self.proc.returncode}:\n" + "".join(self.lines[-40:])
        with self.host(hostid=os.urandom(16)) as h:
            block = 1 << h.admin.identify(0, nsid)[130]
            assert len(h.q[0].read(0, 1, block, nsid=nsid)) == block
        return True

    def said(self, *words, timeout=20):
        """The first line of the log that has all the words, waited for."""
        until = time.monotonic() + timeout
        while True:
            for line in list(self.lines):
                if all(w in line for w in words):
                    return line
            assert time.monotonic() < until, f"the log never says {words}:\n" + "".join(self.lines[-40:])
            time.sleep(0.01)

    def cpu_seconds(self):
        with open(f"/proc/{self.proc.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self):
        with open(f"/proc/{self.proc.pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.proc.pid}/fd"))

    def end(self, sig=signal.SIGTERM, timeout=30):
        if sig and self.proc.poll() is None:
            self.proc.send_signal(sig)
        try:
            code = self.proc.wait(timeout)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
            raise AssertionError(f"liod does not end on a signal:\n" + "".join(self.lines[-40:])) from None
        finally:
            self.reader.join(5)
        return code

    def kill(self):
        if self.proc.poll() is None:
            self.proc.kill()
        self.proc.wait()
        self.reader.join(5)
        self.proc.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                assert self.proc.poll() is None, f"liod ended by itself with {self.proc.returncode}:\n" + "".join(self.lines)
                code = self.end()
                assert code == self.ends_with, f"exit status {code} after SIGTERM:\n" + "".join(self.lines[-40:])
        finally:
            self.kill()


_shared = None


def shared():
    """One server for all tests of a program: what one test does to it must not hurt the next."""
    global _shared
    if _shared is None:
        folder = tempfile.mkdtemp(prefix="lambdaio-wire.")
        path = os.path.join(folder, "disk")
        with open(path, "wb") as f:
            f.truncate(64 << 20)
        _shared = Liod("ram:64M", path)
        _shared.folder = folder
    return _shared


def finish(main):
    """tap.main() ends the program; the shared server must have outlived the tests and end well."""
    code = 0
    try:
        main()
    except SystemExit as e:
        code = e.code or 0
    if _shared:
        try:
            _shared.serves()
            ended = _shared.end()
            assert ended == 0, f"exit status {ended} after SIGTERM"
        except Exception:
            sys.stderr.write("".join(_shared.lines[-100:]))
            raise
        finally:
            _shared.kill()
            shutil.rmtree(_shared.folder, ignore_errors=True)
    sys.exit(code)


def expect(status, got):
    """Statuses in the tests are numbers of the specification, in hex."""
    wanted = status if isinstance(status, tuple) else (status,)
    assert got in wanted, f"status {got:#x}, wanted {' or '.join(f'{w:#x}' for w in wanted)}"


__all__ = ["DISCOVERY", "Liod", "NQN", "expect", "finish", "shared"]
