#!/usr/bin/env bash
# The load tests a hundred times in a row, optimised: every cleanup runs exactly once. Not part of
# `.ci/run`; takes a minute or two.
set -euo pipefail
cd "$(dirname "$0")/.."
SEXTON_ROUNDS="${SEXTON_ROUNDS:-100}" cargo test --locked --release -p sexton-tests --test it -- cleanups:: --nocapture
