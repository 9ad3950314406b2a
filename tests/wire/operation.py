# SPDX-License-Identifier: Apache-2.0
"""The daemon around the controller: options, configuration, signals, the service manager, metrics."""
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tap  # noqa: E402
from liod import LIOD, NQN, Liod  # noqa: E402
from nvmetcp import Closed, Conn, Host, Queue  # noqa: E402
from tap import Skip, run  # noqa: E402


def path(name, size=None, text=None):
    p = os.path.join(os.environ["T"], name)
    if text is not None:
        with open(p, "w") as f:
            f.write(text)
    elif size is not None:
        with open(p, "wb") as f:
            f.truncate(size)
    return p


def refused(*argv, says, name, env=None):
    status, out, err = run(LIOD, *argv, env=env, timeout=20)
    assert status == 2, f"exit status {status}: {err}"
    assert out == b""
    assert err.count("\n") == 1 and err.startswith("liod: "), f"not one line: {err!r}"
    assert f"({name})" in err and says in err, err


def test_what_cannot_be_served_is_one_line_that_says_why_and_status_2():
    disk = path("one", 1 << 20)
    refused(says="nothing to serve", name="EINVAL")
    refused("--namespace", "/nowhere", says="truncate -s", name="ENOENT")
    refused("--namespace", disk, "--namespace", disk, says="locked", name="EBUSY")
    refused("--namespace", "ram:1M", "--nqn", "disk", says="begins with 'nqn.'", name="EINVAL")
    refused("--namespace", "ram:1M", "--threads", "0", says="from 1 to 64", name="ERANGE")
    refused("--namespace", "ram:1M", "--set", "max_transfer=5000", says="a power of two", name="ERANGE")
    refused("--namespace", "ram:1M", "--set", "bufer_memory=1G", says="no such key", name="EINVAL")
    refused("--namespace", "ram:1M", "--set", "buffer_memory=1M", says="allow more", name="EINVAL")
    refused("--namespace", "ram:1M", "--listen", "::1:4420", says="[::1]:4420", name="EINVAL")
    refused("--export", "logs", says="NAME=DIR", name="EINVAL")
    refused("--export", "logs=/nowhere", says="give a directory", name="ENOENT")
    refused("--export", "a=/", "--export", "a=/tmp", says="choose another", name="EEXIST")
    refused("--export", "a=/", "--allow-uid", "somebody", says="id -u", name="EINVAL")
    refused("--export", "a=/", "--allow-uid", "1", "--insecure-network", says="leave one of them out", name="EINVAL")
    refused("--nonsense", says="--nonsense", name="EINVAL")
    refused("--namespace", says="its value is missing", name="EINVAL")
    refused(disk, says="--namespace FILE", name="EINVAL")
    refused("--config", "/nowhere", says="/nowhere", name="ENOENT")


def test_listening_beyond_loopback_has_to_be_asked_for():
    for where in ("0.0.0.0:0", "[::]:0", "192.0.2.1:4420"):
        refused("--namespace", "ram:1M", "--listen", where, says="--insecure-network", name="EPERM")
    refused("--namespace", "ram:1M", "--metrics", "0.0.0.0:0", says="--insecure-network", name="EPERM")
    assert run(LIOD, "--namespace", "ram:1M", "--listen", "0.0.0.0:0", "--insecure-network", "--run", "true")[0] == 0
    refused("--namespace", "ram:1M", "--listen", "192.0.2.1:0", "--insecure-network", says="address of this machine",
            name="EADDRNOTAVAIL")


def test_a_port_that_is_taken_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused("--namespace", "ram:1M", "--listen", f"127.0.0.1:{taken.getsockname()[1]}", says="another port",
                name="EADDRINUSE")


