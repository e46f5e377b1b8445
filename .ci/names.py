#!/usr/bin/env python3
"""Checks that each test that a page names is in the sources.

    .ci/names.py               what is named and does not exist
    .ci/names.py --self-test   plants wrong names, and sees each reported

A page names tests in four ways:
- `module::function` in backticks, all in small letters; `*` stands for any letters
- a name of five words or more in backticks, `like_this_one_here_is`
- any code in a table's column whose heading begins with "test": a test, a module, a file, a mutant;
  after a package's name, up to the next semicolon, a test of that package
- the arguments of `cargo test` and of `.ci/soak.sh`: package, target, and the names' beginnings
Files in backticks, such as `tests/it/weak.rs`, must exist, too.
"""

import re
import shlex
import subprocess
import sys
from collections import namedtuple
from fnmatch import fnmatchcase
from pathlib import Path

Test = namedtuple("Test", "package target path")

# The standard library's, which a page may name: `process::exit` is no test.
FOREIGN = {"std", "core", "alloc", "process", "mem", "thread"}
LONG_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+){4,}")
CODE = re.compile(r"`([^`\n]+)`")
TEST_PATH = re.compile(r"[a-z0-9_*]+(::[a-z0-9_*]+)+(::)?|[a-z0-9_]+::")
FILE = re.compile(r"[\w./*-]+\.(rs|sh|py|pml|md)")
GENERATED = re.compile(r"^(\w+)! \{\n(.*?)^\}", re.DOTALL | re.MULTILINE)


def tests_of(root, files):
    """All tests of the workspace."""
    packages = {}
    for file in files:
        if file.endswith("Cargo.toml"):
            name = re.search(r'^name = "(.*)"', (root / file).read_text(), re.MULTILINE)
            if name:
                packages[Path(file).parent] = name[1]
    for file in map(Path, files):
        owner = next((folder for folder in file.parents if folder in packages), None)
        if file.suffix != ".rs" or owner is None:
            continue
        inside = file.relative_to(owner).with_suffix("").parts
        if inside[0] == "src":
            target, modules = "lib", inside[1:]
        elif owner.name == "tests":
            target, modules = inside[0], inside[1:]
        elif inside[0] == "tests":
            target, modules = inside[1], inside[2:]
        else:
            continue
        modules = tuple(part for part in modules if part not in ("main", "lib", "mod"))
        for name in names_of((root / file).read_text()):
            yield Test(packages[owner], target, "::".join((*modules, *name)))


def names_of(source):
    """The tests of a file, each with the modules around it."""
    marked, modules = False, []
    for line in source.splitlines():
        indent = len(line) - len(line.lstrip())
        modules = [(name, depth) for name, depth in modules if depth < indent or not line.strip()]
        if opened := re.match(r" *(?:pub(?:\(\w+\))? )?mod (\w+) \{", line):
            modules.append((opened[1], indent))
        if re.match(r" *#\[test\]", line):
            marked = True
        elif marked and (found := re.match(r" *fn (\w+)", line)):
            yield (*(name for name, _ in modules), found[1])
            marked = False
    # Tests that a macro makes, each with a name of its own.
    for _, body in GENERATED.findall(source):
        for name in re.findall(r"^    (?:fn )?(\w+)(?::|\()", body, re.MULTILINE):
            yield (name,)


class Names:
    """What the sources have."""

    def __init__(self, root):
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=root, capture_output=True, text=True, check=True,
        )
        self.files = [line for line in listed.stdout.splitlines() if (root / line).exists()]
        self.tests = list(tests_of(root, self.files))
        self.packages = {test.package for test in self.tests}
        self.mutants = set()
        for file in self.files:
            if "/mutants/" in file and file.endswith(".patch"):
                self.mutants.add(Path(file).stem)

    def has_test(self, name, package=None):
        """Tells whether a test has these names in its path, one behind the other."""
        wanted = name.strip(":").split("::")
        for test in self.tests:
            have = test.path.split("::")
            # The folder of a crate's tests, and a target's own name, may stand in front.
            have = have if test.target == "lib" else [test.target, *have]
            if package in (None, test.package) and any(
                all(map(fnmatchcase, have[at:], wanted))
                for at in range(len(have) - len(wanted) + 1)
            ):
                return True
        return False

    def has_file(self, name):
        name = name.removeprefix("../")
        return any(fnmatchcase(file, name) or fnmatchcase(file, f"*/{name}") for file in self.files)

    def faults_of_command(self, words):
        """What is wrong with the arguments of `cargo test`."""
        before, _, behind = " ".join(words).partition(" -- ")
        before, behind = shlex.split(before), shlex.split(behind)
        fits, filters = list(self.tests), []
        while before:
            word = before.pop(0)
            if word == "-p":
                package = before.pop(0)
                if package.isupper():
                    return
                fits = [test for test in fits if test.package == package]
            elif word == "--test":
                target = before.pop(0)
                fits = [test for test in fits if test.target == target]
            elif word == "--lib":
                fits = [test for test in fits if test.target == "lib"]
            elif not word.startswith("-"):
                filters.append(word)
        filters += [word for word in behind if not word.startswith("-")]
        if not fits:
            yield "no such package or target"
        for name in filters:
            if not any(name in test.path for test in fits):
                yield f"no test has {name} in its name"


