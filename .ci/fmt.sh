#!/usr/bin/env bash
# Code is formatted as rustfmt does it, imports run downwards, prose is short, and pages name tests
# that exist.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo fmt --all --check
cargo fmt --manifest-path fuzz/Cargo.toml --check
python3 .ci/layers.py --self-test
python3 .ci/layers.py
python3 .ci/prose.py
python3 .ci/names.py --self-test
python3 .ci/names.py
