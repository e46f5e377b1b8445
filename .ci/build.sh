#!/usr/bin/env bash
# The benchmark program is built as a newcomer does it, and its tour starts. With the peers and the
# Criterion suite, it is tested: each question of the suite is asked once.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run --locked --release -- tour docs
# The peers have tests of their own; mimalloc needs a C compiler. Without optimisation for release,
# as what `.ci/test.sh` has built serves here, too.
cargo test --locked -p sexton-bench --features peers,criterion --bins --tests --benches
