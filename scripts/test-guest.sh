#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A stock Linux guest (QEMU, no KVM needed) uses liod as its disk; the last line is "N passed, N failed".
# Then our own host uses the guest's kernel as its target.
#   scripts/test-guest.sh            TOOLS=DIR (default build/tools), GUEST=DIR (default build/guest)
# The guest (Debian 13's kernel and tools) is made once, in half a minute; a run takes some minutes.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
tools=${TOOLS:-build/tools}
guest=${GUEST:-build/guest}
seconds=${GUEST_SECONDS:-1500} # for all of it
nqn=nqn.2026-01.io.lambda:guest

for tool in liod lio; do
	[ -x "$tools/$tool" ] || {
		echo "test-guest: $tools/$tool is not there; build first" >&2
		exit 2
	}
done
for tool in qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap readelf:binutils; do
	command -v "${tool%:*}" >/dev/null || {
		echo "test-guest: ${tool%:*} is missing; install the package ${tool#*:}" >&2
		exit 2
	}
done
scripts/guest/image.sh "$guest" || exit 2

work=$(mktemp -d)
server=0 port=0 qemu='' passed=0 failed=0 here=0 here_failed=0
start() { # start PORT: the server's process in $server, its port in $port
	: >"$work/log"
	"$tools/liod" --listen "127.0.0.1:$1" --nqn "$nqn" --namespace "$work/a" --namespace "$work/b" \
		2> >(tee -a "$work/all" >"$work/log") &
	server=$!
	local i
	for i in $(seq 100); do
		port=$(sed -n 's/.*listening address=127\.0\.0\.1:\([0-9]*\).*/\1/p' "$work/log" | head -n 1)
		[ -n "$port" ] && return 0
		kill -0 "$server" 2>/dev/null || break
		sleep 0.1
	done
	cat "$work/log"
	return 1
}
stop() { # stop SIGNAL
	[ "$server" = 0 ] || kill -s "$1" "$server" 2>/dev/null
	wait "$server" 2>/dev/null
	return 0
}
check() { # check TITLE COMMAND...: a promise that is tested on this side
	local title=$1
	shift
	if "$@" >"$work/check" 2>&1; then
		here=$((here + 1))
		echo "ok - $title"
	else
		here_failed=$((here_failed + 1))
		sed 's/^/# /' "$work/check" | tail -n 20
		echo "not ok - $title"
	fi
}
uses_nvmet() { # the guest's kernel is the target; NQN and NSID 1 (32 MiB) as scripts/guest/init makes them
	local at=(127.0.0.1:"$forward" --nqn nqn.2026-01.io.lambda:nvmet) options
	head -c 8M /dev/urandom >"$work/bytes"
	check 'lio device shows nvmet' "$tools/lio" device "${at[@]}"
	for options in '' --digest; do
		check "lio device write to nvmet $options" \
			"$tools/lio" device write "${at[@]}" --offset 1M $options <"$work/bytes"
		check "lio device read from nvmet $options gives it back" \
			bash -c '"$@" | cmp - "$0"' "$work/bytes" "$tools/lio" device read "${at[@]}" --offset 1M --length 8M $options
	done
}
finish() {
	stop KILL
	[ -z "$qemu" ] || kill "$qemu" 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 2' INT TERM

forward=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
truncate -s 256M "$work/a"
truncate -s 512M "$work/b"
start 0 || {
	echo "test-guest: the server does not start" >&2
	exit 2
}
coproc QEMU {
	exec nice -n 10 timeout --foreground "$seconds" qemu-system-x86_64 -accel tcg,thread=multi -cpu max,-cx16 -smp 2 -m 1G \
		-nodefaults -display none -no-reboot -serial stdio -monitor none \
		-netdev "user,id=n,hostfwd=tcp:127.0.0.1:$forward-10.0.2.15:4420" -device virtio-net-pci,netdev=n,romfile= \
		-device isa-debug-exit,iobase=0xf4,iosize=0x04 \
		-kernel "$guest/vmlinuz" -initrd "$guest/initrd" \
		-append "console=ttyS0 quiet panic=-1 port=$port nqn=$nqn" 2>&1
}
qemu=$QEMU_PID to=${QEMU[1]} finished=
while IFS= read -r line <&"${QEMU[0]}"; do
	line=${line%$'\r'}
	case $line in
	"ok - "*) passed=$((passed + 1)) ;;
	"not ok - "*) failed=$((failed + 1)) ;;
	"@kill") stop KILL && sleep 2 && start "$port" && echo done >&"$to" || echo failed >&"$to" ;;
	"@restart") stop TERM && start "$port" && echo done >&"$to" || echo failed >&"$to" ;;
	"@drain")
		kill -s TERM "$server"
		wait "$server"
		echo "# exit status $? after SIGTERM"
		start "$port" && echo done >&"$to" || echo failed >&"$to"
		;;
	@nvmet) uses_nvmet && echo done >&"$to" ;;
	"@finished $passed $failed") finished=yes ;;
	esac
	echo "$line"
done
wait "$qemu" 2>/dev/null
code=$?
if [ "$code" != 33 ] || [ -z "$finished" ]; then # 33: (0x10 << 1 | 1), written by the guest's last act
	echo "not ok - the guest ran to its end (QEMU's exit status $code)"
	failed=$((failed + 1))
	tail -n 30 "$work/all"
fi
passed=$((passed + here)) failed=$((failed + here_failed))
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
