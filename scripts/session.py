#!/usr/bin/env python3
"""Runs a terminal session with the tool, and draws it as docs/session.svg.

    cargo build --release -p sockpipe-cli && scripts/session.py

SOCKPIPE names another program than target/release/sockpipe. The numbers are this machine's. The
runtime directory and the program's path are drawn as an ordinary user has them. Root runs the session as such
a user.
"""

import html
import os
import pathlib
import pwd
import subprocess
import tempfile
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
TOOL = pathlib.Path(os.environ.get("SOCKPIPE", TARGET / "release" / "sockpipe")).resolve()
COLUMNS, LINE, CHARACTER, MARGIN = 80, 19, 8.43, 16
USER = 1000
DRAWN = ("/run/user/1000", "/usr/local/bin/sockpipe", "(alice)")

# The first command runs in the background until the end.
SESSION = [
    "sockpipe echo hello &",
    "echo 'a line' | sockpipe connect hello",
    "sockpipe ping hello",
    "sockpipe info hello | head -7",
    "sockpipe listen hello",
    "sockpipe connect helo",
]


def run():
    """Runs the session, and returns its lines."""
    with tempfile.TemporaryDirectory() as home:
        path = f"{TOOL.parent}:{os.environ['PATH']}"
        shell = {"env": {"PATH": path, "XDG_RUNTIME_DIR": home}, "text": True, "cwd": home}
        if os.geteuid() == 0:
            os.chown(home, USER, USER)
            shell |= {"user": USER, "group": USER, "extra_groups": []}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        background, *rest = SESSION
        server = subprocess.Popen(["sh", "-c", "exec " + background.rstrip(" &")], **shell, **pipes)
        try:
            lines = [f"$ {background}", server.stdout.readline().rstrip()]
            for command in rest:
                out = subprocess.run(["sh", "-c", command], **shell, **pipes, timeout=60).stdout
                lines += [f"$ {command}", *out.splitlines()]
        finally:
            server.terminate()
            server.wait()
        for real, drawn_as in zip((home, str(TOOL), f"({name()})"), DRAWN):
            lines = [line.replace(real, drawn_as) for line in lines]
        # For that user, the system and the variable name the same directory.
        twice = f"{DRAWN[0]}/helo.sock, "
        lines = [line.replace(twice + twice, twice) for line in lines]
        return [part for line in lines for part in broken(line)]


def name():
    try:
        return pwd.getpwuid(USER if os.geteuid() == 0 else os.geteuid()).pw_name
    except KeyError:
        return "alice"


def broken(line):
    """Breaks a line as a terminal of 80 columns shows it."""
    return textwrap.wrap(line, COLUMNS, drop_whitespace=False, subsequent_indent="  ") or [""]


def drawn(lines):
    width = round(COLUMNS * CHARACTER + 2 * MARGIN)
    height = len(lines) * LINE + 2 * MARGIN
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
    yield "<title>A session with sockpipe's echo, connect, ping, info and listen</title>"
    yield f'<rect width="{width}" height="{height}" rx="8" fill="#1b1f24"/>'
    yield '<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14">'
    for number, line in enumerate(lines):
        colour = "#7ee787" if line.startswith("$ ") else "#ff7b72" if line.startswith("error:") else "#e6edf3"
        y = MARGIN + number * LINE + 14
        # SVG shows several spaces as one.
        text = html.escape(line, quote=False).replace(" ", "\N{NO-BREAK SPACE}")
        yield f'<text x="{MARGIN}" y="{y}" fill="{colour}">{text}</text>'
    yield "</g>"
    yield "</svg>"


if __name__ == "__main__":
    (ROOT / "docs" / "session.svg").write_text("\n".join(drawn(run())) + "\n")
