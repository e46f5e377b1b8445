#!/usr/bin/env bash
# The documentation builds without a warning, private items included.
set -euo pipefail
cd "$(dirname "$0")/.."
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
