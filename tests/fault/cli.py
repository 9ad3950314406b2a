# SPDX-License-Identifier: Apache-2.0
"""What goes wrong around lio is its status 2 and one line that says what, why and what to do."""
import gzip
import os
import re
import subprocess

from tap import LIO, main, run

LINE = re.compile(r"lio: .+: .+ \(E[A-Z0-9]+\)(; .+)?\n")


def path(name, content=None):
    p = os.path.join(os.environ["T"], name)
    if content is not None:
        with open(p, "wb") as f:
            f.write(content)
    return p


def fails(code, word, *argv, before=(), **kw):
    status, out, err = run(*before, LIO, *argv, **kw)
    assert status == 2, (status, out, err)
    assert out == b"", out
    assert LINE.fullmatch(err), err
    assert f"({code})" in err and word in err, err


def test_a_full_standard_output_is_not_success():
    with open("/dev/full", "wb") as full:
        p = subprocess.run([LIO, "run", "echo", path("in", b"abc"), "--raw"], stdout=full, stderr=subprocess.PIPE)
    assert p.returncode == 2, p
    assert LINE.fullmatch(p.stderr.decode()), p.stderr


def test_a_full_disk_is_named_when_a_function_writes():
    fails("ENOSPC", "disk full", "write", "echo", path("in", b"abc"), "/dev/full")


def test_a_staging_directory_that_is_not_there_is_named():
    p = path("large", b"")
    os.truncate(p, 65 << 20)
    fails("ENOENT", "TMPDIR", "run", "echo", p, "--raw", env={"TMPDIR": "/nonexistent"})


def test_damaged_gzip_is_named_and_prints_nothing():
    whole = gzip.compress(os.urandom(100000))
    fails("EBADMSG", "gzip", "run", "echo", path("cut.gz", whole[:50000]), "--raw")
    fails("EBADMSG", "gzip", "run", "echo", "-", "--raw", stdin=whole[:50000])


def test_a_time_limit_ends_a_wait_for_a_pipe_that_stays_silent():
    r, w = os.pipe()
    p = subprocess.run([LIO, "run", "echo", "-", "--timeout", "50ms"], stdin=r, capture_output=True, timeout=60)
    os.close(r)
    os.close(w)
    assert p.returncode == 2 and b"(ETIME)" in p.stderr, p


def test_a_closed_standard_input_is_an_error():
    p = subprocess.run([LIO, "run", "echo", "-"], capture_output=True, preexec_fn=lambda: os.close(0))
    assert p.returncode in (1, 2), p
    assert p.stdout == b"", p


def test_a_directory_cannot_be_run_over():
    fails("EISDIR", "is a directory", "run", "echo", os.environ["T"])


def test_a_file_without_permission_says_so():
    p = path("secret", b"abc")
    os.chmod(p, 0)
    # root may read everything, but for the capability to
    powerless = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    fails("EACCES", "permission denied", "run", "echo", p, before=powerless)


if __name__ == "__main__":
    main()
