"""A run over a part: whatever is asked for, the scanner looks at each path once, in order, and hands back
what may be about to return."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from harness import Backup
from patterns import lines
from scanned import parts, scan, tree
from trees import change, files_below, grow

from pipeline.model import message, treepath
from pipeline.model.scope import Part, Scope, in_scan_order


def gone(scope: Scope, *paths: str) -> Scope:
    return scope._replace(gone=frozenset(map(tree, paths)))


@pytest.fixture
def known(backup: Backup) -> Backup:
    """A backup of a small tree."""
    backup.write({"one": "1", "a/two": "2", "a/b/three": "3", "a/b/c/four": "4", "d/five": "5"})
    backup.run()
    return backup


def test_only_what_was_asked_for(known: Backup) -> None:
    """Single files, a known folder alone, a folder as a whole."""
    assert scan(known, parts("docs/a/two")) == [(message.FILE, "docs/a/two")]
    assert scan(known, parts("docs/a")) == [(message.FOLDER, "docs/a")]
    assert scan(known, parts("docs/a/b/")) == [
        (message.FOLDER, "docs/a/b"),
        (message.FOLDER, "docs/a/b/c"),
        (message.FILE, "docs/a/b/c/four"),
        (message.FILE, "docs/a/b/three"),
    ]


def test_what_is_new_is_looked_at_as_a_whole_and_once(known: Backup) -> None:
    """Also where its folder was asked for alone, and paths in it beside it."""
    known.write({"new/x": "x", "new/deep/y": "y"})
    everything = [
        (message.FOLDER, "docs/new"),
        (message.FOLDER, "docs/new/deep"),
        (message.FILE, "docs/new/deep/y"),
        (message.FILE, "docs/new/x"),
    ]
    assert scan(known, parts("docs/new")) == everything
    assert scan(known, parts("docs/new", "docs/new/x")) == everything
    assert scan(known, parts("docs/new/deep/y", "docs/new/x")) == everything
    assert scan(known, parts("docs/new/deep/")) == everything


def test_what_is_missing_is_deleted_where_it_is_said_to_be_gone(known: Backup) -> None:
    """Elsewhere it is handed back, the topmost missing folder for all that was in it."""
    for place in files_below(known.source / "a"):
        place.unlink()
    for folder in ("a/b/c", "a/b", "a"):
        (known.source / folder).rmdir()
    asked = parts("docs/a/b/three")
    assert scan(known, asked) == [(message.ABSENT, "docs/a")]
    missing = ["docs/a", "docs/a/b", "docs/a/b/c", "docs/a/b/c/four", "docs/a/b/three", "docs/a/two"]
    assert scan(known, gone(asked, "docs/a")) == [(message.MISSING, path) for path in missing]
    assert scan(known, gone(parts("docs/a/"), "docs/a/b")) == [
        (message.ABSENT, "docs/a"),
        *((message.MISSING, path) for path in missing[1:5]),
    ]


def test_what_waits_is_left_alone(known: Backup) -> None:
    """Files that change at the moment, and what is missing there, also below a folder that is said to be
    gone."""
    known.write({"a/two": "other", "a/new": "new"})
    (known.source / "a/b/three").unlink()
    waiting = frozenset(map(tree, ("docs/a/two", "docs/a/b/three")))
    scope = gone(parts("docs/a/"), "docs/a")._replace(waiting=waiting)
    assert scan(known, scope) == [
        (message.FOLDER, "docs/a"),
        (message.FOLDER, "docs/a/b"),
        (message.FOLDER, "docs/a/b/c"),
        (message.FILE, "docs/a/b/c/four"),
        (message.FILE, "docs/a/new"),
    ]


def test_something_else_in_a_folder_s_place_waits(known: Backup) -> None:
    """A folder that is a link for a moment is no deletion of all that was in it."""
    (known.source / "a").rename(known.source / "aside")
    (known.source / "a").symlink_to("aside")
    assert scan(known, parts("docs/a")) == [(message.ABSENT, "docs/a")]
    assert scan(known, gone(parts("docs/a"), "docs/a"))[0] == (message.LINK, "docs/a")


def test_excluded_folders_are_not_entered(known: Backup) -> None:
    """Whatever is asked for in them."""
    assert scan(known, parts("docs/a/b/three", "docs/d/five"), patterns=lines("b/")) == [
        (message.FILE, "docs/d/five")
    ]


@pytest.mark.parametrize("seed", range(6))
def test_each_path_once_and_in_order(backup: Backup, seed: int) -> None:
    """For any tree, changes and question: nothing twice, all of it in scan order, and nothing left out
    of what was asked for as a whole."""
    grow(backup.source, 60, seed=seed)
    backup.run()
    change(backup.source, seed=seed, share=0.3)
    chance = random.Random(seed)
    for _ in range(5):
        asked = _any_parts(backup.source, chance)
        found = scan(backup, Scope(in_scan_order(asked), frozenset()))
        paths = [tree(path) for _, path in found]
        assert paths == sorted(set(paths))
        for part in asked:
            if part.whole:
                missing = set(_on_disk(backup.source, part.path)) - set(paths)
                assert not missing, (part, missing)


def _any_parts(source: Path, chance: random.Random) -> list[Part]:
    everything = [tree(f"docs/{place.relative_to(source)}") for place in sorted(source.rglob("*"))]
    chosen = chance.sample(everything, min(8, len(everything)))
    return [Part(path, chance.random() < 0.3) for path in [*chosen, b"docs\0nowhere\0at all"]]


def _on_disk(source: Path, path: bytes) -> Iterable[bytes]:
    place = source / os.fsdecode(treepath.relative(path))
    if place.is_dir() and not place.is_symlink():
        for inner in place.rglob("*"):
            yield tree(f"docs/{inner.relative_to(source)}")
