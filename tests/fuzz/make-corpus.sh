#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make corpus/fuzz_elf anew: small objects that between them hold everything the loader knows.
set -eu
cd "$(dirname "$0")"
out=corpus/fuzz_elf
mkdir -p "$out"
object() { # object NAME CLANG SOURCE FLAGS...
	name=$1 clang=$2 source=$3
	shift 3
	# Only .BTF is read; DWARF would be most of the file.
	"$clang" -target bpf -O2 -ffreestanding -fdebug-compilation-dir=. -I../../include "$@" -c "../unit/bpf/$source.c" -o "$out/$name.o"
	llvm-strip-19 --strip-debug --keep-section=.BTF --keep-section=.BTF.ext "$out/$name.o"
}
object layout-v1 clang-14 layout -mcpu=v1 -fcommon
object layout-v4 clang-19 layout -mcpu=v4 -g
object plain clang-16 plain -mcpu=v3
object notes clang-19 notes -mcpu=v3 -g
object pointers clang-19 refused -mcpu=v3 -DFUNCTION_TABLE
object constructor clang-19 refused -mcpu=v3 -DCONSTRUCTOR
