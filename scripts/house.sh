#!/usr/bin/env bash
# Measures the structure of the code: top-level modules, code for other systems, import cycles, waits.
#
#   scripts/house.sh          prints a table with the measured values and the aims; fails if an aim is missed
set -euo pipefail
cd "$(dirname "$0")/.."

python3 - <<'PY'
import pathlib, re, statistics, sys

def files(*roots):
    return [p for root in roots for p in sorted(pathlib.Path(root).rglob("*.rs")) if "tests" not in p.parts
            and p.name != "tests.rs"]

def code(path):
    """Returns the code of a file without tests and comments."""
    text = path.read_text()
    text = re.split(r"#\[cfg\((?:all\()?test", text)[0] if re.search(r"#\[cfg\((?:all\()?test[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*mod tests \{", text) else text
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("//"))

def count(pattern, paths):
    return sum(len(re.findall(pattern, code(p))) for p in paths)

def room(path, root):
    """Returns the file at the top of `root` that a file belongs to."""
    first = path.relative_to(root).parts[0]
    return first.removesuffix(".rs")

def circles(root, prefix, skip=()):
    """Finds cycles of imports by `prefix` among the files at the top of `root`."""
    leads = {}
    names = {room(p, root) for p in files(root)}
    for path in files(root):
        here = room(path, root)
        for there in re.findall(prefix + r"(\w+)", code(path)):
            if there in names and there != here and here not in skip and there not in skip:
                leads.setdefault(here, set()).add(there)
    found, done = [], set()
    def walk(at, way):
        if at in way:
            circle = way[way.index(at):]
            key = frozenset(circle)
            if key not in done:
                done.add(key)
                found.append(" > ".join(circle + [at]))
            return
        for there in sorted(leads.get(at, ())):
            if len(way) < 12:
                walk(there, way + [at])
    for start in sorted(leads):
        walk(start, [])
    return found

src, unix, windows, cli = files("src"), files("src/unix"), files("src/windows"), files("cli/src")
tests = [p for root in ("src", "tests", "cli/tests", "examples") for p in pathlib.Path(root).rglob("*.rs")
         if "tests" in p.parts or p.name == "tests.rs"]
lengths = [len(p.read_text().splitlines()) for p in src]
largest = max(src, key=lambda p: len(p.read_text().splitlines()))
# Neutral code and a backend meet at the seam, and may import each other there.
around = circles("src", r"crate::", skip=("lib", "unix", "windows"))
inside = circles("src/unix", r"super::") + circles("src/windows", r"super::")
inside += circles("cli/src", r"crate::", skip=("main",))
# These sleeps delay no async call. Only blocking calls ask for a paused probe or a watch of threads, and on
# Windows a thread of the listener accepts clients.
threads = ("src/unix/stale.rs", "src/unix/gone.rs", "src/windows/accept.rs", "src/blocking", "src/unix/blocking",
           "src/windows/blocking")
asynchronous = [p for p in src if not str(p).startswith(threads)]
# An error whose message contains another error must have that one as its source too.
lost = []
for p in src:
    lines = code(p).splitlines()
    for number, line in enumerate(lines):
        if re.search(r'"[^"]*\{(?:error|errno)\}', line) and "panic!" not in line and "assert" not in line:
            if not any("caused_by(" in near for near in lines[number:number + 8]):
                lost.append(f"{p}: {line.strip()}")
rows = [
    ("files at the top of src", len(list(pathlib.Path("src").glob("*.rs"))), 19),
    ("median lines of a file", int(statistics.median(lengths)), 250),
    (f"lines of the largest ({largest})", max(lengths), 450),
    ("allow(dead_code) in src and cli", count(r"allow\([^)]*dead_code", src + cli) - count(r"doc\(test\(attr", src), 0),
    ("cfg(unix) or cfg(windows) below the seam", count(r"cfg\((?:not\()?(?:unix|windows)\b", [p for p in src if p.name != "lib.rs"]), 0),
    ("cfg(target_os) and its like below unix.rs", count(r"cfg\([^\]]*target_(?:os|vendor|env|family)", unix), 4),
    ("circles among the rooms of src", len(around), 0),
    ("circles within unix, windows and cli", len(inside), 0),
    ("back-offs written by hand", count(r"(?:pause|wait|delay|backoff)\w* \* 2\)\.min\(", [p for p in src + cli if p.name != "wait.rs"]), 0),
    ("replace or contains on messages in cli", count(r"to_string\(\)\.(?:replace|contains)\(|message\.(?:replace|contains)\(", cli), 0),
    ("thread::sleep outside of blocking code", count(r"thread::sleep\(", asynchronous), 0),
    ("errors that word another one and lose it", len(lost), 0),
    ("paths in attributes of src", count(r"#\[path", src), 0),
    # The unit tests of Windows include the file that the other tests have, to check whether this is Wine.
    ("paths in attributes of tests", sum(len(re.findall(r"#\[path", p.read_text())) for p in tests), 1),
]
# Assertions on texts check advice, causes that share a reason, and errors without a reason. All other
# assertions check the reason.
texts = sum(len(re.findall(r"assert_says\(&?(?!error: )|to_string\(\)\.(?:contains|starts_with)\(", p.read_text()))
            for p in pathlib.Path("tests").rglob("*.rs"))
rows.append(("assertions on texts of errors in tests", texts, 37))
missed = 0
for what, now, aim in rows:
    mark = "" if now <= aim else "  MISSED"
    missed += bool(mark)
    print(f"{what:<60} {now:>5}  aim {aim:>4}{mark}")
for place in lost:
    print(f"lost: {place}")
for circle in around + inside:
    print(f"circle: {circle}")
sys.exit(bool(missed))
PY
