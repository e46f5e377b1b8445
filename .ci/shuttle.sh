#!/usr/bin/env bash
# Random schedules of models too large for loom, others in each run, and the mutants that shuttle
# must find.
#
#   .ci/shuttle.sh [rounds [test]]
#
# One round (the default) takes half a minute; 50 are a long run. SHUTTLE_ITERATIONS (default 2000)
# is the number of schedules of each test in a round. A failure prints its seed and schedule;
# cleanup/sync/src/explorer.rs says how to replay it.
set -euo pipefail
cd "$(dirname "$0")/.."
for ((round = 0; round < ${1:-1}; round++)); do
    RUSTFLAGS="--cfg shuttle" cargo test --locked --release --target-dir target/shuttle \
        -p sexton-cleanup -p sexton-heap --lib \
        --config profile.release.package.sexton-cleanup.debug-assertions=true \
        --config profile.release.package.sexton-heap.debug-assertions=true -- "${@:2}"
done
