#!/usr/bin/env bash
# Checks that everything is ready to be released as VERSION, and prints what is left to do:
# `.ci/release.sh VERSION`. Changes nothing and publishes nothing. Fails in the end if something is
# missing, and not before all has been checked. `--semver REV` behind it compares the public
# interface with that of revision REV, in place of the last tag's (`.ci/semver.sh`).
#
# Packing builds each crate from what would be uploaded, against the others as they would be
# uploaded.
set -euo pipefail
cd "$(dirname "$0")/.."

bad=0
complain() {
    echo "release: $*" >&2
    bad=1
}
version=${1:?usage: .ci/release.sh VERSION [--semver REV]}
tag=v$version
baseline=
if [ "${2-}" = --semver ]; then baseline=${3:?--semver needs a revision}; fi
# In the order in which one needs the other.
crates=(sexton-derive sexton-sync sexton-cleanup sexton-heap sexton)

# 1. The tree, the version, the changelog, the tag.
[ -z "$(git status --porcelain)" ] || complain "there are changes that are not committed"
.ci/manifests.sh || bad=1
written=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
[ "$written" = "$version" ] || complain "Cargo.toml says version $written"
grep -q "^## $version\( \|$\)" CHANGELOG.md ||
    complain "CHANGELOG.md has no section \"## $version\": rename \"## Unreleased\"," \
        "and add a new one above"
git rev-parse -q --verify "refs/tags/$tag" >/dev/null &&
    [ "$(git rev-list -n 1 "$tag")" != "$(git rev-parse HEAD)" ] &&
    complain "the tag $tag is on another commit"

# crates.io and docs.rs show links into it. Not made up before there is one.
grep -q '^repository = ' Cargo.toml ||
    echo "release: note: no manifest names a repository, because there is no public one yet"

# 2. The interface.
.ci/semver.sh ${baseline:+"$baseline"} ||
    complain "the public interface has changed by more than the version says"

# 3. The packages.
packages=()
for crate in "${crates[@]}"; do packages+=(-p "$crate"); done
cargo package --locked "${packages[@]}" || complain "a package does not build"

# 4. The documentation, from the packages alone, as docs.rs builds it. A page outside of its package
# is missing there.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
patches=()
for crate in "${crates[@]}"; do
    tar -xf "${CARGO_TARGET_DIR:-target}/package/$crate-$written.crate" -C "$scratch"
    patches+=(--config "patch.crates-io.$crate.path = '$scratch/$crate-$written'")
done
target=$(realpath "${CARGO_TARGET_DIR:-target}")/package-docs
for crate in "${crates[@]}"; do
    (cd "$scratch/$crate-$written" && cargo doc --no-deps --target-dir "$target" "${patches[@]}") ||
        complain "docs.rs cannot build the documentation of $crate"
done

[ "$bad" = 0 ] || {
    echo "release: $version is not ready" >&2
    exit 1
}
echo "release: $version is ready. What is left:"
echo "    .ci/run && .ci/sanitize.sh"
echo "    git tag -a $tag -m 'Sexton $version' && git push origin $tag"
for crate in "${crates[@]}"; do echo "    cargo publish --locked -p $crate"; done
