#!/usr/bin/env bash
# Random schedules of models too large for loom, others in each run, and the mutants that shuttle
# must find.
#
#   .ci/shuttle.sh [rounds [test]]
#
# One round (the default) takes half a minute; 50 are a long run. SHUTTLE_ITERATIONS (default 2000)
# is the number of schedules of each test in a round. A failure prints its seed and schedule;
# cleanup/sync/src/explorer.rs says how to replay it. With a test's name, no mutant is tried.
set -euo pipefail
cd "$(dirname "$0")/.."
# In the copy that the mutants change, so that all is built once.
.ci/copy.sh target/shuttle/copy
for ((round = 0; round < ${1:-1}; round++)); do
    (
        cd target/shuttle/copy
        RUSTFLAGS="--cfg shuttle" cargo test --locked --profile model --target-dir ../build \
            -p sexton-cleanup -p sexton-heap --lib -- "${@:2}"
    )
done
[ $# -gt 1 ] || .ci/mutants.sh shuttle
