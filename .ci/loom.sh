#!/usr/bin/env bash
# The loom models of the protocols, and the mutants that loom must find. LOOM_MAX_PREEMPTIONS
# (default 2) sets the bound.
set -euo pipefail
cd "$(dirname "$0")/.."
RUSTFLAGS="--cfg loom" cargo test --locked --release --target-dir target/loom \
    -p sexton-cleanup -p sexton-heap --lib --tests \
    --config profile.release.package.sexton-heap.debug-assertions=true
