#!/usr/bin/env bash
# The black-box tests with every heap in zeal mode: collect at each session, poison, verify. A test
# that is about when its heap collects turns zeal off for that heap (`world::calm`). What must not
# compile (`ui`) runs no code.
set -euo pipefail
cd "$(dirname "$0")/.."
# The same packages and features as in `.ci/test.sh`: what that has built serves here, too.
SEXTON_ZEAL=1 cargo test --locked --workspace \
    --features sexton-bench/peers,sexton-bench/criterion --test it -- --skip ui::
