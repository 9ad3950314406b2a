# SPDX-License-Identifier: Apache-2.0
"""Two machines on one: network namespaces "host" and "device", a link of limited rate between them, a core each.

What runs on either side goes through host() or device(), which put the namespace and the core in front of a command.  Needs
root; says so politely.  Everything is gone when the `with` ends, also after an error.
"""
import os
import subprocess
import sys

HOST_IP, DEVICE_IP = "10.77.83.1", "10.77.83.2"


class Testbed:
    """@mbit: rate of the link in each direction, 0: not limited.  Core 0 is the host's, core 1 the device's."""

    def __init__(self, mbit=0):
        self.mbit, self.tag = mbit, f"lio{os.getpid() % 100000}"
        self.ns = {"host": self.tag + "h", "device": self.tag + "d"}

    def __enter__(self):
        if os.geteuid():
            sys.exit("testbed: network namespaces need root; run it with sudo")
        if os.cpu_count() < 2:
            sys.exit("testbed: needs two cores, one for each side")
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def _build(self):
        for ns in self.ns.values():
            self._ip("netns", "add", ns)
        self._ip("link", "add", self.tag + "h0", "netns", self.ns["host"], "type", "veth", "peer", "name", self.tag + "d0", "netns",
                 self.ns["device"])
        for side, ip in (("host", HOST_IP), ("device", DEVICE_IP)):
            dev = self.tag + side[0] + "0"
            self._ip("-n", self.ns[side], "addr", "add", ip + "/30", "dev", dev)
            self._ip("-n", self.ns[side], "link", "set", dev, "up")
            self._ip("-n", self.ns[side], "link", "set", "lo", "up")
        self.limit(self.mbit)

    def limit(self, mbit):
        """Change the rate, also under traffic."""
        self.mbit = mbit
        for side in ("host", "device"):
            dev, at = self.tag + side[0] + "0", ["ip", "netns", "exec", self.ns[side], "tc", "qdisc"]
            subprocess.run([*at, "del", "dev", dev, "root"], capture_output=True)
            if mbit:
                # A burst of 1 ms at the rate (at least one large segment), and 20 ms of queue.
                self._run(*at, "add", "dev", dev, "root", "tbf", "rate", f"{mbit}mbit", "burst", str(max(131072, mbit * 125)),
                          "latency", "20ms")

    def _remove(self):
        for ns in self.ns.values():
            subprocess.run(["ip", "netns", "del", ns], capture_output=True)

    def __exit__(self, *exc):
        self._remove()

    def _run(self, *argv):
        p = subprocess.run(argv, capture_output=True, text=True)
        if p.returncode:
            raise RuntimeError(f"{' '.join(argv)}: {p.stderr.strip()}")

    def _ip(self, *argv):
        self._run("ip", *argv)

    def host(self, *argv, core=0):
        return ["ip", "netns", "exec", self.ns["host"], "taskset", "-c", str(core), *map(str, argv)]

    def device(self, *argv, core=1):
        return ["ip", "netns", "exec", self.ns["device"], "taskset", "-c", str(core), *map(str, argv)]
