#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pack an initramfs of this build's own programs: pack-tests.py OUTPUT INIT BUSYBOX PATH[=NAME]...

Each PATH (a program or a file) becomes /t/NAME (its last part by default).  Programs bring the libraries that this
machine's loader finds for them, since a guest's are others.
"""
import os
import subprocess
import sys
import zlib

from pack import Archive


def libraries(program):
    """Paths by name, the loader included; none for what is no program."""
    out = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    found = {}
    for line in out.splitlines():
        path = line.split("=>")[-1].split("(")[0].strip()
        if path.startswith("/") and os.path.exists(path):
            found[path if "=>" not in line else "usr/lib/" + line.split("=>")[0].strip()] = os.path.realpath(path)
    return found


def main(output, init, busybox, *paths):
    ar, made, libs = Archive(), set(), {}

    def folder(path):
        if path and path not in made:
            folder(os.path.dirname(path))
            made.add(path)
            ar.add(path, 0o40755)

    def file(name, path):
        folder(os.path.dirname(name))
        with open(path, "rb") as f:
            ar.add(name, 0o100755, f.read())

    for d in ["dev", "proc", "sys", "tmp", "bin", "lib64", "usr/lib"]:
        folder(d)
    ar.add("dev/console", 0o20600, rdev=(5, 1))
    file("init", init)
    file("bin/busybox", busybox)
    for item in paths:
        path, _, name = item.partition("=")
        file("t/" + (name or os.path.basename(path)), path)
        if os.access(path, os.X_OK):
            libs.update(libraries(path))
    for name, path in libs.items():
        file(name.lstrip("/"), path)
    ar.add("TRAILER!!!", 0)
    packer = zlib.compressobj(1, wbits=31)
    with open(output + ".new", "wb") as f:
        f.write(packer.compress(ar.out) + packer.flush())
    os.rename(output + ".new", output)


if __name__ == "__main__":
    main(*sys.argv[1:])
