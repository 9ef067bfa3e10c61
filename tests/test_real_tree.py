"""A real tree: the standard library and the site-packages of the running interpreter, twice."""

from __future__ import annotations

import filecmp
import os
import shutil
import sysconfig
from pathlib import Path

import pytest
from harness import NOTHING_DONE, Backup, exact
from trees import walk

ELSEWHERE = ("site-packages", "dist-packages")
PARTS = [
    pytest.param(("test", "__pycache__"), id="without tests and byte code"),
    pytest.param((), id="all of it", marks=pytest.mark.slow),
]


def copy_library(base: Path, name: str, left_out: tuple[str, ...]) -> str:
    """A copy, because the interpreter may write into its own libraries while the test runs."""
    library = sysconfig.get_paths()[name]
    shutil.copytree(library, base / name, symlinks=True, ignore=shutil.ignore_patterns(*ELSEWHERE, *left_out))
    return name


@pytest.fixture(params=PARTS)
def libraries(tmp_path: Path, request: pytest.FixtureRequest) -> Backup:
    names = [copy_library(tmp_path, name, request.param) for name in ("stdlib", "purelib")]
    return Backup(tmp_path, sources=names, settings={"workers.count": 0})


def test_a_real_tree_twice(libraries: Backup) -> None:
    """The first run stores every file byte for byte where the export says, live or under `_duplicates/`; the
    second run does nothing and says so."""
    first = libraries.run("--json")
    entries = libraries.entries()
    compared = 0
    for name, root in libraries.source_roots().items():
        for relative, entry in walk(root):
            if not entry.is_file(follow_symlinks=False):
                continue
            stored_at = exact(entries[f"{name}/{relative}"], "stored_at")
            place = f"{name}/{relative}"
            assert stored_at in (place, f"_duplicates/{place}")
            assert filecmp.cmp(entry.path, libraries.root / stored_at, shallow=False), place
            compared += 1
    assert compared == first.summary["files"] > 2000
    assert first.summary["bytes_read"] >= sum(
        os.path.getsize(entry.path)
        for root in libraries.source_roots().values()
        for _, entry in walk(root)
        if entry.is_file(follow_symlinks=False)
    )
    second = libraries.run("--json")
    assert second.log == ["Run complete"]
    assert {key: second.summary[key] for key in NOTHING_DONE} == NOTHING_DONE
    assert second.summary["skip"] == first.summary["files"] + sum(
        entry.is_symlink() for root in libraries.source_roots().values() for _, entry in walk(root)
    )
