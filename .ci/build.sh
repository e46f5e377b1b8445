#!/usr/bin/env bash
# Benches and examples build; both README commands start.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --release --workspace --bins --examples
cargo bench --locked --workspace --no-run
cargo run --locked --release -- tour docs
