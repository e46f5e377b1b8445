#!/usr/bin/env bash
# Builds the Boehm peer: build.sh OUTDIR writes OUTDIR/boehm, and prints its path last. CC names
# another compiler. Status 3 with one line on standard error: the compiler or the library is
# missing. Nothing is written here.
set -euo pipefail
[ $# = 1 ] || { echo "usage: build.sh OUTDIR" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"
cc=${CC:-gcc}
needs="needs gcc, and libgc 8 with its headers (Debian's libgc-dev)"
command -v "$cc" >/dev/null || { echo "$needs" >&2; exit 3; }
echo '#include <gc/gc.h>' | "$cc" -fsyntax-only -x c - 2>/dev/null || { echo "$needs" >&2; exit 3; }
"$cc" -std=gnu11 -O2 -Wall -Wextra -o "$out/boehm" peer.c -lgc -pthread >&2
echo "$out/boehm"
