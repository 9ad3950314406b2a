#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build, make real input, run functions over it and check every answer.  SF=1 for a larger lineitem table.
set -euo pipefail
cd "$(dirname "$0")/.."
make --no-print-directory all
exec build/venv/bin/python scripts/demo.py "${SF:-0.1}"
