"""Holds the dependency tree that is really built against deny.toml and the pins of Cargo.toml.

A small part of what cargo-deny does, from `cargo tree` alone, so that every test run checks it. The tree is that of
the product: dev-dependencies are left out.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Crates whose exact release the manifest must pin: an open request for them resolves to an ancient one.
PINNED = ("webrtc", "rtc")


def built_crates():
    """Every crate in the product's tree as (name, version, licence expression)."""
    command = ["cargo", "tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p}|{l}"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = set()
    for line in output.splitlines():
        package, _, licence = line.removesuffix(" (*)").partition("|")
        if package:
            name, version = package.split()[:2]
            found.add((name, version.removeprefix("v"), licence.removesuffix(" (*)").strip()))
    return sorted(found)


def permitted(expression, allowed):
    """Whether an SPDX expression can be met with `allowed` alone. The old `A/B` means `A OR B`."""
    words = re.findall(r"\(|\)|[A-Za-z0-9.+-]+", expression.replace("/", " OR "))
    position = 0

    def take():
        nonlocal position
        position += 1
        return words[position - 1] if position <= len(words) else ""

    def peek():
        return words[position] if position < len(words) else ""

    def any_of():
        met = all_of()
        while peek() == "OR":
            take()
            met = all_of() or met
        return met

    def all_of():
        met = one()
        while peek() == "AND":
            take()
            met = one() and met
        return met

    def one():
        word = take()
        if word == "(":
            met = any_of()
            return take() == ")" and met
        if peek() == "WITH":
            take()
            word = f"{word} WITH {take()}"
        return word in allowed

    return bool(words) and any_of() and position == len(words)


def problems():
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    allowed = set(rules["licenses"]["allow"])
    banned = {ban["crate"]: ban["reason"] for ban in rules["bans"]["deny"]}
    crates = built_crates()
    for name, version, licence in crates:
        if name in banned:
            yield f"{name} {version} is banned: {banned[name]}"
        if not permitted(licence, allowed):
            yield f"{name} {version}: licence {licence or 'missing'!r} is not covered by deny.toml"
    for name in PINNED:
        request = manifest["dependencies"][name]
        request = request if isinstance(request, str) else request["version"]
        built = [version for crate, version, _ in crates if crate == name]
        if not request.startswith("=") or built != [request.removeprefix("=")]:
            yield f"{name}: requested as {request!r}, built as {built}; it must be pinned by `=`"
    print(f"{len(crates)} crates, {len(allowed)} licences allowed, {len(banned)} crates banned, {len(PINNED)} pinned")


if __name__ == "__main__":
    found = list(problems())
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)