def test_a_configuration_file_serves_several_subsystems():
    conf = path("good.conf", text=f"""
# a comment
; another
  listen = 127.0.0.1:0
threads=1
buffer_memory =  64M
stall_timeout = 2s

[subsystem nqn.2026-01.org.example:a]
serial = A1
namespace = {path("a", 1 << 20)},block=4096
namespace = ram:2M

[subsystem nqn.2026-01.org.example:b]
namespace = {path("b", 3 << 20)},ro
""")
    status, out, err = run(LIOD, "--config", conf, "--check")
    assert (status, out, err) == (0, b"valid: 2 subsystems, 3 namespaces\n", "")
    script = path("look.py", text="""
import os
from nvmetcp import Host
where = (os.environ["LIOD_ADDRESS"], int(os.environ["LIOD_PORT"]))
for nqn in ("nqn.2026-01.org.example:a", "nqn.2026-01.org.example:b"):
    with Host(where, nqn) as h:
        pages = [h.admin.identify(0, nsid) for nsid, _ in h.namespaces()]
        sizes = [int.from_bytes(p[:8], "little") << p[130] for p in pages]
        serial = h.admin.identify(1)[4:24].decode().strip()
        print(nqn[-1], serial[:2], sizes)
print(os.environ["LIOD_NQN"])
""")
    here = os.path.dirname(os.path.abspath(__file__))
    status, out, err = run(LIOD, "--config", conf, "--run", f"PYTHONPATH={here} {sys.executable} {script}")
    assert status == 0, err
    lines = out.decode().splitlines()
    assert lines[0] == "a A1 [1048576, 2097152]", out
    assert lines[1].startswith("b ") and lines[1].endswith(" [3145728]"), out
    assert lines[2] == "nqn.2026-01.org.example:a"


def test_mistakes_in_a_configuration_file_are_named_with_their_line():
    section = "[subsystem nqn.2026-01.org.example:a]\n"
    for text, says in (
            ("bufer_memory = 1G\n", ":1: bufer_memory: no such key"),
            ("\nthreads = many\n", ":2: threads = many: not a number"),
            ("threads = 2\nthreads = 3\n", ":2: threads: said twice"),
            ("stall_timeout = 10\n", ":1: stall_timeout = 10: not a time"),
            ("insecure_network = maybe\n", ":1: insecure_network = maybe: not yes or no"),
            ("max_io_queues = 99999\n", ":1: max_io_queues = 99999: out of bounds"),
            ("threads\n", ":1: threads: no value"),
            ("threads =\n", ":1: threads: no value"),
            ("namespace = ram:1M\n", "outside a [subsystem NQN] section"),
            ("[subsystem]\n", ":1: [subsystem]: no section"),
            ("[subsys nqn.x]\n", "no section"),
            (section + "namespace = ram:1M\n" + section, ":3: subsystem nqn.2026-01.org.example:a: said twice"),
            (section + "threads = 2\n", ":2: threads: no such key in a subsystem"),
            (section + "serial = a\nserial = b\n", ":3: serial: said twice"),
            (section, "it has no namespace"),
            (section + "serial = 123456789012345678901\nnamespace = ram:1M\n", "1 to 20 characters"),
            ("[subsystem nqn.2014-08.org.nvmexpress.discovery]\nnamespace = ram:1M\n", "choose another"),
            ("listen = 127.0.0.1:0\0\n", "zero byte"),
    ):
        refused("--config", path("bad.conf", text=text), "--check", says=says,
                name="ERANGE" if "bounds" in says else "EEXIST" if "subsystem nqn" in says or "another" in says else "EINVAL")


def test_check_accepts_what_a_running_server_serves():
    disk = path("busy", 1 << 20)
    with Liod(disk) as s:
        port = s.address[1]
        status, out, err = run(LIOD, "--namespace", disk, "--listen", f"127.0.0.1:{port}", "--check")
        assert (status, out, err) == (0, b"valid: 1 subsystem, 1 namespace\n", "")


