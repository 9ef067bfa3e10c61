"""Filters mean what git means: on generated trees and patterns, what is left out is what git ignores."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.filters import Filter

WORDS = ("a", "b", "ab", "build", "cache", "doc", "x.tmp", "y.log", "z.txt", "[c]", "we ird", "!", "#h", "ü")
PIECES = (
    *("a", "b", "ab", "build", "cache", "doc", "*", "**", "?", "*.tmp", "*.log", "z.*", "[ab]", "[!a]", "x*"),
    *("\\#h", "\\!", "we ird", "we\\ ird", "[[]c]", "b*d", "**b", "ü", "[a-c]*", "a?", "*.t?t"),
)


def some_pattern(chance: random.Random) -> str:
    pieces = [chance.choice(PIECES) for _ in range(chance.choice((1, 1, 1, 2, 2, 3)))]
    text = "/".join(pieces)
    if chance.random() < 0.2:
        text = "/" + text
    if chance.random() < 0.25:
        text += "/"
    return "!" + text if chance.random() < 0.25 else text


def some_tree(root: Path, chance: random.Random) -> list[str]:
    """Files and folders; out: their paths, folders with a slash behind them."""
    folders = [""]
    for _ in range(25):
        folder = chance.choice(folders) + chance.choice(WORDS) + "/"
        if folder.count("/") < 5 and not (root / folder.rstrip("/")).exists():
            (root / folder).mkdir()
            folders.append(folder)
    paths = folders[1:]
    for _ in range(120):
        name = chance.choice(folders) + chance.choice(WORDS)
        if not (root / name).exists():
            (root / name).write_text("x")
            paths.append(name)
    return paths


def left_out(root: Path, patterns: list[str]) -> set[str]:
    """What a walk doesn't come to: it doesn't enter a folder that is left out."""
    rules, out = Filter(tuple(patterns)), set[str]()
    for folder, folders, files in os.walk(root):
        inside = os.path.relpath(folder, root)
        start = "" if inside == "." else inside + "/"
        is_out = start in out
        for name in [*folders, *files]:
            is_folder = name in folders
            path = start + name + "/" * is_folder
            if is_out or rules.excludes(os.fsencode(start + name), is_folder):
                out.add(path)
    return out


def ignored(root: Path, patterns: list[str], paths: list[str]) -> set[str]:
    """What git says of them."""
    (root / ".gitignore").write_text("\n".join(patterns) + "\n")
    subprocess.run(["git", "init", "-q", root], check=True, timeout=60)
    asked = "\0".join(path.rstrip("/") for path in paths)
    told = subprocess.run(
        ["git", "-c", "core.excludesFile=/dev/null", "check-ignore", "--stdin", "-z", "--no-index"],
        input=asked, capture_output=True, text=True, cwd=root, timeout=60, check=False,
    )  # fmt: skip
    assert told.returncode in (0, 1), told.stderr
    names = set(told.stdout.split("\0"))
    return {path for path in paths if path.rstrip("/") in names}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the judge")
@pytest.mark.parametrize("seed", range(8))
def test_what_git_ignores_is_left_out(tmp_path: Path, seed: int) -> None:
    """Hundreds of patterns, some at a time: names, paths, wildcards, classes, escapes, folders, negations."""
    chance = random.Random(seed)
    root = tmp_path / "tree"
    root.mkdir()
    paths = some_tree(root, chance)
    for number in range(12):
        patterns = [some_pattern(chance) for _ in range(chance.choice((1, 2, 4, 8)))]
        ours, gits = left_out(root, patterns), ignored(root, patterns, paths)
        for place in (".git/", ".gitignore"):
            ours.discard(place)
        ours = {path for path in ours if not path.startswith(".git/")}
        assert ours == gits, (number, patterns, sorted(ours ^ gits)[:5])
        shutil.rmtree(root / ".git")
        (root / ".gitignore").unlink()
