#!/usr/bin/env bash
# Benches and examples build, with the peers and without; both README commands start.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --release --workspace --bins --examples
cargo run --locked --release -- tour docs
cargo bench --locked --workspace --features sexton-bench/suites --no-run
# The peers have tests of their own; mimalloc needs a C compiler.
cargo test --locked -p sexton-bench --features peers
