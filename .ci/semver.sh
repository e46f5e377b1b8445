#!/usr/bin/env bash
# The public interface has changed by no more than the version says: `.ci/semver.sh [REV]` compares
# it with that of revision REV, or of the last tag `v*` before this commit, by cargo-semver-checks.
#
# Without a tag there is nothing to compare with, and without cargo-semver-checks nothing to do it:
# then this step is passed over, and says so.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "semver: SKIPPED, $*"
    exit 0
}
rev=${1:-$(git describe --tags --abbrev=0 --match 'v*' HEAD^ 2>/dev/null || true)}
[ -n "$rev" ] || skip "no version has a tag yet. \`.ci/semver.sh REV\` compares with a revision"
command -v cargo-semver-checks >/dev/null ||
    skip "cargo-semver-checks is missing. To have it: cargo install --locked cargo-semver-checks"
echo "semver: baseline $rev"

checks() {
    cargo semver-checks --package "$1" --baseline-rev "$rev"
}
failed=
checks sexton || failed=1
# What `sexton` re-exports from other crates is not seen. Of those crates, not all is for users: so
# these findings are to be read, and do not fail.
for crate in sexton-cleanup sexton-heap; do
    checks "$crate" ||
        echo "semver: READ the findings in $crate: items that sexton re-exports count"
done
[ -z "$failed" ] || {
    echo "semver: the public interface has changed by more than the version says" >&2
    exit 1
}
