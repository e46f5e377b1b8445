#!/usr/bin/env bash
# Copies the sources, as they are now, into a folder below `target`, for a script that changes them:
# .ci/copy.sh target/FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf "$1.new"
mkdir -p "$1.new"
# Not the times of the files: to cargo, what is new in the copy is newer than what it has built.
git ls-files -z --cached --others --exclude-standard --deduplicate |
    tar --create --null --ignore-failed-read --files-from - |
    tar --extract --touch --directory "$1.new"
# What the last copy has, too, keeps its time there, and is not built again.
python3 - "$1" <<'PYTHON'
import filecmp, os, shutil, sys

old, new = sys.argv[1], sys.argv[1] + ".new"
for folder, _, files in os.walk(new):
    for file in files:
        path = os.path.join(folder, file)
        before = os.path.join(old, os.path.relpath(path, new))
        if os.path.isfile(before) and filecmp.cmp(before, path, shallow=False):
            shutil.copystat(before, path)
PYTHON
rm -rf "$1"
mv "$1.new" "$1"
