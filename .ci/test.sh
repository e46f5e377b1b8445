#!/usr/bin/env bash
# The test command of the README.
set -euo pipefail
cd "$(dirname "$0")/.."
# Taken from the README, so that a newcomer runs what this runs.
command=$(sed -n "s/^\(cargo test[^#]*[^# ]\) *#.*/\1/p" README.md)
[ -n "$command" ] || { echo "the README names no test command" >&2; exit 1; }
echo "+ $command"
$command
