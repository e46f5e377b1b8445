#!/usr/bin/env bash
# Fuzzes op programs for the given seconds (default 60) and keeps what it learns in fuzz/corpus. Not
# part of `.ci/run`: it needs a C++ compiler, and what it finds in a minute is luck. What it finds
# is left in fuzz/artifacts; further arguments go to libFuzzer, so `.ci/fuzz.sh 0 FILE` runs one
# such file again, and with SEXTON_SHOW=1 prints it. Does without cargo-fuzz; the flags are the
# same.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds="${1:-60}"
shift || true
host=$(rustc -vV | sed -n 's/^host: //p')
# The sanitizer and the coverage passes are not stable; the code itself is.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Ccodegen-units=1"
# A target of its own, so that build scripts and macros are built without the flags.
cargo build --locked --release --target "$host"
target="${CARGO_TARGET_DIR:-target}/$host/release/ops"
mkdir -p corpus/ops artifacts/ops
if [ "$seconds" -gt 0 ]; then
    set -- -max_total_time="$seconds" -max_len=1200 -print_final_stats=1 "$@" corpus/ops
fi
exec "$target" -artifact_prefix=artifacts/ops/ "$@"
