#!/usr/bin/env python3
"""Checks which file imports which: no import upwards, no circle of more than two files.

    .ci/layers.py              the drawing of every crate, and what is wrong with it
    .ci/layers.py --self-test  plants an import upwards and a circle, and sees both reported

LAYERS says which folders (or files) each crate has, the lowest first. A file may import from its own
layer and from lower ones. Layers of one line stand side by side and do not import each other.
`lib.rs` and `main.rs` are maps and may name everything; tests may, too.
"""

import re
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

LAYERS = {
    "heap/src": [
        ["id"],
        ["memory"],
        ["safepoint", "policy"],
        ["mark", "sweep"],
        ["object"],
        ["session"],
        ["payload"],
        ["collect"],
    ],
    "cleanup/sync/src": [
        ["cell", "explorer", "fields", "injector", "panic", "prefetch", "process"],
        ["locks"],
    ],
    "cleanup/src": [
        ["inside"],
        ["protocol", "observe"],
        ["record"],
        ["block"],
        ["account"],
        ["pool"],
        ["client"],
    ],
    "runtime/src": [["threads"], ["gc_threads", "pool"], ["back_pressure"], ["heap"], ["mutator"]],
    "benches/src": [
        ["grid", "heaps", "output", "values"],
        ["catalogue"],
        ["measure"],
        ["peers"],
        ["run"],
        ["pauses", "scale"],
        ["demo", "plot", "sweep", "table", "tour"],
        ["cli"],
    ],
}

# Circles of two files are one idea in two pages. Larger ones are not allowed.
LARGEST_CIRCLE = 2


def code_of(source):
    """The source without comments, string literals and the tests at its end."""
    source = re.sub(r'"(?:\\.|[^"\\])*"', '""', source)
    source = re.sub(r"//[^\n]*", "", source)
    tests = re.search(r"#\[cfg\([^\n]*\btest\b[^\n]*\n(?:\s*#\[[^\n]*\n)*\s*mod \w+ \{", source)
    return source[: tests.start()] if tests else source


def paths_of(use):
    """All paths that a `use` declaration names."""
    use = use.strip()
    opening = use.find("{")
    if opening < 0:
        return [use.split(" as ")[0].strip()]
    head, body = use[:opening], use[opening + 1 : use.rfind("}")]
    items, depth, item = [], 0, ""
    for char in body:
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            items.append(item)
            item = ""
        else:
            item += char
    return [head + path for item in [*items, item] if item.strip() for path in paths_of(item)]


