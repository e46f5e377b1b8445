#!/usr/bin/env bash
# The benchmark program is built as a newcomer does it, without the peers, and its tour starts. It
# says how to have the peers. `.ci/test.sh` tests it with them.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run --locked --release -- tour docs
if said=$(cargo run --locked --quiet --release -- run W6 --quick 2>&1) ||
    ! grep -q 'cargo run --release --features peers' <<<"$said"; then
    echo "a run without the peers does not say how to have them: $said" >&2
    exit 1
fi
