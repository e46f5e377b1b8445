#!/usr/bin/env bash
# Op programs against the oracle, the long way: a hundred million operations, or as many as the
# first argument says, optimised but with debug assertions. Not part of `.ci/run`, which runs
# 200,000; takes ten minutes or so. A failure names its seed; `SEXTON_SEED=seed` in front of this
# command runs that program again.
set -euo pipefail
cd "$(dirname "$0")/.."
SEXTON_OPS="${1:-100000000}" RUSTFLAGS="-C debug-assertions" \
    cargo test --locked --release --target-dir "${CARGO_TARGET_DIR:-target}/ops" \
    -p sexton-tests --test it -- program:: --nocapture
