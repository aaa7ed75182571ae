#!/usr/bin/env python3
"""Checks the licences and duplicates of all dependencies that the crate can have, by the rules of deny.toml.

This is the part of cargo-deny that needs no database: it reads `cargo metadata`. The workflow runs cargo-deny
itself, with its advisories.
"""

import json
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path


def allowed(expression, licences):
    """Whether `licences` satisfy an SPDX expression. OR binds less than AND. Crates use both, and also
    brackets and the old slash."""
    tokens = expression.replace("/", " OR ").replace("(", " ( ").replace(")", " ) ").split()

    def any_of():
        met = all_of()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            other = all_of()
            met = met or other
        return met

    def all_of():
        met = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            other = one()
            met = met and other
        return met

    def one():
        token = tokens.pop(0)
        if token == "(":
            met = any_of()
            tokens.pop(0)
            return met
        if tokens and tokens[0] == "WITH":
            token = f"{token} WITH {tokens[1]}"
            del tokens[:2]
        return token in licences

    return any_of()


def main():
    root = Path(__file__).resolve().parent.parent
    rules = tomllib.loads((root / "deny.toml").read_text())
    licences = set(rules["licenses"]["allow"])
    skipped = {entry["crate"].split("@")[0] for entry in rules["bans"]["skip"]}
    command = ["cargo", "metadata", "--locked", "--all-features", "--format-version", "1"]
    data = json.loads(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}

    # The packages that users of the crate and its tool get: not the dependencies of tests, nor of torture.
    shipped = [
        member
        for member in data["workspace_members"]
        if packages[member]["publish"] != []
    ]
    reached, todo = set(), list(shipped)
    while todo:
        member = todo.pop()
        if member in reached:
            continue
        reached.add(member)
        for dependency in nodes[member]["deps"]:
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"]):
                todo.append(dependency["pkg"])

    wrong = []
    versions = defaultdict(set)
    for member in reached:
        package = packages[member]
        name = f"{package['name']} {package['version']}"
        versions[package["name"]].add(package["version"])
        licence = package["license"]
        if licence is None or not allowed(licence, licences):
            wrong.append(f"{name}: the licence is {licence}")
        if not (package["source"] or "registry+").startswith("registry+"):
            wrong.append(f"{name}: it comes from {package['source']}")
    for name, found in sorted(versions.items()):
        if len(found) > 1 and name not in skipped:
            wrong.append(f"{name}: {len(found)} versions, {', '.join(sorted(found))}")
    print(f"{len(reached)} packages with all features: {len(wrong)} wrong")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
