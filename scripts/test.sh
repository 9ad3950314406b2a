#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that must hold, in one run; the last line is "N passed, N failed".
#   scripts/test.sh [quick]      quick: the gcc build alone
# FUZZ_SECONDS (default 20) is spent on each fuzz target.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
fuzz_seconds=${FUZZ_SECONDS:-20}
passed=0 failed=0 skipped=0
only=() # arguments of meson test that choose suites

ok() {
	passed=$((passed + 1))
	echo "ok - $1"
}
not_ok() {
	failed=$((failed + 1))
	echo "not ok - $1"
}
check() { # check TITLE COMMAND...
	local title=$1 log
	shift
	log=$(mktemp)
	if "$@" >"$log" 2>&1; then ok "$title"; else
		tail -n 40 "$log"
		not_ok "$title"
	fi
	rm -f "$log"
}

# Configure once, build, run the suites, and add up their TAP lines.
suite() { # suite DIR TITLE [MESON ARGS...]
	local dir=$1 title=$2 log
	shift 2
	log=$(mktemp)
	if [ ! -f "$dir/build.ninja" ]; then
		meson setup "$dir" "$@" >"$log" 2>&1 || {
			tail -n 40 "$log"
			not_ok "$title configures"
			return
		}
	fi
	if ! ninja -C "$dir" >"$log" 2>&1; then
		tail -n 60 "$log"
		not_ok "$title builds without a warning"
		return
	fi
	ok "$title builds without a warning"
	rm -f "$dir/meson-logs/testlog.junit.xml"
	meson test -C "$dir" --no-rebuild --num-processes "$(nproc)" "${only[@]}" >"$log" 2>&1 || tail -n 80 "$log"
	local counts
	if ! counts=$(python3 scripts/count-tests.py "$dir/meson-logs/testlog.junit.xml"); then
		tail -n 40 "$log"
		not_ok "$title: the tests ran"
		return
	fi
	echo "$counts" | sed '$d'
	read -r p f s <<<"$(echo "$counts" | tail -n 1)"
	echo "$title: $p passed, $f failed, $s skipped"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	rm -f "$log"
}

# What the repository holds, also where another user owns it (sudo, a mounted directory) or without git.
sources() { # sources PATTERN...
	if [ -e .git ]; then
		git -c safe.directory='*' ls-files -z "$@"
	else
		local find=(find . -path './build*' -prune -o -false) p
		for p; do find+=(-o -name "$p" -print0); done
		"${find[@]}"
	fi
}
formatted() {
	sources '*.c' '*.h' | xargs -0 clang-format-19 --dry-run -Werror
}
headed() { # every source file says its licence
	local f n=0 bad=0
	while IFS= read -rd '' f; do
		n=$((n + 1))
		head -n 4 "$f" | grep -q SPDX-License-Identifier || { echo "no SPDX line: $f"; bad=1; }
	done < <(sources '*.c' '*.h' '*.py' '*.sh' '*.build' Makefile)
	[ $n -gt 0 ] && return $bad
}
installs() { # what is installed works from where it was put
	local d
	d=$(mktemp -d)
	DESTDIR=$d meson install -C build --no-rebuild --quiet &&
		printf 'a\nb\n' >"$d/in" && [ "$("$d/usr/local/bin/lio" run count "$d/in" --raw | wc -c)" = 24 ] &&
		"$d/usr/local/bin/lio" cc functions/count.c -o "$d/count.o" &&
		PKG_CONFIG_PATH=$(dirname "$(find "$d" -name liblambdaio.pc)") pkg-config --exists liblambdaio
	local rc=$?
	rm -rf "$d"
	return $rc
}
fuzzes() { # fuzzes DIR TARGET
	local corpus
	corpus=$(mktemp -d)
	"$1/tests/fuzz/$2" -max_total_time="$fuzz_seconds" -rss_limit_mb=4096 -timeout=20 \
		-artifact_prefix="$1/" "$corpus" "tests/fuzz/corpus/$2"
	local rc=$?
	rm -rf "$corpus"
	return $rc
}

check "the sources are formatted" formatted
check "every source file names its licence" headed
suite build gcc
check "an installed tree works where it was put" installs
if [ "${1:-}" != quick ]; then
	CC=clang-19 suite build-clang clang-19
	suite build-asan "gcc with ASan and UBSan" -Db_sanitize=address,undefined -Db_lundef=false \
		-Dbuildtype=debugoptimized
	if [ -f build/aarch64/root.cross ]; then
		export LAMBDA_ROUNDS=200 SBPF_ONE_IN=10 # an emulator is slow
		only=(--suite unit --suite conformance --suite differential --suite hostile)
		suite build-aarch64 "aarch64 under qemu-user" --cross-file build/aarch64/root.cross \
			--cross-file scripts/aarch64.cross
		unset LAMBDA_ROUNDS SBPF_ONE_IN
		only=()
	else
		echo "skipped - aarch64 under qemu-user: not set up; run scripts/setup.sh --aarch64"
		skipped=$((skipped + 1))
	fi
	if [ ! -f build-fuzz/build.ninja ]; then
		CC=clang-19 meson setup build-fuzz -Dfuzz=true -Db_lundef=false -Dbuildtype=debugoptimized \
			>build-fuzz.log 2>&1 || cat build-fuzz.log
		rm -f build-fuzz.log
	fi
	targets=(tests/fuzz/fuzz_*.c)
	targets=("${targets[@]%.c}")
	check "the fuzz targets build" ninja -C build-fuzz "${targets[@]}"
	for t in "${targets[@]}"; do
		check "$(basename "$t") finds nothing in ${fuzz_seconds} s" fuzzes build-fuzz "$(basename "$t")"
	done
fi

echo "$passed passed, $failed failed$([ $skipped = 0 ] || echo ", $skipped skipped")"
[ $failed = 0 ]
