#!/usr/bin/env bash
# The manifests say what they must, and agree: the oldest Rust in manifests, README and
# CONTRIBUTING, and the compiler at hand; one version; and in each published crate what crates.io
# and docs.rs show.
#
# The oldest Rust is checked by building with it: `rustup toolchain install VERSION`, and
# `cargo +VERSION test --workspace`. Where that is the compiler at hand, the tests have done so.
set -euo pipefail
cd "$(dirname "$0")/.."

bad=0
complain() {
    echo "manifests: $*" >&2
    bad=1
}

oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
for page in README.md CONTRIBUTING.md; do
    grep -q "Rust $oldest" "$page" ||
        complain "$page does not say \"Rust $oldest\", which is the manifest's rust-version"
done
# By the compiler's number, not by its order in a text: 1.100 is newer than 1.95.
have=$(rustc --version | sed 's/^rustc \([0-9.]*\).*/\1/')
first=$(printf '%s\n%s\n' "$oldest" "$have" | sort -V | head -n 1)
[ "$first" = "$oldest" ] || complain "rustc $have is older than rust-version $oldest"
case $have in
    "$oldest" | "$oldest".*) ;;
    *) echo "manifests: note: built with $have, so nothing here has shown that $oldest will do" ;;
esac

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
# Members ask for one another by the version that is published with them.
grep '^sexton.*path = ' Cargo.toml | grep -v "version = \"$version\"" &&
    complain "a member is asked for in another version than $version"

for crate in heap/derive cleanup/sync cleanup heap runtime; do
    manifest=$crate/Cargo.toml
    for key in description readme keywords categories; do
        grep -q "^$key = " "$manifest" || complain "$manifest has no $key"
    done
    for key in version edition rust-version license; do
        grep -q "^$key.workspace = true" "$manifest" ||
            complain "$manifest does not take $key from the workspace"
    done
    grep -q '^\[package.metadata.docs.rs\]' "$manifest" ||
        complain "$manifest says nothing to docs.rs"
    for file in README.md LICENSE-MIT LICENSE-APACHE; do
        [ -s "$crate/$file" ] || complain "$crate has no $file"
    done
    grep -q "Rust $oldest" "$crate/README.md" ||
        complain "$crate/README.md does not say \"Rust $oldest\""
done
for manifest in tests benches; do
    grep -q '^publish = false' "$manifest/Cargo.toml" ||
        complain "$manifest/Cargo.toml could be published"
done
exit "$bad"
