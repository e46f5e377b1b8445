#!/usr/bin/env bash
# The black-box tests with every heap in zeal mode: collect at each session, poison, verify. Optimised, but
# with debug assertions.
set -euo pipefail
cd "$(dirname "$0")/.."
RUSTFLAGS="--cfg gc_zeal -C debug-assertions" cargo test --locked --release --target-dir target/zeal -p sexton-tests --test it
