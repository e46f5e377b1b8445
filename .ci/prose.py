#!/usr/bin/env python3
"""Checks the prose: the length of sentences and lines, and words that hide the subject.

    .ci/prose.py            what is wrong, and the share of long sentences in each place
    .ci/prose.py --long     all sentences of more than 25 words, too
    .ci/prose.py FILE...    the same for these files only

Sentences of README, guide, docs, protocol pages and rustdoc: at most 3 % have more than 25 words,
none has more than 35. Code in backticks counts as one word. A table's cell is a sentence.
Lines of code, comments and Markdown have at most 100 columns; tables and addresses cannot be wrapped.
The documentation of a public item begins with a paragraph of one line.
"""

import re
import subprocess
import sys
from pathlib import Path

LONG, LONGEST, SHARE = 25, 35, 0.03
COLUMNS = 100
HIDDEN_SUBJECT = re.compile(
    r"\b(whoever|nobody|somebody|everybody|someone|anyone|everyone|so many|be it)\b", re.IGNORECASE
)
# In code the word stands in a string or a comment, beside another word.
WORD = HIDDEN_SUBJECT.pattern
HIDDEN_IN_CODE = re.compile(rf"(?<=\s){WORD}|{WORD}(?=\s)", re.IGNORECASE)
# Other languages: the peers of the benchmark, the models, scripts and manifests.
CODE = (".rs", ".c", ".go", ".java", ".js", ".pml", ".sh", ".toml", ".yml")
PUBLISHED = ("cleanup/", "heap/", "runtime/")
# A sentence may end in a closing quote or bracket, and the next one begins with a capital or code.
SENTENCE_END = re.compile(r"(?<=[.!?])[)\"'*_]*\s+(?=[\"'(*_]*[A-Z`0-9])")


def words(sentence):
    return len(sentence.split())


def sentences(markdown):
    """The sentences of Markdown text; code blocks are none."""
    markdown = re.sub(r"^( *)(```|~~~).*?^\1\2[^\n]*$", "\n", markdown, flags=re.DOTALL | re.MULTILINE)
    markdown = re.sub(r"<!--.*?-->", "", markdown, flags=re.DOTALL)
    paragraph = []
    for line in [*markdown.splitlines(), ""]:
        if line.startswith("    ") and not paragraph:
            continue
        text = line.strip()
        if text.startswith("|"):
            yield from split(paragraph)
            paragraph = []
            for cell in re.split(r"(?<!\\)\|", text.strip("|")):
                if not re.fullmatch(r"[-: ]*", cell):
                    yield from split([cell.strip()])
        elif not text or re.match(r"(#+ |[-*+] |\d+\. |: |> |\[[^]]+\]: )", text):
            yield from split(paragraph)
            text = re.sub(r"^(#+ |[-*+] |\d+\. |: |> )", "", text)
            paragraph = [] if re.match(r"\[[^]]+\]: ", text) or not text else [text]
        else:
            paragraph.append(text)


def split(lines):
    text = " ".join(lines)
    text = re.sub(r"\[!\[[^]]*\]\([^)]*\)\]\([^)]*\)|!\[[^]]*\]\([^)]*\)", "", text)
    text = re.sub(r"``.+?``|`[^`]+`", "`code`", text)
    text = re.sub(r"\[([^]]*)\](\([^)]*\)|\[[^]]*\])", r"\1", text)
    text = re.sub(r"\b(e\.g|i\.e|vs|cf|al)\.", r"\1", text)
    return [sentence for sentence in SENTENCE_END.split(text) if sentence.strip()]


def rustdoc(source):
    """The documentation blocks of a source: the line, the text, the item, what the item is in."""
    lines = source.splitlines()
    at, outer = 0, ""
    while at < len(lines):
        if re.match(r"\w", lines[at]):
            outer = lines[at]
        if not re.match(r"\s*//[/!]", lines[at]) or re.match(r"\s*////", lines[at]):
            at += 1
            continue
        start, text = at, []
        while at < len(lines) and re.match(r"\s*//[/!](?!/)", lines[at]):
            text.append(re.sub(r"^\s*//[/!] ?", "", lines[at]))
            at += 1
        item = at
        while item < len(lines) and re.match(r"\s*(#\[|\)\]|\"|\w+ = |note = |\]$)", lines[item]):
            item += 1
        item = lines[item] if item < len(lines) else ""
        yield start + 1, "\n".join(text), item.strip(), outer if item.startswith(" ") else ""


def is_public(item, outer):
    """Variants and their fields are as public as their enum, and methods as their trait."""
    return re.match(r"pub (?!\()|pub$", item) or re.match(r"pub (enum|trait) ", outer)


def check(paths, show_long):
    wrong, shares = [], {}

    def measure(place, at, text):
        counts = shares.setdefault(place, [0, 0])
        for sentence in sentences(text):
            counts[0] += 1
            length = words(sentence)
            if length > LONG:
                counts[1] += 1
                if show_long:
                    print(f"{at}: {length} words: {sentence}")
            if length > LONGEST:
                wrong.append(f"{at}: {length} words, {LONGEST} at most: {sentence}")

    for path in paths:
        source = path.read_text()
        if path.suffix in CODE:
            for number, line in enumerate(source.splitlines(), 1):
                if hit := HIDDEN_IN_CODE.search(line):
                    wrong.append(f'{path}:{number}: "{hit.group()}": name the thing')
        if path.suffix not in (".rs", ".md"):
            continue
        place = str(path)
        for number, line in enumerate(source.splitlines(), 1):
            at = f"{path}:{number}"
            table = path.suffix == ".md" and line.lstrip().startswith("|")
            if len(line) > COLUMNS and not table and "://" not in line and "](" not in line:
                wrong.append(f"{at}: {len(line)} columns, {COLUMNS} at most")
            if path.suffix == ".md" and (hit := HIDDEN_SUBJECT.search(line)):
                wrong.append(f'{at}: "{hit.group()}": name the thing')
        if path.suffix == ".md" and path.name != "CHANGELOG.md":
            measure(place, place, source)
        elif path.suffix == ".rs" and place.startswith(PUBLISHED):
            for number, text, item, outer in rustdoc(source):
                measure("rustdoc", f"{path}:{number}", text)
                first = text.strip().split("\n\n")[0]
                if is_public(item, outer) and "\n" in first and "/src/tests/" not in place:
                    wrong.append(f"{path}:{number}: the first paragraph of `{item}` has several lines")

    total = [sum(count[which] for count in shares.values()) for which in (0, 1)]
    shares["all"] = total
    for place, (count, long) in shares.items():
        share = long / max(count, 1)
        line = f"{place}: {long} of {count} sentences have more than {LONG} words, {share:.1%}"
        print(line)
        if share > SHARE and count > 30:
            wrong.append(f"{line}; {SHARE:.0%} at most")
    return wrong


def main():
    arguments = sys.argv[1:]
    show_long = "--long" in arguments
    named = [Path(a) for a in arguments if a != "--long"]
    kinds = [f"*{suffix}" for suffix in (".md", *CODE)]
    listed = subprocess.run(["git", "ls-files", *kinds], capture_output=True, text=True, check=True)
    paths = named or [Path(line) for line in listed.stdout.splitlines() if Path(line).exists()]
    wrong = check(paths, show_long)
    print(*wrong, sep="\n")
    if wrong:
        sys.exit(f"{len(wrong)} wrong")


if __name__ == "__main__":
    main()