class Crate:
    """The files of one crate, and the imports among them."""

    def __init__(self, folder, layers):
        self.layers = layers
        self.rank = {name: rank for rank, names in enumerate(layers) for name in names}
        self.files = {}
        for path in sorted(folder.rglob("*.rs")):
            module = path.relative_to(folder).with_suffix("").parts
            module = module[:-1] if module[-1] == "mod" else module
            if module[0] != "tests":
                self.files[module] = code_of(path.read_text())
        self.exported = {}
        for use in re.findall(r"\bpub use ([^;]+);", self.files.get(("lib",), "")):
            for path in paths_of(use):
                target = self.file_of(tuple(path.removeprefix("crate::").split("::")))
                if target:
                    self.exported[path.split("::")[-1]] = target
        self.imports = defaultdict(set)
        for module, code in self.files.items():
            if module not in [("lib",), ("main",)]:
                self.imports[module] = set(self.imports_of(module, code)) - {module}

    def file_of(self, path):
        """The file that defines the path, if it is one of this crate's."""
        path = tuple(part.strip() for part in path)
        for length in range(len(path), 0, -1):
            if path[:length] in self.files:
                return path[:length]
        return self.exported.get(path[0]) if hasattr(self, "exported") and path else None

    def imports_of(self, module, code):
        uses = re.findall(r"\buse ([^;]+);", code)
        paths = [path for use in uses for path in paths_of(re.sub(r"\s+", " ", use))]
        rest = re.sub(r"\buse [^;]+;", "", code)
        paths += re.findall(r"\b(?:crate|super|self)(?:::\w+)+", rest)
        for path in paths:
            parts = tuple(path.split("::"))
            if parts[0] == "crate":
                target = self.file_of(parts[1:])
            elif parts[0] == "super":
                base, rest_of = module, parts
                while rest_of and rest_of[0] == "super":
                    base, rest_of = base[:-1], rest_of[1:]
                target = self.file_of((*base, *rest_of))
            elif parts[0] == "self":
                target = self.file_of((*module, *parts[1:]))
            else:
                child = self.file_of((*module, *parts))
                target = child if child and len(child) > len(module) else None
            if target and target not in [("lib",), ("main",)]:
                yield target

    def faults(self):
        """All that is wrong, a line each."""
        for module in self.files:
            if module[0] not in self.rank and module[0] not in ("lib", "main"):
                yield f"{name(module)} is in no layer: add its folder to LAYERS"
        for module, targets in self.imports.items():
            for target in sorted(targets):
                if module[0] == target[0] or not {module[0], target[0]} <= self.rank.keys():
                    continue
                if self.rank[target[0]] >= self.rank[module[0]]:
                    yield f"{name(module)} imports {name(target)}: an arrow upwards"
        for circle in self.circles():
            if len(circle) > LARGEST_CIRCLE:
                yield f"a circle of {len(circle)} files: {', '.join(map(name, sorted(circle)))}"

    def circles(self):
        """The strongly connected components (Tarjan 1972) of more than one file."""
        index, low, stack, found = {}, {}, [], []

        def visit(module):
            index[module] = low[module] = len(index)
            stack.append(module)
            for target in sorted(self.imports.get(module, ())):
                # `record.rs` names its own parts, which are below it: that is no import.
                if target not in index:
                    visit(target)
                    low[module] = min(low[module], low[target])
                elif target in stack:
                    low[module] = min(low[module], index[target])
            if low[module] == index[module]:
                at = stack.index(module)
                if len(stack) - at > 1:
                    found.append(stack[at:])
                del stack[at:]

        for module in sorted(self.imports):
            if module not in index:
                visit(module)
        return found

    def drawing(self):
        """A line for each layer, the highest first, with the layers that it imports from."""
        for rank in range(len(self.layers) - 1, -1, -1):
            for layer in self.layers[rank]:
                arrows = defaultdict(int)
                for module, targets in self.imports.items():
                    for target in targets:
                        if module[0] == layer and target[0] != layer:
                            arrows[target[0]] += 1
                below = ", ".join(
                    f"{to} ({count})"
                    for to, count in sorted(arrows.items(), key=lambda a: -self.rank.get(a[0], 0))
                )
                files = sum(module[0] == layer for module in self.files)
                yield f"  {layer:<14} {files:>2} files -> {below or 'nothing'}"
        pairs = [circle for circle in self.circles() if len(circle) <= LARGEST_CIRCLE]
        for pair in pairs:
            yield f"  two pages of one idea: {' and '.join(map(name, sorted(pair)))}"


def name(module):
    return "/".join(module) + ".rs"


def check(root, out=print):
    """Draws all crates; how many faults there are."""
    count = 0
    for folder, layers in LAYERS.items():
        crate = Crate(root / folder, layers)
        out(f"{folder}: {len(crate.files)} files")
        for line in crate.drawing():
            out(line)
        for fault in crate.faults():
            out(f"  WRONG: {fault}")
            count += 1
    return count


def self_test(root):
    """Each planted fault is found, and named."""
    plants = [
        ("heap/src/memory/bitmap.rs", "use crate::collect::heap::Planted;", "memory/bitmap.rs imports collect/heap.rs"),
        ("heap/src/memory/bitmap.rs", "fn f() { crate::session::core::planted(); }", "imports session/core.rs"),
        ("cleanup/src/record/tag.rs", "use crate::{pool::{run::planted}};", "record/tag.rs imports pool/run.rs"),
        ("heap/src/mark/stray.rs", "use super::super::session::core::Planted;", "mark/stray.rs imports session/core.rs"),
        ("heap/src/stray.rs", "", "stray.rs is in no layer"),
    ]
    circle = [("a", "b"), ("b", "c"), ("c", "a")]
    for planted in [*[[plant] for plant in plants], circle]:
        with tempfile.TemporaryDirectory() as scratch:
            scratch = Path(scratch)
            for folder in LAYERS:
                shutil.copytree(root / folder, scratch / folder)
            if planted is circle:
                for here, there in circle:
                    file = scratch / f"heap/src/memory/planted_{here}.rs"
                    file.write_text(f"use crate::memory::planted_{there}::Planted;\n")
                expected = "a circle of 3 files"
            else:
                ((path, line, expected),) = planted
                file = scratch / path
                file.write_text(line + "\n" + (file.read_text() if file.exists() else ""))
            lines = []
            check(scratch, lines.append)
            if not any("WRONG" in line and expected in line for line in lines):
                sys.exit(f"not found: {expected}")
    print(f"{len(plants) + 1} planted faults found")


if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    if sys.argv[1:] == ["--self-test"]:
        self_test(root)
    elif sys.argv[1:]:
        sys.exit(__doc__)
    elif faults := check(root):
        sys.exit(f"{faults} wrong: move the item to a lower layer, or the caller to a higher one")
