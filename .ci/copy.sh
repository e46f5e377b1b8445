#!/usr/bin/env bash
# Copies the sources, as they are now, into an empty folder below `target`, for a script that
# changes them: .ci/copy.sh target/FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf "$1"
mkdir -p "$1"
# Not the times of the files: to cargo, the copy is always newer than what it has built.
git ls-files -z --cached --others --exclude-standard --deduplicate |
    tar --create --null --ignore-failed-read --files-from - |
    tar --extract --touch --directory "$1"
