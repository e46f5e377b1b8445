#!/usr/bin/env bash
# No dependency is banned, doubled by a wildcard, under another licence than deny.toml allows, or
# from another place than crates.io. Passed over without cargo-deny, which takes minutes to build.
# Advisories are not checked: they need a repository that is fetched; `cargo deny check advisories`
# does that where there is a network.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo-deny >/dev/null || {
    echo "deny: skipped, cargo-deny is not installed. cargo install --locked cargo-deny"
    exit 0
}
cargo deny --locked --offline check bans licenses sources
