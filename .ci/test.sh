#!/usr/bin/env bash
# The test command of the README, with the benchmarks' peers and Criterion suite, which are behind
# features and have tests of their own. mimalloc needs a C compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
# Taken from the README, so that a newcomer runs what this runs.
command=$(sed -n "s/^\(cargo test[^#]*[^# ]\) *#.*/\1/p" README.md)
[ -n "$command" ] || { echo "the README names no test command" >&2; exit 1; }
command+=" --features sexton-bench/peers,sexton-bench/criterion"
echo "+ $command"
$command
# Each question of the Criterion suite is asked once.
cargo test --locked --workspace --features sexton-bench/peers,sexton-bench/criterion \
    --bench questions
