#!/usr/bin/env bash
# The benchmark program, with the peers and without, and examples build; its tour starts.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --release --workspace --bins --examples
cargo run --locked --release -- tour docs
cargo bench --locked -p sexton-bench --features criterion --no-run
# The peers have tests of their own; mimalloc needs a C compiler.
cargo test --locked -p sexton-bench --features peers
