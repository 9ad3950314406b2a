#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build, then measure beside the alternatives; results in bench/results/.  UBPF=DIR adds uBPF.
# Arguments go to bench/run.py; bench/device.py, which follows, measures the storage server.
set -euo pipefail
cd "$(dirname "$0")/.."
make --no-print-directory all
build/venv/bin/python bench/run.py "$@"
build/venv/bin/python bench/device.py
