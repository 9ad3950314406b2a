#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The kernel engine's tests on another kernel: that of a stock Debian guest (QEMU, no KVM needed); the last line is "N passed, N failed".
#   scripts/test-guest-kernel.sh     BUILD=DIR (default build), GUEST=DIR (default build/guest)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
build=${BUILD:-build}
guest=${GUEST:-build/guest}
seconds=${GUEST_SECONDS:-1500} # for all of it

for tool in qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap; do
	command -v "${tool%:*}" >/dev/null || {
		echo "test-guest-kernel: ${tool%:*} is missing; install the package ${tool#*:}" >&2
		exit 2
	}
done
files=("$build/tools/lio" "$build/tests/unit/test-arena" "$build/tests/differential/test-kernel_random"
	"$build/tests/differential/test-lambda-run" "$build/tests/hostile/test-hostile-raw" "$build/tests/hostile/test-hostile-programs"
	"$build/tests/hostile/programs.o" tests/hostile/programs.bpf.c)
for object in "$build"/functions/*.o; do files+=("$object=functions/${object##*/}"); done
for object in "$build"/tests/differential/bpf/*.o; do files+=("$object=bpf/${object##*/}"); done
for file in "${files[@]}"; do
	[ -e "${file%%=*}" ] || {
		echo "test-guest-kernel: ${file%%=*} is not there; build first" >&2
		exit 2
	}
done
scripts/guest/image.sh "$guest" || exit 2
busybox=$(ls "$guest"/root/usr/bin/busybox "$guest"/root/bin/busybox 2>/dev/null | head -n 1)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 2' INT TERM
PYTHONDONTWRITEBYTECODE=1 scripts/guest/pack-tests.py "$work/initrd" scripts/guest/init-kernel "$busybox" "${files[@]}" || exit 2
nice -n 10 timeout --foreground "$seconds" qemu-system-x86_64 -accel tcg,thread=multi -cpu max,-cx16 -smp 2 -m 2G \
	-nodefaults -display none -no-reboot -serial stdio -monitor none -device isa-debug-exit,iobase=0xf4,iosize=0x04 \
	-kernel "$guest/vmlinuz" -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1" </dev/null 2>&1 |
	sed -u 's|\r$||' | tee "$work/log"
code=${PIPESTATUS[0]} passed=0 failed=1
finished=$(sed -n 's/^@finished \([0-9]* [0-9]*\)$/\1/p' "$work/log")
if [ "$code" = 33 ] && [ -n "$finished" ]; then # 33: (0x10 << 1 | 1), written by the guest's last act
	read -r passed failed <<<"$finished"
else
	echo "not ok - the guest ran to its end (QEMU's exit status $code)"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