def commands_of(text):
    """The arguments of each `cargo test` and soak in the text, code blocks and backticks alike."""
    for line in [*CODE.findall(text), *re.findall(r"^[^`|]*$", text, re.MULTILINE)]:
        line = line.split(" #")[0]
        if found := re.match(r"\s*(?:[A-Z_]+=\S+ )*cargo test\b(.*)", line):
            yield line.strip(), found[1].split()
        elif found := re.match(r"\s*(?:[A-Z_]+=\S+ )*\.ci/soak\.sh\b(.*)", line):
            yield line.strip(), ["-p", "sexton-tests", "--test", "it", "--", *found[1].split()]


def faults(page, text, names):
    """All that a page names and the sources do not have."""
    for command, arguments in commands_of(text):
        for fault in names.faults_of_command(arguments):
            yield f"{page}: `{command}`: {fault}"
    columns = []
    for number, line in enumerate(text.splitlines(), 1):
        at = f"{page}:{number}"
        cells = re.split(r"(?<!\\)\|", line.strip().strip("|")) if line.startswith("|") else []
        if cells and not columns:
            columns = [cell.strip() for cell in cells]
        elif not cells:
            columns = []
        of_tests = [cell for head, cell in zip(columns, cells) if head.startswith("test")]
        for cell in of_tests:
            for part in cell.split(";"):
                package = None
                for code in CODE.findall(part):
                    if code in names.packages:
                        package = code
                    elif FILE.fullmatch(code) or "/" in code:
                        if not any(map(names.has_file, (code, f"{code}.rs", f"{code}/*"))):
                            yield f"{at}: there is no file {code}"
                    elif code in names.mutants or names.has_file(f"tests/ui/{code}.rs"):
                        pass
                    elif not names.has_test(code, package):
                        yield f"{at}: there is no test {code} in {package or 'any package'}"
        for code in CODE.findall(line):
            if any(f"`{code}`" in cell for cell in of_tests):
                continue
            is_path = TEST_PATH.fullmatch(code) and code.split("::")[0] not in FOREIGN
            if (is_path or LONG_NAME.fullmatch(code)) and not names.has_test(code):
                yield f"{at}: there is no test {code}"
            if FILE.fullmatch(code) and not names.has_file(code):
                yield f"{at}: there is no file {code}"


def check(root, names):
    pages = [file for file in names.files if file.endswith(".md") and file != "CHANGELOG.md"]
    return [fault for page in pages for fault in faults(page, (root / page).read_text(), names)]


def self_test(names):
    """Each planted name is reported; the true one beside it is not."""
    column, command = "| x | tests |\n|---|---|\n| y | {} |", "`cargo test -p sexton-tests {}`"
    plants = [
        ("`weak::it_is_cleared_when_a_cleanup_of_its_target_ran`", "`weak::*`"),
        ("`it_is_cleared_when_a_cleanup_of_its_target_ran`", "`wait_for_cleanups`"),
        ("`week::it_is_*`", "`weak::it_is_*`, `process::exit`"),
        ("`tests/it/week.rs`", "`tests/it/weak.rs`, `tests/ui/shared_*.rs`"),
        (column.format("`week`"), column.format("`weak`, `tests/ui`, `shared_root_in_payload`")),
        (column.format("`sexton-heap`: `once`"), column.format("`sexton-cleanup`: `once`; `weak`")),
        (column.format("`no-rechecks`"), column.format("`no-recheck`")),
        (command.format("--test it week::"), command.format("--test it weak::")),
        (command.format("-- week"), command.format("-- weak")),
        (command.format("--test unit"), "`cargo test -p PACKAGE MODULE`"),
        ("```sh\n.ci/soak.sh strain::\n```", "```sh\nSEXTON_ROUNDS=1 .ci/soak.sh stress:: # x\n```"),
    ]
    for wrong, right in plants:
        if not list(faults("planted", wrong, names)):
            sys.exit(f"not found: {wrong}")
        if found := list(faults("planted", right, names)):
            sys.exit(f"found, though it is right: {found}")
    print(f"{len(plants)} planted names found")


if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    names = Names(root)
    if sys.argv[1:] == ["--self-test"]:
        self_test(names)
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        wrong = check(root, names)
        if wrong:
            print(*wrong, sep="\n")
            sys.exit(f"{len(wrong)} names of what does not exist")
