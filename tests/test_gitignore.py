"""Filters mean what git means: on generated trees and patterns, what is left out is what git ignores."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from patterns import lines

from pipeline import globs
from pipeline.filters import Filter, Line, compile_pattern, lines_of
from pipeline.stages.ignore_file import NAME

IGNORE_FILE = NAME.decode()
WORDS = ("a", "b", "ab", "build", "cache", "doc", "x.tmp", "y.log", "z.txt", "[c]", "we ird", "!", "#h", "ü")
PIECES = (
    *("a", "b", "ab", "build", "cache", "doc", "*", "**", "?", "*.tmp", "*.log", "z.*", "[ab]", "[!a]", "x*"),
    *("[[:alpha:]]", "[^[:punct:]]*", "[a\\]c]", "[]c[]*", "a[!x]b", "a[.-/]b", "a**", "**/b"),
    *("[z-a]", "[a", "b\\"),
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
    """What a walk doesn't come to: it doesn't enter a folder that is left out, nor reads rules in it.

    patterns: of the configuration.
    """
    rules_of: dict[str, Filter | None] = {}
    out = set[str]()
    for folder, folders, files in os.walk(root):
        inside = os.path.relpath(folder, root)
        start = "" if inside == "." else inside + "/"
        rules = Filter().within(b"", lines(*patterns))[0] if not start else rules_of[start]
        if rules is not None and IGNORE_FILE in files:
            content = (Path(folder) / IGNORE_FILE).read_bytes()
            rules, _ = rules.within(os.fsencode(start.rstrip("/")), lines_of(content, start + IGNORE_FILE))
        for name in [*folders, *files]:
            is_folder = name in folders
            path = start + name + "/" * is_folder
            is_out = rules is None or rules.excludes(os.fsencode(start + name), is_folder)
            if is_folder:
                rules_of[path] = None if is_out else rules
            if is_out:
                out.add(path)
    return {path for path in out if not path.startswith(".git/")}


def ignored(root: Path, patterns: list[str], paths: list[str]) -> set[str]:
    """What git says of them. patterns: weaker than those of every file in the tree."""
    subprocess.run(["git", "init", "-q", root], check=True, timeout=60)
    (root / ".git/info/exclude").write_text("\n".join(patterns) + "\n")
    asked = "\0".join(path.rstrip("/") for path in paths)
    told = subprocess.run(
        ["git", "-c", "core.excludesFile=/dev/null", "check-ignore", "--stdin", "-z", "--no-index"],
        input=asked, capture_output=True, text=True, cwd=root, timeout=60, check=False,
    )  # fmt: skip
    assert told.returncode in (0, 1), told.stderr
    names = set(told.stdout.split("\0"))
    return {path for path in paths if path.rstrip("/") in names}


def some_patterns(chance: random.Random) -> list[str]:
    return [some_pattern(chance) for _ in range(chance.choice((1, 2, 4, 8)))]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the judge")
@pytest.mark.parametrize("seed", range(8))
def test_what_git_ignores_is_left_out(tmp_path: Path, seed: int) -> None:
    """Hundreds of patterns, some at a time: names, paths, wildcards, classes, escapes, folders, negations."""
    chance = random.Random(seed)
    root = tmp_path / "tree"
    root.mkdir()
    paths = some_tree(root, chance)
    for number in range(12):
        patterns = some_patterns(chance)
        ours, gits = left_out(root, patterns), ignored(root, patterns, paths)
        assert ours - {".git/"} == gits, (number, patterns, sorted(ours ^ gits)[:5])
        shutil.rmtree(root / ".git")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the judge")
@pytest.mark.parametrize("seed", range(8))
def test_files_of_rules_anywhere_in_the_tree(tmp_path: Path, seed: int) -> None:
    """The configuration's patterns, then the root's file, then those of deeper folders: the last one that
    matches decides, and each is about what lies below its own folder."""
    chance = random.Random(1000 + seed)
    root = tmp_path / "tree"
    root.mkdir()
    paths = some_tree(root, chance)
    folders = ["", *(path for path in paths if path.endswith("/"))]
    for number in range(8):
        places = [root / folder for folder in chance.sample(folders, min(len(folders), 6))]
        for place in places:
            content = chance.choice(("\n", "\r\n")).join([*some_patterns(chance), ""])
            for name in (IGNORE_FILE, ".gitignore"):
                (place / name).write_bytes(content.encode())
        patterns = some_patterns(chance)
        ours, gits = left_out(root, patterns), ignored(root, patterns, paths)
        of_tree = {path for path in ours if path in set(paths)}
        assert of_tree == gits, (number, patterns, sorted(of_tree ^ gits)[:5])
        shutil.rmtree(root / ".git")
        for place in places:
            (place / IGNORE_FILE).unlink()
            (place / ".gitignore").unlink()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the judge")
@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfa\n",  # a byte order mark
        b"a\r\nb \r\n",
        b"a  \nwe ird\\ \nb\\  \n",  # spaces at the end; escaped ones
        b"z.txt",  # no line break at the end
        "\u00e0\n\u0420/\n\u00fc\n".encode(),  # bytes that are space in Latin-1
        b"a\t\nb\x0b\n",
        b"/d[!x]ab\nd[.-/]b\n",  # sets never match a slash
        b"#a\n\\#h\n!\n\n   \n/\n*\n!/b\n",
        b"*.t?t\n\xff\n[[:nothing:]]\na\\\nb/\\\n",
    ],
)
def test_the_form_of_a_file_of_rules(tmp_path: Path, content: bytes) -> None:
    """Lines are taken apart as git does it."""
    root = tmp_path / "tree"
    names = [*WORDS, "\u00e0", "\u0420", "we ird ", "b ", "a\t", "b\x0b"]
    paths = [*names, *(f"d/{name}" for name in names if name != "a"), "a\x0b"]
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    for name in (IGNORE_FILE, ".gitignore"):
        (root / name).write_bytes(content)
    asked = [*paths, "d/"]
    assert left_out(root, []) & set(asked) == ignored(root, [], asked)


def test_long_patterns_take_no_space() -> None:
    """Anybody may write a pattern where they may write into a source: what becomes of it is about as long as
    it is, and what no path can match is no pattern."""
    for pattern in ("[!a]" * 1000, "[!a-z]*" * 500, "*" * 4000):
        expression = globs.expression_of(pattern.encode())
        assert len(expression) < 20 * len(pattern)
    with pytest.raises(ValueError, match="longer"):
        compile_pattern(Line("a" * 5000, "here"))
