#!/usr/bin/env bash
# The loom models of the protocols, and the mutants that loom must find. LOOM_MAX_PREEMPTIONS
# (default 2) sets the bound of the models.
set -euo pipefail
cd "$(dirname "$0")/.."
# In the copy that the mutants change, so that all is built once.
.ci/copy.sh target/loom/copy
(
    cd target/loom/copy
    RUSTFLAGS="--cfg loom" cargo test --locked --profile model --target-dir ../build \
        -p sexton-cleanup -p sexton-heap -p sexton --lib --tests
)
.ci/mutants.sh loom
