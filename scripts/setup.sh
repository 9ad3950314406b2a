#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install what building, testing, the demo and the benchmark need, by package name.
# Does nothing, quickly, where all of it is there.  --python also makes build/venv (demo and bench);
# --guest: also what test-guest needs.
set -euo pipefail
cd "$(dirname "$0")/.."

build=(build-essential meson ninja-build pkg-config git clang-19 libelf-dev libssl-dev libxxhash-dev
	libzstd-dev zlib1g-dev libjson-c-dev libisal-dev liburing-dev libmicrohttpd-dev scdoc python3 python3-venv llvm-19-dev)
check=(libcmocka-dev clang-format-19 libclang-rt-19-dev clang-14 clang-16 llvm-19 zstd xxhash)
measure=(lld-19 ripgrep openssl nbdkit fio)
guest=(qemu-system-x86 mmdebstrap)
venv=(tpchgen-cli duckdb wasmtime matplotlib)

want=("${build[@]}" "${check[@]}" "${measure[@]}")
[ "${1:-}" != --guest ] || want+=("${guest[@]}")
missing=()
for p in "${want[@]}"; do
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
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
