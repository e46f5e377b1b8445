#!/usr/bin/env bash
# The black-box tests with every heap in zeal mode: collect at each session, poison, verify.
# Optimised, but with debug assertions (`[profile.zeal]`). A test that is about when its heap
# collects turns zeal off for that heap (`world::calm`). What must not compile (`ui`) runs no code.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg gc_zeal"
run_tests() {
    cargo test --locked --profile zeal --target-dir target/zeal -p sexton-tests --test it -- "$@"
}
run_tests --skip ui::
# The same program at the speed of a release, where the races are: without zeal, with overflow
# checks.
SEXTON_ZEAL=0 run_tests stress::
