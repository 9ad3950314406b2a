#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build, then measure beside the alternatives; results in bench/results/.  UBPF=DIR adds uBPF.
set -euo pipefail
cd "$(dirname "$0")/.."
make --no-print-directory all
exec build/venv/bin/python bench/run.py "$@"
