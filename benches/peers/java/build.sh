#!/usr/bin/env bash
# Builds the Java peer: build.sh OUTDIR writes OUTDIR/java, which runs the class Peer with the
# default collector, and prints its path last. `build.sh OUTDIR java-serial -XX:+UseSerialGC` is
# what the peer java-serial does: the same class, by another name, with other flags. JAVA_HOME names
# another JDK. Status 3 with one line on standard error: there is no JDK. Nothing is written here.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: build.sh OUTDIR [NAME [FLAG...]]" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
name=${2:-java}
flags=("${@:3}")
cd "$(dirname "${BASH_SOURCE[0]}")"
needs="needs a JDK, 17 or later, with javac"
java=${JAVA_HOME:+$JAVA_HOME/bin/}java
java=$(command -v "$java") && command -v "${java}c" >/dev/null || { echo "$needs" >&2; exit 3; }
version=$("${java}c" -version 2>&1)
major=$(sed -n 's/^javac \([0-9]*\).*/\1/p' <<<"$version")
[ "${major:-0}" -ge 17 ] || { echo "$needs (found $version)" >&2; exit 3; }
"${java}c" --release 17 -d "$out/$name-classes" Peer.java Shared.java >&2
{
    cat <<'SH'
#!/bin/sh
# W3, W4 and W8 call their collections by hand. As no flag turns off the others, the nursery is made
# to hold all that is allocated between two, and the heap is kept from shrinking. All else is
# measured as it comes.
roomy=
case $1 in
    W3.* | W4.* | W8.*) roomy="-Xms1g -Xmx4g -Xmn640m -XX:+AlwaysPreTouch" ;;
esac
SH
    printf 'exec'
    printf ' %q' "$java" "${flags[@]}"
    printf ' $roomy -cp %q Peer "$@"\n' "$out/$name-classes"
} >"$out/$name"
chmod +x "$out/$name"
echo "$out/$name"
