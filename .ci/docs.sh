#!/usr/bin/env bash
# The documentation builds without a warning, private items included.
set -euo pipefail
cd "$(dirname "$0")/.."
# With the features of `.ci/clippy.sh`, which has checked all dependencies.
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items \
    --features sexton-bench/peers,sexton-bench/criterion
