#!/usr/bin/env bash
# The workspace builds with the oldest Rust that its manifests name. Where that is the compiler at
# hand, all other steps show it. Otherwise that toolchain is used, if it is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
have=$(rustc --version | sed 's/^rustc \([0-9.]*\).*/\1/')
case $have in
    "$oldest" | "$oldest".*)
        echo "msrv: rustc $have is the oldest one"
        exit 0
        ;;
esac
# By the number, not by the order in a text: 1.100 is newer than 1.95.
first=$(printf '%s\n%s\n' "$oldest" "$have" | sort -V | head -n 1)
[ "$first" = "$oldest" ] || {
    echo "msrv: rustc $have is older than rust-version $oldest" >&2
    exit 1
}
for toolchain in "$oldest" "$oldest.0"; do
    if rustup run "$toolchain" rustc --version 2>/dev/null; then
        # The lock file has versions that this compiler can build; a missing one is an error.
        cargo +"$toolchain" check --locked --workspace --all-targets --target-dir target/msrv
        exit 0
    fi
done
echo "msrv: SKIPPED, rustc is $have. To have the oldest one: rustup toolchain install $oldest"
