# SPDX-License-Identifier: Apache-2.0
"""lio mount: stock programs on a server's files, where this machine lets a test mount."""
import errno
import os
import random
import subprocess
import time

import tap
from tap import LIO, Skip, run
from remote import Exports, LINE, tmp


class Mounted:
    """lio mount of a server's export until the end of a with block; .dir."""

    def __init__(self, server, name, *more):
        self.argv = [LIO, "mount", server.url, tmp(name), "--foreground", *more]
        self.dir = tmp(name)
        os.makedirs(self.dir, exist_ok=True)

    def __enter__(self):
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise Skip("/dev/fuse cannot be opened")
        self.p = subprocess.Popen(self.argv, stderr=subprocess.PIPE, text=True)
        for _ in range(1500):
            if os.path.ismount(self.dir):
                return self
            if self.p.poll() is not None:
                err = self.p.stderr.read()
                self.p.stderr.close()
                if "without libfuse3" in err or "cannot mount there" in err:
                    raise Skip(err.splitlines()[-1])
                raise AssertionError(err)
            time.sleep(0.02)
        raise AssertionError("it is not mounted")

    def __exit__(self, *_):
        self.p.terminate()
        assert self.p.wait(60) == 0
        self.p.stderr.close()
        assert not os.path.ismount(self.dir)


def test_files_are_read_written_renamed_and_removed_by_stock_calls():
    data = random.Random(1).randbytes(5 << 20)
    with Exports("mounted") as s:
        s.put("large", data)
        with Mounted(s, "m1") as m:
            at = lambda *names: os.path.join(m.dir, *names)
            assert open(at("large"), "rb").read() == data
            with open(at("large"), "rb") as f:
                f.seek(1234567)
                assert f.read(100) == data[1234567:1234667]
            assert os.stat(at("large")).st_size == len(data)
            os.mkdir(at("d"))
            with open(at("d", "odd %41 name\n"), "wb") as f:
                f.write(data)
                f.seek(3)
                f.write(b"xyz")
                f.flush()
                os.fsync(f.fileno())
            want = data[:3] + b"xyz" + data[6:]
            assert s.get("d/odd %41 name\n") == want
            with open(at("d", "odd %41 name\n"), "ab") as f:
                f.write(b"end")
            assert s.get("d/odd %41 name\n") == want + b"end"
            os.rename(at("d", "odd %41 name\n"), at("moved"))
            os.truncate(at("moved"), 10)
            assert s.get("moved") == want[:10] and os.listdir(at("d")) == []
            assert sorted(os.listdir(m.dir)) == ["d", "large", "moved"]
            os.rmdir(at("d"))
            os.unlink(at("moved"))
            assert os.listdir(s.dir) == ["large"]
            assert subprocess.run(["cmp", at("large"), os.path.join(s.dir, "large")]).returncode == 0


def test_what_changed_on_the_server_is_seen_when_a_file_is_opened():
    with Exports("changing") as s:
        s.put("f", b"old")
        with Mounted(s, "m2") as m:
            path = os.path.join(m.dir, "f")
            assert open(path, "rb").read() == b"old"
            s.put("f", b"newer and longer")

            def now():
                with open(path, "rb") as f:
                    return f.read() == b"newer and longer"
            for _ in range(500):
                if now():
                    break
                time.sleep(0.02)
            assert now()
            s.put("appears", b"x")
            assert open(os.path.join(m.dir, "appears"), "rb").read() == b"x"


def test_errors_have_the_numbers_that_programs_know():
    def fails(number, call):
        try:
            call()
        except OSError as e:
            assert e.errno == number, e
        else:
            raise AssertionError("it did not fail")

    with Exports("numbers", x="") as s:
        s.put("f", b"x")
        with Mounted(s, "m3") as m:
            at = lambda name: os.path.join(m.dir, name)
            fails(errno.ENOENT, lambda: open(at("absent")))
            fails(errno.EROFS, lambda: open(at("f"), "r+b"))
            fails(errno.EROFS, lambda: os.mkdir(at("d")))
            fails(errno.EROFS, lambda: os.unlink(at("f")))
            assert open(at("f"), "rb").read() == b"x"
    with Exports("numbers2") as s:
        s.put("f", b"x")
        with Mounted(s, "m4", "--read-only") as m:
            fails(errno.EROFS, lambda: open(os.path.join(m.dir, "f"), "r+b"))


def test_what_cannot_be_mounted_says_so():
    with Exports("no") as s:
        s.put("f", b"x")
        os.makedirs(tmp("m5"), exist_ok=True)
        for argv in [(s.url + "/f", tmp("m5")), (s.url, tmp("absent")), ("/tmp", tmp("m5")), (s.url + "/nothing", tmp("m5"))]:
            status, out, err = run(LIO, "mount", *argv)
            assert status == 2 and LINE.match(err), err


if __name__ == "__main__":
    tap.main()
