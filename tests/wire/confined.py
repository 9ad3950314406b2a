#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""confined.py UNIT COMMAND...: become COMMAND with those of a systemd unit's restrictions that need no systemd: its system call
filter, address families, MemoryDenyWriteExecute, another user without capabilities, no new privileges.
"""
import ctypes
import os
import re
import struct
import subprocess
import sys

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, EPERM, EAFNOSUPPORT = 0x7FFF0000, 0x00050001, 0x00050061
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
USER = 61234  # of those that systemd gives
libc = ctypes.CDLL(None, use_errno=True)


def settings(unit, key):
    with open(unit) as f:
        return [line.split("=", 1)[1].split() for line in f if line.startswith(key + "=")]


def expand(name):
    """A name, or the members of a set of systemd's."""
    if not name.startswith("@"):
        return {name}
    text = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True).stdout
    members = [line.strip() for line in text.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return set().union(*(expand(m) for m in members))


def allowed(unit):
    names = expand("@default")
    for line in settings(unit, "SystemCallFilter"):
        if line[0].startswith("~"):
            line = [line[0][1:], *line[1:]]
            names -= set().union(*(expand(n) for n in line))
        else:
            names |= set().union(*(expand(n) for n in line))
    return names


def numbers():
    text = subprocess.run(["cc", "-E", "-dM", "-include", "asm/unistd.h", "-x", "c", os.devnull], capture_output=True, text=True,
                          check=True).stdout
    return {m[1]: int(m[2]) for m in re.finditer(r"#define __NR_(\w+) (\d+)$", text, re.M)}


def program(unit):
    """Classic BPF over struct seccomp_data: nr at 0, arch at 4, the first argument's low half at 16 (little-endian)."""
    nr = numbers()
    families = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, ARCH[os.uname().machine]), (RETURN, 0, 0, EPERM), (LOAD, 0, 0, 0)]
    names = [families[f] for line in settings(unit, "RestrictAddressFamilies") for f in line]
    if names:
        code += [(EQUAL, 0, 2 * len(names) + 2, nr["socket"]), (LOAD, 0, 0, 16)]
        for family in names:
            code += [(EQUAL, 0, 1, family), (RETURN, 0, 0, ALLOW)]
        code += [(RETURN, 0, 0, EAFNOSUPPORT)]
    for name in sorted(allowed(unit) & nr.keys()):
        code += [(EQUAL, 0, 1, nr[name]), (RETURN, 0, 0, ALLOW)]
    code.append((RETURN, 0, 0, EPERM))
    return b"".join(struct.pack("<HBBI", *c) for c in code), len(code)


def prctl(*args):
    return libc.prctl(*(ctypes.c_ulong(a) for a in args))


def drop_rights():
    """As with DynamicUser= and CapabilityBoundingSet=, where we are one who can."""
    if os.geteuid():
        return
    for cap in range(64):
        prctl(24, cap, 0, 0, 0)  # PR_CAPBSET_DROP
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


def main():
    unit, command = sys.argv[1], sys.argv[2:]
    if not settings(unit, "SystemCallFilter"):
        sys.exit(f"confined: {unit} has no filter")
    code, length = program(unit)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = ctypes.create_string_buffer(struct.pack("<H6xQ", length, ctypes.addressof(buffer)))
    drop_rights()
    if prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        sys.exit("confined: no_new_privs is refused")
    if settings(unit, "MemoryDenyWriteExecute") == [["yes"]]:
        prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE, since Linux 6.3
    if libc.prctl(22, 2, fprog, 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        sys.exit("confined: no filter can be installed")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
