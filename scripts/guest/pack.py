#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pack an initramfs: pack.py ROOT OUTPUT INIT "PROGRAM..." "MODULE..."

ROOT is an unpacked Debian.  What goes in: busybox, the named programs with every library they need, the
named kernel modules with every module those need, and INIT as /init.
"""
import lzma
import os
import subprocess
import sys
import zlib

PLACES = ["usr/bin", "usr/sbin"]
LIBRARIES = ["usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/ceph", "usr/lib", "usr/lib64"]


def find(root, name, places):
    for place in places:
        path = f"{root}/{place}/{name}"
        if os.path.exists(path):
            return os.path.realpath(path)
    raise SystemExit(f"guest: {name} is not in {root}; remove that directory to have it made anew")


def needed(path):
    """The libraries and the loader that an ELF file names."""
    out = subprocess.run(["readelf", "-W", "-d", "-l", path], capture_output=True, text=True, check=True).stdout
    names = [line.split("[")[1].rstrip("]") for line in out.splitlines() if "(NEEDED)" in line]
    names += [line.split(": ")[1].rstrip("]").split("/")[-1] for line in out.splitlines() if "interpreter:" in line]
    return names


def with_libraries(root, programs):
    todo, seen = [find(root, p, PLACES) for p in programs], {}
    for path in todo:
        for name in needed(path):
            if name not in seen:
                seen[name] = find(root, name, LIBRARIES)
                todo.append(seen[name])
    return seen


def with_dependencies(root, version, modules):
    """Paths below the module directory, by module name, of these and of what they depend on."""
    tree, paths = f"{root}/usr/lib/modules/{version}", {}
    for folder, _, files in os.walk(f"{tree}/kernel"):
        for f in files:
            paths[f.split(".ko")[0].replace("-", "_")] = os.path.join(folder, f)
    chosen, todo = {}, [m.replace("-", "_") for m in modules]
    for m in todo:
        if m in chosen or m not in paths:  # not a module: built in
            continue
        with open(paths[m], "rb") as f:
            raw = f.read()
        raw = lzma.decompress(raw) if paths[m].endswith(".xz") else raw
        chosen[m] = (paths[m][len(root) + 1:], raw)
        depends = raw[raw.index(b"\0depends=") + 9:].split(b"\0")[0].decode()
        todo += [d.replace("-", "_") for d in depends.split(",") if d]
    return chosen


class Archive:
    """cpio, the "newc" format."""

    def __init__(self):
        self.out, self.ino = bytearray(), 0

    def add(self, name, mode, data=b"", rdev=(0, 0)):
        self.ino += 1
        head = [self.ino, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(name) + 1, 0]
        self.out += b"070701" + b"".join(b"%08X" % v for v in head) + name.encode() + b"\0"
        self.out += b"\0" * (-len(self.out) % 4) + data
        self.out += b"\0" * (-len(self.out) % 4)


def main(root, output, init, programs, modules):
    root, version = os.path.realpath(root), os.listdir(f"{root}/usr/lib/modules")[0]
    ar = Archive()
    for d in ["dev", "proc", "sys", "run", "tmp", "mnt", "etc", "etc/nvme", "usr", "usr/bin", "usr/sbin", "usr/lib",
              "usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/lib/modules", "usr/share", "usr/share/xfsprogs"]:
        ar.add(d, 0o40755)
    for link, to in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")]:
        ar.add(link, 0o120777, to.encode())
    ar.add("dev/console", 0o20600, rdev=(5, 1))

    def file(name, path):
        with open(path, "rb") as f:
            ar.add(name, 0o100755, f.read())

    file("init", init)
    for p in programs + ["busybox"]:
        file(f"usr/bin/{p}", find(root, p, PLACES))
    for name, path in with_libraries(root, programs).items():
        file(f"usr/{'lib64' if name.startswith('ld-linux') else 'lib/x86_64-linux-gnu'}/{name}", path)
    file("etc/mke2fs.conf", f"{root}/etc/mke2fs.conf")
    made = {"usr/lib/modules"}
    for path, raw in with_dependencies(root, version, modules).values():
        folder = os.path.dirname(path)
        for i in range(4, folder.count("/") + 2):
            d = "/".join(folder.split("/")[:i])
            if d not in made:
                made.add(d)
                ar.add(d, 0o40755)
        ar.add(path.removesuffix(".xz"), 0o100644, raw)
    for f in ["modules.order", "modules.builtin", "modules.builtin.modinfo"]:
        file(f"usr/lib/modules/{version}/{f}", f"{root}/usr/lib/modules/{version}/{f}")
    ar.add("TRAILER!!!", 0)
    packer = zlib.compressobj(1, wbits=31)
    with open(output + ".new", "wb") as f:
        f.write(packer.compress(ar.out) + packer.flush())
    os.rename(output + ".new", output)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split(), sys.argv[5].split())
