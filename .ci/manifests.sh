#!/usr/bin/env bash
# The manifests say what they must, and agree: the oldest Rust in manifests and pages, one version,
# and in each published crate what crates.io and docs.rs show. crates.io refuses some of it, and a
# release is a bad moment to learn that.
set -euo pipefail
cd "$(dirname "$0")/.."

bad=0
complain() {
    echo "manifests: $*" >&2
    bad=1
}

# The published crates, in the order in which one needs the other; `.ci/release.sh` has the same.
published=(heap/derive cleanup/sync cleanup heap runtime)
# Those that crates.io has and that are ours: https://crates.io/category_slugs
categories='memory-management|concurrency'

oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
for page in README.md CONTRIBUTING.md; do
    grep -q "Rust $oldest" "$page" ||
        complain "$page does not say \"Rust $oldest\", which is the manifest's rust-version"
done

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
# Members ask for one another by the version that is published with them.
grep '^sexton.*path = ' Cargo.toml | grep -v "version = \"$version\"" &&
    complain "a member is asked for in another version than $version"

# The words of a list in a manifest, one a line.
list() {
    sed -n "s/^$1 = \[\(.*\)\]$/\1/p" "$2" | tr ',' '\n' | tr -d '" '
}

for crate in "${published[@]}"; do
    manifest=$crate/Cargo.toml
    for key in description readme keywords categories; do
        grep -q "^$key = " "$manifest" || complain "$manifest has no $key"
    done
    [ "$(list keywords "$manifest" | wc -l)" -le 5 ] ||
        complain "$manifest has more than five keywords"
    list keywords "$manifest" | grep -vE '^[a-z0-9][a-z0-9_+-]{0,19}$' &&
        complain "$manifest has a keyword that crates.io refuses"
    list categories "$manifest" | grep -vxE "$categories" &&
        complain "$manifest has a category that may be none of crates.io's"
    for key in version edition rust-version license; do
        grep -q "^$key.workspace = true" "$manifest" ||
            complain "$manifest does not take $key from the workspace"
    done
    grep -q '^\[package.metadata.docs.rs\]' "$manifest" ||
        complain "$manifest says nothing to docs.rs"
    for file in README.md LICENSE-MIT LICENSE-APACHE; do
        [ -s "$crate/$file" ] || complain "$crate has no $file"
    done
    grep -n 'include_str!("\.\./\.\.' "$crate/src/lib.rs" &&
        complain "$crate/src/lib.rs includes a file that is not in its package"
    grep -q "Rust $oldest" "$crate/README.md" ||
        complain "$crate/README.md does not say \"Rust $oldest\""
done

# All others are not to be published by mistake.
members=$(list members Cargo.toml)
for crate in $members; do
    [[ " ${published[*]} " == *" $crate "* ]] || grep -q '^publish = false' "$crate/Cargo.toml" ||
        complain "$crate/Cargo.toml could be published, and is in no list of what is"
done
for crate in "${published[@]}"; do
    name=$(sed -n 's/^name = "\(.*\)"$/\1/p' "$crate/Cargo.toml" | head -n 1)
    grep -qE "^crates=.*\b$name\b" .ci/release.sh || complain ".ci/release.sh does not publish $name"
done
exit "$bad"
