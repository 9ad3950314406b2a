#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install what building, testing, the demo and the benchmark need, by package name.
# Does nothing, quickly, where all of it is there.  --python also makes build/venv (demo and bench);
# --guest: also what test-guest needs; --aarch64: also a cross compiler, arm64 libraries and qemu-user.
set -euo pipefail
cd "$(dirname "$0")/.."

build=(build-essential meson ninja-build pkg-config git clang-19 libelf-dev libssl-dev libxxhash-dev
	libzstd-dev zlib1g-dev libjson-c-dev libisal-dev liburing-dev libmicrohttpd-dev libseccomp-dev libfuse3-dev scdoc python3 python3-venv llvm-19-dev)
check=(libcmocka-dev clang-format-19 libclang-rt-19-dev clang-14 clang-16 llvm-19 zstd xxhash)
measure=(lld-19 ripgrep openssl nbdkit libnbd-bin fio iproute2 rsync)
guest=(qemu-system-x86 mmdebstrap)
aarch64=(gcc-aarch64-linux-gnu qemu-user {libelf,libssl,libxxhash,libzstd,zlib1g,libjson-c}-dev:arm64
	{liburing,libmicrohttpd,libcmocka,libseccomp}-dev:arm64)
venv=(tpchgen-cli duckdb wasmtime matplotlib)

want=("${build[@]}" "${check[@]}" "${measure[@]}")
[ "${1:-}" != --guest ] || want+=("${guest[@]}")
[ "${1:-}" != --aarch64 ] || want+=("${aarch64[@]}")
missing=()
native=$(dpkg --print-architecture)
for p in "${want[@]}"; do
	arch=$native
	[ "$p" = "${p%:*}" ] || arch=${p##*:}
	dpkg-query -W -f='${Architecture} ${db:Status-Status}\n' "$p" 2>/dev/null |
		grep -Eqx "(all|$arch) installed" || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
	run=()
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || {
			echo "setup: cannot install ${missing[*]}: not root and no sudo; run this as root" >&2
			exit 2
		}
		run=(sudo)
	fi
	echo "setup: installing ${missing[*]}"
	[ "${1:-}" != --aarch64 ] || "${run[@]}" dpkg --add-architecture arm64
	"${run[@]}" apt-get -qq update
	"${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
		"${missing[@]}" >/dev/null
fi

if [ "${1:-}" = --python ]; then
	if [ "$(cat build/venv/.packages 2>/dev/null)" != "${venv[*]}" ]; then
		echo "setup: making build/venv with ${venv[*]}"
		mkdir -p build
		python3 -m venv build/venv
		build/venv/bin/pip install --quiet --disable-pip-version-check "${venv[@]}"
		echo "${venv[*]}" >build/venv/.packages
	fi
fi

# The packages of ISA-L for two architectures cannot be installed side by side; see scripts/aarch64.cross.
if [ "${1:-}" = --aarch64 ] && [ ! -f build/aarch64/root.cross ]; then
	echo "setup: unpacking libisal for arm64 in build/aarch64"
	mkdir -p build/aarch64
	cd build/aarch64
	apt-get -qq -o APT::Sandbox::User=root download libisal-dev:arm64 libisal2:arm64
	for p in libisal*_arm64.deb; do
		dpkg-deb -x "$p" .
	done
	sed -i "s|^prefix=.*|prefix=$PWD/usr|" usr/lib/aarch64-linux-gnu/pkgconfig/libisal.pc
	echo "[constants]
root = '$PWD'" >root.cross
fi
