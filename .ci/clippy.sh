#!/usr/bin/env bash
# No lint warns, neither in the crates nor in their tests, benches and examples, nor in what loom,
# shuttle and the tests of pauses build.
set -euo pipefail
cd "$(dirname "$0")/.."
# The peers of the benchmarks and the Criterion suite are behind features.
cargo clippy --locked --workspace --all-targets \
    --features sexton-bench/peers,sexton-bench/criterion -- -D warnings
RUSTFLAGS="--cfg loom" cargo clippy --locked --profile model --target-dir target/loom/build \
    -p sexton-cleanup -p sexton-heap -p sexton --all-targets -- -D warnings
RUSTFLAGS="--cfg shuttle" cargo clippy --locked --profile model --target-dir target/shuttle/build \
    -p sexton-cleanup -p sexton-heap --all-targets -- -D warnings
RUSTFLAGS="--cfg pauses" cargo clippy --locked --target-dir target/pauses/build \
    -p sexton-cleanup --all-targets -- -D warnings
