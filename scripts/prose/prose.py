#!/usr/bin/env python3
"""Measures the project's words; scripts/prose.sh runs it. The counts find places: a reader decides."""

import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LONGEST_RUN = 15
CODE_COLUMNS, PAGE_COLUMNS = 100, 110

# How many places of each kind are left. A change may lower a limit and must not raise one.
LIMITS = {
    "banned phrases": 0,
    "summaries without a verb": 0,
    "long runs of code": 0,
    "long lines": 0,
    "dead links": 0,
    "unknown words": 0,
}


def lines_of(name):
    """Returns the entries of one of our lists, without its comments."""
    text = (HERE / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def tracked(*patterns):
    listed = subprocess.run(["git", "ls-files", "--", *patterns], capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        return [Path(name) for name in listed.stdout.splitlines() if Path(name).exists()]
    return sorted(path for pattern in patterns for path in Path().glob(pattern))


def pages():
    return tracked("*.md")


def sources(*folders):
    return [path for folder in folders for path in tracked(f"{folder}/*.rs")]


def banned():
    """Finds phrases of the list, in pages, comments, messages and help."""
    phrases = [re.compile(line, re.IGNORECASE) for line in lines_of("banned")]
    for path in pages() + sources("src", "cli/src", "examples"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            # This also checks names in code.
            for phrase in phrases:
                if found := phrase.search(line):
                    yield f"{path}:{number}: {found.group(0)!r} in {line.strip()!r}"


def verbless(documentation):
    """Finds public functions and methods whose summary does not begin with a verb."""
    verbs = set(lines_of("verbs"))

    def starts_well(summary):
        first = re.match(r"[A-Za-z]+", summary)
        return first is not None and first.group(0).lower() in verbs

    for item in json.loads(Path(documentation).read_text())["index"].values():
        if item["crate_id"] == 0 and "function" in item["inner"] and item["docs"]:
            # The summary of an implemented method is the trait's; only its errors differ.
            if not item["docs"].startswith("#") and not starts_well(item["docs"]):
                where = f"{item['span']['filename']}:{item['span']['begin'][0]}"
                yield f"{where}: {item['name']}: {item['docs'].splitlines()[0]!r}"
    # The JSON of another system lacks the items that only Windows has.
    for path in sources("src/windows"):
        if path.name == "ext.rs" or path.parent.name == "ext":
            text = path.read_text()
            for summary, name in re.findall(
                r"^ +/// (.*)\n(?: +///.*\n| +#\[.*\n)* +(?:pub )?(?:const )?(?:async )?fn (\w+)",
                without_more(text),
                re.MULTILINE,
            ):
                if not starts_well(summary):
                    yield f"{path}: {name}: {summary!r}"


def without_more(text):
    """Returns the text, with only the first line of each comment."""
    kept, within = [], False
    for line in text.splitlines():
        is_comment = line.lstrip().startswith("///")
        if not (is_comment and within):
            kept.append(line)
        within = is_comment
    return "\n".join(kept)


def runs():
    """Finds runs of code inside a function's body without a blank line or a comment."""
    start = re.compile(r"^( *)(?:pub(?:\([a-z ]+\))? )?(?:const |async |unsafe |extern \"\w+\" )*fn (\w+)")
    for path in sources("src", "cli/src"):
        ends, run, began = [], 0, 0
        for number, line in enumerate(path.read_text().splitlines(), 1):
            opened = start.match(line)
            if opened and not line.rstrip().endswith((";", "}")):
                ends.append((opened.group(1) + "}", opened.group(2)))
                run = 0
                continue
            closes = ends and line == ends[-1][0]
            if not ends or closes or not line.strip() or line.lstrip().startswith("//"):
                if run > LONGEST_RUN:
                    yield f"{path}:{began}: {run} lines in {ends[-1][1] if ends else '?'}"
                run = 0
                if closes:
                    ends.pop()
                continue
            if line.lstrip().startswith(("where", "->", ") ->")) or line.strip() == "{":
                run = 0
                continue
            if run == 0:
                began = number
            run += 1


def long_lines():
    # A row of a table or an address cannot be broken.
    whole = re.compile(r"^\s*(//[/!] )?\||https?://")

    files = [(path, PAGE_COLUMNS) for path in pages()]
    files += [(path, CODE_COLUMNS) for path in tracked("*.rs")]
    for path, limit in files:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if len(line) > limit and not whole.search(line):
                yield f"{path}:{number}: {len(line)} columns"


def anchors(page):
    for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        yield re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def dead_links():
    """Finds dead links of the pages to files and headings. rustdoc checks the links of the code."""
    for page in pages():
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            # rustdoc resolves paths and intra-doc links, and reports those that it cannot resolve.
            if "://" in target or "::" in target or target.startswith("mailto:"):
                continue
            name, _, anchor = target.partition("#")
            found = page.parent / name if name else page
            if not found.exists():
                yield f"{page}: {target}"
            elif anchor and found.suffix == ".md" and anchor not in anchors(found):
                yield f"{page}: {target}: no such heading"


def prose():
    """Returns the words of pages and doc comments, without code and links."""
    for path in pages():
        text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        yield from ((path, line) for line in text.splitlines())
    for path in sources("src", "cli/src"):
        fenced = False
        for line in path.read_text().splitlines():
            comment = re.match(r"\s*//[/!]? ?(.*)", line)
            if not comment:
                fenced = False
                continue
            if comment.group(1).startswith("```"):
                fenced = not fenced
            elif not fenced:
                yield path, comment.group(1)


def unknown_words():
    strip = re.compile(r"`[^`]*`|\]\([^)]*\)|<[^>]*>|https?://\S+|\S*[_/\\@]\S*|\b\w*\d\w*\b")
    seen = {}
    for path, line in prose():
        for word in re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", strip.sub(" ", line)):
            seen.setdefault(word, path)
    known = set(lines_of("words"))
    asked = "\n".join(f"^{word}" for word in seen)
    result = subprocess.run(
        ["aspell", "list", "--lang=en", "--encoding=utf-8", "--ignore=1"],
        input=asked, capture_output=True, text=True, check=True,
    )
    for word in sorted(set(result.stdout.split())):
        # Skips names of items, systems and signals.
        if re.search(r"\w[A-Z]", word):
            continue
        if word not in known and word.lower() not in known and word.removesuffix("'s").lower() not in known:
            yield f"{seen.get(word, '?')}: {word}"


def main():
    documentation, how = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    measures = {
        "banned phrases": banned(),
        "summaries without a verb": verbless(documentation),
        "long runs of code": runs(),
        "long lines": long_lines(),
        "dead links": dead_links(),
        "unknown words": unknown_words(),
    }
    worse = False
    counts = []
    for name, found in measures.items():
        found = list(found)
        if how != "count" and len(found) > 0:
            print(f"== {name}", *found, sep="\n")
        over = len(found) > LIMITS[name]
        worse |= over
        counts.append(f"{len(found):5}  {name}" + (f", over {LIMITS[name]}" if over else ""))
    print(*counts, sep="\n")
    return worse


sys.exit(main())
