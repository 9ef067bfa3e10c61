"""A path that changes from file to folder to link, in every direction, with all kinds of obstacles."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from harness import Backup
from trees import Fifo, Link, Tree, remove

SHAPES: dict[str, Tree] = {
    "file": {"x": "x as a file\n"},
    "copy": {"x": "other\n"},
    "empty file": {"x": ""},
    "folder": {"x": {"y": "y\n", "copy": "other\n", "deep": {"z": "z\n"}, "v1.bak": "named as a version\n"}},
    "empty folder": {"x": None},
    "link": {"x": Link("other")},
    "link to a folder": {"x": Link("..")},
    "pipe": {"x": Fifo()},
}
CONTENTS = [b"x as a file\n", b"other\n", b"y\n", b"z\n", b"named as a version\n"]


def reshape(backup: Backup, shape: str) -> None:
    remove(backup.source / "x")
    backup.write(SHAPES[shape])


def tour() -> list[str]:
    """A walk through the shapes that takes each step from one to another exactly once, and comes back."""
    steps = {shape: [other for other in SHAPES if other != shape] for shape in SHAPES}
    path, walked = [next(iter(SHAPES))], list[str]()
    while path:
        if steps[path[-1]]:
            path.append(steps[path[-1]].pop(0))
        else:
            walked.append(path.pop())
    return walked[::-1]


def test_the_tour_takes_every_step() -> None:
    """Every change of kind is tested, in both directions."""
    walked = tour()
    assert sorted(itertools.pairwise(walked)) == sorted(itertools.permutations(SHAPES, 2))


@pytest.mark.slow
def test_every_change_of_kind_in_one_history(tmp_path: Path) -> None:
    """A path that changes its kind never clashes with what is stored, in any of the four places, whatever
    the history before; content stays reachable and the latest is live."""
    backup = Backup(tmp_path, settings={"retention.max_versions_per_file": 1000})
    backup.write({"other": "other\n", **SHAPES["file"]})
    backup.run()
    for shape in tour()[1:]:
        reshape(backup, shape)
        backup.run()
        backup.assert_right()
    backup.assert_nothing_left_to_do()
    assert set(CONTENTS) <= backup.all_contents()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("file", "folder"),
        pytest.param("link", "folder", marks=pytest.mark.slow),
        ("file", "link"),
        pytest.param("copy", "empty folder", marks=pytest.mark.slow),
        pytest.param("pipe", "folder", marks=pytest.mark.slow),
    ],
)
def test_there_and_back_and_there_again(backup: Backup, one: str, other: str) -> None:
    """A file, folder or link that turns into another kind and back, twice, is stored each time as it is;
    what it was stays reachable, and no version number is used twice."""
    backup.write({"other": "other\n", **SHAPES[one]})
    backup.run()
    for shape in (other, one, other):
        reshape(backup, shape)
        backup.run()
        backup.assert_right()
    backup.assert_nothing_left_to_do()
    stored = {content for content in CONTENTS if any(content in _contents(SHAPES[s]) for s in (one, other))}
    assert stored <= backup.all_contents()


def _contents(tree: Tree) -> set[bytes]:
    found: set[bytes] = set()
    for what in tree.values():
        if isinstance(what, str):
            found.add(what.encode())
        elif isinstance(what, dict):
            found |= _contents(what)
    return found


def test_an_old_link_is_a_link_among_the_versions(backup: Backup) -> None:
    """An old symbolic link is a symbolic link among the versions."""
    backup.write({"x": Link("first")})
    backup.run()
    remove(backup.source / "x")
    backup.write({"x": Link("second")})
    assert backup.run().decisions() == ["MODIFIED: docs/x"]
    remove(backup.source / "x")
    backup.write({"x": "a file\n"})
    assert backup.run().decisions() == ["MODIFIED: docs/x"]
    seen = backup.tree()
    assert (seen["versions/x/v1.bak"].kind, seen["versions/x/v1.bak"].content) == ("link", "first")
    assert (seen["versions/x/v2.bak"].kind, seen["versions/x/v2.bak"].content) == ("link", "second")
    backup.assert_right()


def test_a_folder_full_of_duplicates_becomes_a_file(backup: Backup) -> None:
    """A path's change of kind never clashes with what lies below it in `_duplicates/`, `_deleted/` and
    `versions/`: those things get out of the way and stay reachable."""
    backup.write({"a": "same\n", "x": {"dup": "same\n", "gone": "gone\n", "old": "old\n"}})
    backup.run()
    remove(backup.source / "x" / "gone")
    backup.write({"x": {"old": "changed\n"}})
    backup.run()
    assert {"_duplicates/x/dup", "_deleted/x/gone", "versions/x/old/v1.bak"} <= set(backup.names())
    remove(backup.source / "x")
    backup.write({"x": "same\n"})
    backup.run()
    assert backup.entry("docs/x")["stored_at"] == "_duplicates/x"
    backup.assert_right()
    remove(backup.source / "x")
    backup.run()
    backup.assert_right()
    backup.write({"x": {"gone": {"deeper": "same\n"}, "old": "old\n"}})
    backup.run()
    backup.assert_all_well()
    assert {b"same\n", b"gone\n", b"old\n", b"changed\n"} <= backup.all_contents()


@pytest.mark.slow
def test_what_stands_in_the_way_among_the_deleted(backup: Backup) -> None:
    """What stands in the way of a path inside `_deleted/` becomes the next version of its own path."""
    backup.write({"x": "a file\n", "keep": "keep\n"})
    backup.run()
    remove(backup.source / "x")
    backup.run()
    assert backup.read("_deleted/x") == b"a file\n"
    backup.write({"x": {"y": "below\n"}})
    backup.run()
    remove(backup.source / "x")
    backup.run()
    assert backup.read("_deleted/x/y") == b"below\n"
    assert backup.read("versions/x/v1.bak") == b"a file\n"
    backup.assert_right()
    backup.write({"x": "a file again\n"})
    backup.run()
    remove(backup.source / "x")
    backup.run()
    assert backup.read("_deleted/x") == b"a file again\n"
    assert b"below\n" in backup.all_contents()
    backup.assert_all_well()