def test_run_serves_for_the_life_of_a_command_and_passes_its_status_on():
    for command, want in (("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)):
        status, _, err = run(LIOD, "--namespace", "ram:1M", "--run", command)
        assert status == want, err
    status, out, _ = run(LIOD, "--namespace", "ram:1M", "--run", "echo $LIOD_ADDRESS $LIOD_NQN; test $LIOD_PORT -gt 0")
    assert status == 0 and out == b"127.0.0.1 nqn.2026-01.io.lambda-io:liod\n"


def test_a_signal_goes_to_the_command_that_is_served_for():
    p = subprocess.Popen([LIOD, "--namespace", "ram:1M", "--run", "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done"],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert p.stdout.readline() == b"up\n"
    p.send_signal(signal.SIGTERM)
    assert p.wait(20) == 5
    p.stdout.close()


def test_a_store_that_io_uring_is_switched_off_for_says_so():
    disk = path("pool", 1 << 20)
    with Liod(disk, config={"io_uring": "no"}) as s:
        assert any('how="thread pool (io_uring: off)' in line for line in s.lines), s.lines
        s.serves()


def test_a_reload_finds_a_file_that_grew_and_survives_a_bad_configuration():
    disk = path("grows", 1 << 20)
    conf = path("reload.conf", text=f"[subsystem {NQN}]\nnamespace = {disk}\n")
    with Liod("ram:1M", args=("--config", conf)) as s:  # the file's namespaces come first
        with s.host() as h:
            def blocks():
                page = h.admin.identify(0, 1)
                return int.from_bytes(page[:8], "little") << page[130]
            assert blocks() == 1 << 20
            with open(disk, "r+b") as f:
                f.truncate(2 << 20)
            with open(conf, "w") as f:
                f.write("nonsense\n")
            s.proc.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 20
            while blocks() != 2 << 20 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert blocks() == 2 << 20
        s.said("event=reload-failed", "reload.conf:1")


def reload(s):
    """Send SIGHUP and wait for its end; what was said meanwhile."""
    at = len(s.lines)
    s.proc.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while not any("event=reloaded" in line for line in s.lines[at:]):
        assert time.monotonic() < deadline, "no event=reloaded:\n" + "".join(s.lines[at:])
        time.sleep(0.01)
    return s.lines[at:]


def test_a_reload_serves_an_added_namespace_to_hosts_that_are_connected():
    disks = [path(f"add{i}", (i + 1) << 20) for i in range(3)]
    conf = path("add.conf", text=f"[subsystem {NQN}a]\nnamespace = {disks[0]}\n")
    with Liod(args=("--config", conf)) as s, Host(s.address, NQN + "a") as h, Host(s.address, NQN + "a") as other:
        def size(nsid):
            page = h.admin.identify(0, nsid)
            return int.from_bytes(page[:8], "little") << page[130] if any(page) else 0
        nn, vwc = int.from_bytes(h.admin.identify(1)[516:520], "little"), h.admin.identify(1)[525]
        assert nn > 3 and vwc & 1, "what may come is promised from the first"
        assert size(2) == size(nn) == 0 and h.admin.status(6, want=4096, nsid=nn + 1) == 0x0B
        assert h.q[0].status(2, want=512, nsid=2) == 0x0B
        h.admin.call(0x09, cdw10=0xB, cdw11=0x100)
        event = h.admin.submit(0x0C)
        with open(conf, "a") as f:
            f.write(f"namespace = {disks[1]}\nnamespace = {disks[2]},ro\n")
        said = reload(s)
        assert sum("event=namespace " in line for line in said) == 2, said
        assert h.admin.wait(event).dw0 == 2 | 4 << 16
        assert h.admin.log(4, 4096)[:12] == b"".join(n.to_bytes(4, "little") for n in (2, 3, 0))
        assert [n for n, _ in h.namespaces()] == [1, 2, 3]
        assert [size(n) for n in (1, 2, 3)] == [1 << 20, 2 << 20, 3 << 20]
        assert h.admin.identify(3, 2) != h.admin.identify(3, 1)
        block = 1 << h.admin.identify(0, 2)[130]
        h.q[0].write(5, b"n" * block, block, nsid=2)
        h.q[0].flush(nsid=0xFFFFFFFF)
        assert other.q[0].read(5, 1, block, nsid=2) == b"n" * block
        assert h.q[0].status(1, out=bytes(block), nsid=3) == 0x20, "read-only"
        assert not any("event=namespace " in line or "fail" in line or "incomplete" in line for line in reload(s))
    with open(disks[1], "rb") as f:
        assert b"n" * 512 in f.read()


def test_a_reload_goes_on_serving_what_was_removed_or_altered_and_says_so():
    a, b = NQN + "a", NQN + "b"
    conf = path("alter.conf", text=f"[subsystem {a}]\nnamespace = ram:1M\nnamespace = ram:2M\n[subsystem {b}]\nnamespace = ram:1M\n")
    with Liod(args=("--config", conf)) as s:
        with Host(s.address, a) as ha, Host(s.address, b) as hb:
            path("alter.conf", text=f"[subsystem {a}]\nnamespace = ram:3M\n[subsystem {NQN}c]\nnamespace = ram:1M\n"
                 f"[subsystem {b}]\nnamespace = ram:1M\nnamespace = /nowhere\nnamespace = ram:4M\n")
            said = reload(s)
            for nqn, word in ((f"{a} nsid=1 store=ram:1M", "altered"), (f"{a} nsid=2 store=ram:2M", "removed"), (f"{NQN}c", "next start")):
                assert any(f"event=reload-incomplete nqn={nqn} " in line and word in line for line in said), said
            assert any(f"event=reload-failed nqn={b} nsid=2 waiting=1" in line and "/nowhere" in line for line in said), said
            assert [n for n, _ in ha.namespaces()] == [1, 2] and [n for n, _ in hb.namespaces()] == [1]
            assert len(ha.q[0].read(0, 1, ha.block, nsid=2)) == ha.block
            # Numbers stay with places in the file: what waited comes behind what failed.
            path("alter.conf", text=f"[subsystem {b}]\nnamespace = ram:1M\nnamespace = ram:5M\nnamespace = ram:4M\n")
            reload(s)
            pages = [hb.admin.identify(0, n) for n, _ in hb.namespaces()]
            assert [int.from_bytes(p[:8], "little") << p[130] for p in pages] == [1 << 20, 5 << 20, 4 << 20]


def test_a_subsystem_has_no_more_namespaces_than_it_says():
    conf = path("many.conf", text=f"[subsystem {NQN}a]\n" + "namespace = null:1M\n" * 1023)
    with Liod(args=("--config", conf)) as s, Host(s.address, NQN + "a") as h:
        assert int.from_bytes(h.admin.identify(1)[516:520], "little") == 1024
        with open(conf, "a") as f:
            f.write("namespace = null:1M\n" * 2)
        said = reload(s)
        assert any("nsid=1025" in line and "at most 1024" in line for line in said), said
        assert h.admin.identify(2)[4092:] == (1024).to_bytes(4, "little")
        assert len(h.q[0].read(0, 1, h.block, nsid=1024)) == h.block
    refused("--config", conf, says="at most 1024", name="ENOSPC")


def notify_socket():
    where = path("notify")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(where)
    sock.settimeout(20)
    return where, sock


def test_the_service_manager_is_told_when_it_is_ready_and_when_it_stops():
    where, sock = notify_socket()
    with sock:
        s = Liod(env={"NOTIFY_SOCKET": where})
        try:
            assert sock.recv(100) == b"READY=1"
            s.serves()
            assert s.end() == 0
            assert sock.recv(100) == b"STOPPING=1"
        finally:
            s.kill()


def activated(sock, *args):
    """liod with @sock as the service manager passes it: descriptor 3, and its own process id."""
    if sock.fileno() != 3:
        os.dup2(sock.fileno(), 3)
    # The shell keeps its process id through exec.
    return subprocess.Popen(["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@"', LIOD, "--namespace", "ram:1M", *args],
                            pass_fds=(3,), stderr=subprocess.PIPE, text=True)


def in_child(fn):
    """Descriptor 3 may be in use here: do it in a process of its own."""
    pid = os.fork()
    if not pid:
        try:
            fn()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_socket_of_the_service_manager_is_served():
    def child():
        sock = socket.create_server(("127.0.0.1", 0))
        p = activated(sock)
        with Host(sock.getsockname(), "nqn.2026-01.io.lambda-io:liod") as h:
            assert len(h.q[0].read(0, 1, 4096)) == 4096
        p.send_signal(signal.SIGTERM)
        assert p.wait(20) == 0
    in_child(child)


def test_a_socket_of_the_service_manager_beyond_loopback_is_refused():
    def child():
        p = activated(socket.create_server(("0.0.0.0", 0)))
        assert p.wait(20) == 2
        assert "--insecure-network" in p.stderr.read()
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        p = activated(sock)
        assert p.wait(20) == 2
        assert "not a listening TCP socket" in p.stderr.read()
    in_child(child)


def test_ipv6_loopback_is_served():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as e:
        raise Skip(f"no IPv6 here: {e}") from None
    status, out, err = run(LIOD, "--namespace", "ram:1M", "--listen", "[::1]:0", "--run", "echo $LIOD_ADDRESS")
    assert status == 0 and out == b"[::1]\n", (out, err)
    assert re.search(r"listening address=\[::1\]:\d+", err), err


# ---- metrics ----


def with_metrics(**kw):
    s = Liod(args=("--metrics", "127.0.0.1:0"), **kw)
    line = s.said("event=metrics")
    s.http = "http://" + re.search(r"address=(\S+)", line).group(1)
    return s


def scrape(s):
    with urllib.request.urlopen(s.http + "/metrics", timeout=20) as r:
        assert r.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = r.read().decode()
    out = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            key, value = line.rsplit(" ", 1)
            assert key not in out, f"said twice: {key}"
            out[key] = float(value)
    return out


def test_metrics_count_commands_bytes_and_outcomes():
    with with_metrics() as s:
        with s.host() as h:
            for i in range(5):
                h.q[0].write(i, b"x" * h.block, h.block)
            for i in range(7):
                h.q[0].read(0, 2, h.block)
            q = h.q[0]
            cid = q.submit(2, want=h.block, nsid=1, cdw10=0xFFFFFFFF, cdw11=0xFFFFFFFF)
            assert q.wait(cid, check=False).status != 0
            m = scrape(s)
        read, write = 'set="nvm",command="read"', 'set="nvm",command="write"'
        assert m[f'liod_commands_total{{{read},outcome="success"}}'] == 7
        assert m[f'liod_commands_total{{{read},outcome="refused"}}'] == 1
        assert m[f'liod_commands_total{{{write},outcome="success"}}'] == 5
        assert m[f"liod_command_bytes_total{{{read}}}"] == 14 * h.block
        assert m[f"liod_command_bytes_total{{{write}}}"] == 5 * h.block
        buckets = [v for k, v in m.items() if k.startswith(f"liod_command_duration_seconds_bucket{{{read}")]
        assert buckets == sorted(buckets) and buckets[-1] == 8
        assert m[f"liod_command_duration_seconds_count{{{read}}}"] == 8
        assert m[f"liod_command_duration_seconds_sum{{{read}}}"] > 0
        assert m["liod_connections"] == 2
        assert sum(v for k, v in m.items() if k.startswith("liod_io_queues")) == 1
        assert any(k.startswith("liod_namespace_bytes") and v == 64 << 20 for k, v in m.items())


def in_flight(m):
    return sum(v for k, v in m.items() if k.startswith("liod_commands_in_flight"))


def test_the_queue_depth_is_what_waits_and_goes_back_when_a_host_vanishes():
    with with_metrics() as s:
        h = s.host()
        q = h.q[0]
        for i in range(3):  # their data never come
            q.submit(1, out=b"x" * h.block, by_r2t=True, nsid=1, cdw10=i)
        deadline = time.monotonic() + 20
        while in_flight(scrape(s)) != 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert in_flight(scrape(s)) == 3
        for c in h.q + [h.admin]:
            c.reset()
        while scrape(s)["liod_connections"] and time.monotonic() < deadline:
            time.sleep(0.01)
        m = scrape(s)
        assert in_flight(m) == 0
        assert sum(v for k, v in m.items() if k.startswith("liod_io_queues")) == 0
        assert m["liod_connections_accepted_total"] == 2


def test_connections_beyond_the_limit_are_closed_and_counted():
    with with_metrics(config={"max_connections": 3}) as s:
        with s.host() as h:
            third = Conn(s.address)
            try:
                Conn(s.address).close()
                raise AssertionError("a fourth connection was served")
            except (Closed, OSError):
                pass
            assert len(h.q[0].read(0, 1, h.block)) == h.block
            assert scrape(s)['liod_rejections_total{reason="connections"}'] == 1
            third.close()
            deadline = time.monotonic() + 20
            while scrape(s)["liod_connections"] > 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            Conn(s.address).close()


def test_http_serves_metrics_and_nothing_else():
    with with_metrics() as s:
        for where, method, want in (("/", "GET", 404), ("/metrics", "POST", 405), ("/../etc/passwd", "GET", 404)):
            try:
                urllib.request.urlopen(urllib.request.Request(s.http + where, method=method), timeout=20)
                raise AssertionError(f"{method} {where} was served")
            except urllib.error.HTTPError as e:
                assert e.code == want
                e.close()
        scrape(s)


def test_a_log_that_nobody_reads_stops_nothing():
    """A pipe is full after 64 KiB; hosts come, work and go all the same, and the log says what it lost."""
    proc = subprocess.Popen([LIOD, "--listen", "127.0.0.1:0", "--nqn", NQN, "--namespace", "ram:1M"], stderr=subprocess.PIPE)
    try:
        address = None
        while not address:
            m = re.search(rb"listening address=127\.0\.0\.1:(\d+)", proc.stderr.readline())
            address = ("127.0.0.1", int(m.group(1))) if m else None
        for i in range(6000):  # two lines each, and 1 MiB of lines may wait
            with Queue(address) as q:
                q.connect(NQN, hostid=struct.pack("<Q8x", i + 1))
        with Host(address, NQN) as h:
            assert len(h.q[0].read(0, 1, h.block)) == h.block
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(proc.stderr), daemon=True)
        reader.start()
        proc.terminate()
        assert proc.wait(60) == 0
        reader.join(30)
        assert any(b"event=log-full lines_lost=" in x for x in lines), lines[-3:]
        assert b"event=stopped" in lines[-1], lines[-3:]
    finally:
        proc.kill()
        proc.wait()


if __name__ == "__main__":
    tap.main()
