#!/usr/bin/env bash
# The Java peer with the serial collector, the one of small heaps: build.sh OUTDIR writes
# OUTDIR/java-serial.
set -euo pipefail
[ $# = 1 ] || { echo "usage: build.sh OUTDIR" >&2; exit 2; }
exec "$(dirname "${BASH_SOURCE[0]}")/../java/build.sh" "$1" java-serial -XX:+UseSerialGC
