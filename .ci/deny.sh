#!/usr/bin/env bash
# No dependency is banned, doubled without a reason, under another licence than deny.toml allows,
# from another place than crates.io, yanked, or in the advisory database.
#
# Without cargo-deny this step is passed over, and says so. To build cargo-deny takes three minutes,
# which is too long for each new machine. Without a network the advisories are passed over.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo-deny >/dev/null || {
    echo "deny: SKIPPED, cargo-deny is missing. To have it: cargo install --locked cargo-deny"
    exit 0
}
# A build brings only what this system needs; the manifests of all dependencies are looked at.
cargo fetch --locked --quiet
cargo deny --locked --offline check bans licenses sources
if why=$(timeout 60 cargo deny --locked fetch db 2>&1); then
    cargo deny --locked --offline check advisories
else
    echo "deny: advisories SKIPPED, their database cannot be fetched: $(tail -n 1 <<<"$why")"
fi
