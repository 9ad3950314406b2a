# SPDX-License-Identifier: Apache-2.0
"""lio device against liod itself: what is printed, what is copied, what happens when the server goes away."""
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import tap
from tap import LIO, run

LIOD = os.environ.get("LIOD", os.path.join(os.path.dirname(LIO), "liod"))
LINE = re.compile(r"^lio: .+ \([A-Z0-9?]+\)(; .+)?\n$")
MIB = 1 << 20


def tmp(name):
    return os.path.join(os.environ["T"], name)


class Server:
    """liod until the end of a with block; kill() is SIGKILL, start() brings it back to the same port."""

    def __init__(self, *namespaces, nqn=None):
        self.argv = [a for n in namespaces for a in ("--namespace", str(n))] + (["--nqn", nqn] if nqn else [])
        self.port = 0

    def start(self):
        self.p = subprocess.Popen([LIOD, "--listen", f"127.0.0.1:{self.port}", *self.argv], stderr=subprocess.PIPE,
                                  stdout=subprocess.DEVNULL, text=True)
        for line in self.p.stderr:
            if "event=listening" in line:
                self.at = re.search(r"address=(\S+)", line)[1]
                self.port = int(self.at.rsplit(":", 1)[1])
                break
        else:
            raise AssertionError("liod did not start")
        self.drain = threading.Thread(target=self.p.stderr.read, daemon=True)
        self.drain.start()
        return self

    def kill(self):
        self.p.kill()
        self.p.wait()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.p.terminate()
        self.p.wait(30)
        self.drain.join()
        self.p.stderr.close()


def disk(name, size=4 * MIB, data=b""):
    path = tmp(name)
    with open(path, "wb") as f:
        f.write(data)
        f.truncate(size)
    return path


def lio(*argv, stdin=b"", status=0):
    s, out, err = run(LIO, "device", *argv, stdin=stdin)
    assert s == status, (argv, s, err)
    if status == 2:
        assert LINE.match(err), err
        return err
    assert err == "", err
    return out


def test_the_report_names_subsystem_namespaces_and_health():
    with Server(disk("a"), "ram:1M", nqn="nqn.2024-01.test:one") as s:
        text = lio(s.at).decode()
        for word in ["nqn.2024-01.test:one", "namespaces  1: 4 MiB", "2: 1 MiB", "health      good", "limits"]:
            assert word in text, text
        assert lio(s.at, "--nqn", "nqn.2024-01.test:one").decode().split("serial")[1].split(",")[0] in text


def test_the_json_report_is_lio_device_1():
    with Server(disk("a"), "ram:1M") as s:
        d = json.loads(lio(s.at, "--json"))
        assert d["schema"] == "lio-device/1" and d["address"] == s.at
        one, = d["subsystems"]
        assert one["error"] is None and one["controller"]["version"].startswith("2.")
        assert [(n["nsid"], n["bytes"], n["read_only"]) for n in one["namespaces"]] == [
            (1, 4 * MIB, False), (2, MIB, False)]
        assert one["health"]["warnings"] == []


def test_what_is_written_is_in_the_file_and_is_read_back():
    data = os.urandom(3 * MIB)
    path = disk("b")
    with Server(path) as s:
        for more in [[], ["--digest"]]:
            assert lio("write", s.at, "--offset", "4K", *more, stdin=data) == b""
            assert open(path, "rb").read()[4096:4096 + len(data)] == data
            assert lio("read", s.at, "--offset", "4K", "--length", "3M", *more) == data
        assert len(lio("read", s.at)) == 4 * MIB
        assert lio("read", s.at, "--length", "0", status=1) == b""


def test_input_from_a_file_is_checked_before_anything_is_written():
    path = disk("c")
    with Server(path) as s:
        for size, argv, why in [(MIB + 100, [], "whole number"), (5 * MIB, [], "room"),
                                (MIB, ["--length", "2M"], "--length")]:
            with open(disk("input", size, b"x" * 4096), "rb") as f:
                p = subprocess.run([LIO, "device", "write", s.at, *argv], stdin=f, capture_output=True, text=True)
            assert p.returncode == 2 and LINE.match(p.stderr) and why in p.stderr, p.stderr
        assert not any(open(path, "rb").read())


def test_a_pipe_with_a_part_of_a_block_at_its_end_says_what_was_written():
    path = disk("d")
    with Server(path) as s:
        err = lio("write", s.at, stdin=b"y" * 4196, status=2)
        assert "last 100 bytes" in err and "4096 before" in err
        assert open(path, "rb").read(4200) == b"y" * 4096 + b"\0" * 104
        err = lio("write", s.at, "--offset", "4095K", stdin=b"z" * 2048, status=2)
        assert "longer than the 1024 bytes" in err


def test_ranges_that_are_none_are_refused_with_the_fix():
    with Server(disk("e")) as s:
        for argv, why in [(["--offset", "100"], "multiple of 512"), (["--length", "100"], "multiple of 512"),
                          (["--offset", "5M"], "ends at 4194304"), (["--length", "5M"], "ends at"),
                          (["--nsid", "9"], "no namespace 9"), (["--nqn", "nqn.2024-01.test:no"], "Connect"),
                          (["--nsid", "4294967295"], "too large")]:
            assert why in lio("read", s.at, *argv, status=2), argv
        assert "neither read nor write" in lio("copy", s.at, status=2)


def test_a_read_only_namespace_is_not_written():
    path = disk("f")
    with Server(path + ",ro") as s:
        assert "read-only" in lio(s.at).decode()
        assert "read-only" in lio("write", s.at, stdin=b"x" * 512, status=2)


def test_where_nothing_listens_or_something_else_does():
    assert "refused" in lio("127.0.0.1:1", status=2)
    assert "(EINVAL)" in lio("127.0.0.1:", status=2)
    assert "HOST" in lio(status=2)
    with socket.create_server(("127.0.0.1", 0)) as other:
        def answer():
            c, _ = other.accept()
            with c:
                c.recv(128)
                c.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 10)
        t = threading.Thread(target=answer)
        t.start()
        assert "NVMe/TCP" in lio(f"127.0.0.1:{other.getsockname()[1]}", status=2)
        t.join()


def test_a_server_killed_amid_a_transfer_is_an_error_and_comes_back_with_what_was_flushed():
    path = disk("g", 64 * MIB)
    first = os.urandom(MIB)
    with Server(path) as s:
        lio("write", s.at, stdin=first)
        p = subprocess.Popen([LIO, "device", "write", s.at, "--offset", "1M"], stdin=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        p.stdin.write(b"w" * (4 * MIB))
        p.stdin.flush()
        s.kill()
        try:
            p.stdin.write(b"w" * (8 * MIB))
            p.stdin.close()
        except BrokenPipeError:
            p.stdin = None
        err = p.stderr.read().decode()
        p.stderr.close()
        assert p.wait() == 2 and LINE.match(err), err
        s.start()
        assert lio("read", s.at, "--length", "1M") == first


if __name__ == "__main__":
    tap.main()
