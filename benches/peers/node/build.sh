#!/usr/bin/env bash
# Builds the Node peer: build.sh OUTDIR writes OUTDIR/node, a launcher, and prints its path last.
# NODE names another one. Status 3 with one line on standard error: there is no Node. Nothing is
# written here.
set -euo pipefail
[ $# = 1 ] || { echo "usage: build.sh OUTDIR" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"
needs="needs node 18 or later"
node=$(command -v "${NODE:-node}") || { echo "$needs" >&2; exit 3; }
version=$("$node" --version)
major=$(sed -n 's/^v\([0-9]*\).*/\1/p' <<<"$version")
[ "${major:-0}" -ge 18 ] || { echo "$needs (found $version)" >&2; exit 3; }
cp peer.js "$out/node-peer.js"
{
    echo '#!/bin/sh'
    # gc() is what starts a collection by hand; the limit on the heap is only there so that it is
    # never met.
    printf 'exec %q --expose-gc --max-old-space-size=4096 %q "$@"\n' "$node" "$out/node-peer.js"
} >"$out/node"
chmod +x "$out/node"
echo "$out/node"
