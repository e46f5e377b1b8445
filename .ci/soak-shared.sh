#!/usr/bin/env bash
# The stress test of a shared heap for the given minutes (default 30), optimised, with debug
# assertions. Not part of `.ci/run`. It tells every minute how far it is; a failure prints a seed,
# which SEXTON_SEED begins with.
set -euo pipefail
cd "$(dirname "$0")/.."
export SEXTON_MINUTES="${1:-30}"
RUSTFLAGS="-C debug-assertions" cargo test --locked --release --target-dir target/soak \
    -p sexton-tests --test it -- --nocapture shared_stress::
