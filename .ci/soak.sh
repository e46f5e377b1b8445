#!/usr/bin/env bash
# The load tests and the stress test a hundred times in a row, optimised: every cleanup ends exactly
# once. Not part of `.ci/run`; takes a minute or two. `SEXTON_ROUNDS=5000 .ci/soak.sh stress::`
# takes half an hour, over the stress test alone; a failure prints a seed, which `SEXTON_SEED`
# begins with.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- cleanups:: stress::
SEXTON_ROUNDS="${SEXTON_ROUNDS:-100}" cargo test --locked --release \
    -p sexton-tests --test it -- --nocapture "$@"
