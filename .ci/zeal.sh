#!/usr/bin/env bash
# The black-box tests with every heap in zeal mode: collect at each session, poison, verify. Optimised, but
# with debug assertions. What must not compile (`ui`) runs no code. The other modules left out count, by hand, what one
# collection queues, and zeal mode collects more often: their heaps have yet to learn to do without it.
set -euo pipefail
cd "$(dirname "$0")/.."
skip=()
for module in ui back_pressure diagnosis dying executor lifecycle limits local reentrancy stalls tickets; do
    skip+=(--skip "$module::")
done
RUSTFLAGS="--cfg gc_zeal -C debug-assertions" cargo test --locked --release --target-dir target/zeal -p sexton-tests --test it -- "${skip[@]}"
