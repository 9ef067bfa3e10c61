"""What is left out: gitignore patterns in git's own meaning, compared with git itself.

The scanner asks `excludes` for each entry and doesn't enter an excluded folder; `excludes_known` answers for
paths that are only in the state, with the folders above them taken into account. An exclusion is never taken
for a deletion, so the two have to agree.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from patterns import lines

from pipeline.filters import Filter

FILES = [
    "a", "b", "a.txt", "b.log", "é.txt", " lead", "#hash", "!bang", "build/a", "build/keep/a", 
    "build/keep/b.log",
    "src/a", "src/a.txt", "src/build/a", "src/deep/build/b.log", "src/deep/a", "src/x[1]", "docs/a.txt",
    "docs/A",
]  # fmt: skip
NON_UTF8 = [b"\xff", b"src/\xfe.log", b"\xe9/a.txt"]
PATTERNS = [
    "a", "/a", "a/", "*.log", "*.txt", "build", "build/", "/build/", "build/*", "!build/keep", "!build/keep/",
    "src/*", "!src/a.txt", "!/src/deep/", "**/build", "src/**", "src/**/a", "**/keep/*", "*", "/*", "!/src/",
    "!*.txt", "[ab]", "[!a]", "?", "# comment", "", "\\#hash", "\\!bang", "!a", "!b.log", "é*", "a ",
    "docs/[A-Z]", "src/x\\[1\\]", "!src", "*/", "!*/",
]  # fmt: skip


def write(root: Path, files: list[bytes]) -> None:
    for name in files:
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass


def entries(files: list[bytes]) -> dict[bytes, bool]:
    """All paths, and whether they are folders."""
    found = dict.fromkeys(files, False)
    for name in files:
        while name := name.rpartition(b"/")[0]:
            found[name] = True
    return found


TREE = entries([os.fsencode(name) for name in FILES] + NON_UTF8)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is the judge here, and it is missing")
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", root], check=True, timeout=20)
    write(root, [path for path, is_folder in TREE.items() if not is_folder])
    return root


def ignored_by_git(root: Path, patterns: tuple[str, ...]) -> set[bytes]:
    (root / ".git/info/exclude").write_text("".join(f"{pattern}\n" for pattern in patterns))
    command = ["git", "-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "-z", "--stdin"]
    done = subprocess.run(command, cwd=root, input=b"\0".join(TREE), capture_output=True, timeout=20)
    assert done.returncode in (0, 1), done.stderr
    return set(done.stdout.split(b"\0")) - {b""}


def excluded(patterns: tuple[str, ...]) -> set[bytes]:
    filter_ = Filter(lines(*patterns))
    return {path for path, is_folder in TREE.items() if filter_.excludes_known(path, is_folder)}


def walked(patterns: tuple[str, ...]) -> set[bytes]:
    """What a walk leaves out that doesn't enter excluded folders: the scanner's way."""
    filter_, out = Filter(lines(*patterns)), set[bytes]()
    for path, is_folder in sorted(TREE.items()):
        if path.rpartition(b"/")[0] in out or filter_.excludes(path, is_folder):
            out.add(path)
    return out


@pytest.mark.parametrize(
    "patterns",
    [
        ("*.log",),
        ("build/", "!build/keep"),
        ("build/*", "!build/keep", "build/keep/*.log"),
        ("/*", "!/src"),
        ("*", "!*/", "!*.txt"),
        ("*", "!src", "!src/a"),
        ("src/**", "!src/deep/", "!src/deep/a"),
        ("**/build",),
        ("a",),
        ("a/",),
        ("[ab]", "!b"),
        ("é*",),
        ("*.txt", "!docs/", "!docs/*.txt"),
    ],
    ids=" ".join,
)
def test_the_answers_are_git_s(repository: Path, patterns: tuple[str, ...]) -> None:
    assert excluded(patterns) == ignored_by_git(repository, patterns)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(patterns=("src/**",))
@given(patterns=st.lists(st.sampled_from(PATTERNS), max_size=4).map(tuple))
def test_any_patterns_mean_what_they_mean_to_git(repository: Path, patterns: tuple[str, ...]) -> None:
    assert excluded(patterns) == ignored_by_git(repository, patterns)


@settings(max_examples=60, deadline=None)
@given(patterns=st.lists(st.sampled_from(PATTERNS), max_size=4).map(tuple))
def test_what_is_known_is_judged_as_what_is_listed(patterns: tuple[str, ...]) -> None:
    """Otherwise an excluded file of the state would count as deleted."""
    assert excluded(patterns) == walked(patterns)


@pytest.mark.parametrize(
    ("patterns", "path", "is_folder", "expected"),
    [
        # the last pattern that matches decides
        (("*.log", "!keep.log"), b"keep.log", False, False),
        (("!keep.log", "*.log"), b"keep.log", False, True),
        # anchored to the source's root, or anywhere
        (("/a",), b"a", False, True),
        (("/a",), b"x/a", False, False),
        (("a",), b"x/y/a", False, True),
        (("x/a",), b"y/x/a", False, False),
        # only folders
        (("a/",), b"a", True, True),
        (("a/",), b"a", False, False),
        # what lies in an excluded folder can't be included again
        (("build/", "!build/keep"), b"build/keep", False, True),
        (("build/", "!build/"), b"build/keep", False, False),
        (("build/*", "!build/keep"), b"build/keep", False, False),
        # names are bytes
        (("*.log",), b"\xff\xfe.log", False, True),
        (("*.log",), b"\xff/\xfe.txt", False, False),
        (("\udcff",), b"\xff", False, True),
        (("a*",), b"a\nb", False, True),
        (("*.txt",), "é/日本.txt".encode(), False, True),
        # comments and nothing
        (("# a",), b"# a", False, False),
        (("", "#"), b"a", False, False),
        ((), b"a", False, False),
    ],
)
def test_single_answers(patterns: tuple[str, ...], path: bytes, is_folder: bool, expected: bool) -> None:
    assert Filter(lines(*patterns)).excludes_known(path, is_folder) is expected


def test_patterns_that_are_written_to_take_long() -> None:
    """Whoever may write into the tree may write a pattern; it takes no longer than the paths are long."""
    rules = Filter(lines("*a" * 60 + "b", "/" + "*a" * 60 + "b", "**/a/" * 100 + "b", "[ab]*" * 60 + "c"))
    assert not rules.excludes(b"a" * 255, False)
    assert not rules.excludes(b"/".join([b"a"] * 2000), False)
    assert Filter(lines("**/a/" * 100 + "b")).excludes(b"/".join([b"a"] * 2000) + b"/b", False)


def test_no_patterns_cost_nothing() -> None:
    assert Filter(()).is_empty
    assert not Filter(lines("a")).is_empty
    assert not Filter(()).excludes(b"a", False)
