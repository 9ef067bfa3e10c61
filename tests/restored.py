"""Restored trees, compared with what the sources were: the oracle of all tests of `restore`.

In: a backup. Out: the sources as they were at each run, kept as snapshots, and restored folders beside them.
Guarantees: everything is compared that a restore brings back: names, kinds, contents, links, modes, times
(of folders too) and, where the tests run as root, owners.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from harness import Backup, Line, Result, exact
from trees import difference, snapshot, walk

Owners: TypeAlias = dict[str, tuple[int, int]]


class Kept(NamedTuple):
    """What a source was: below it, and the root folder itself."""

    seen: dict[str, object]
    owners: Owners
    root: tuple[int, int]


def keep(source: Path) -> Kept:
    """Everything that a restore has to bring back of a folder."""
    found = source.stat()
    owners: Owners = {}
    if os.geteuid() == 0:
        for relative, entry in walk(source):
            of_entry = entry.stat(follow_symlinks=False)
            owners[relative] = of_entry.st_uid, of_entry.st_gid
    return Kept(dict(snapshot(source, folder_times=True)), owners, (found.st_mode, found.st_mtime_ns))


def unlike(wanted: Kept, found: Kept, but: Iterable[str] = ()) -> str:
    """Where two trees differ, for people. but: names that are left out of both."""
    left_out = set(but)
    one, other = (
        {name: seen for name, seen in kept.seen.items() if name not in left_out} for kept in (wanted, found)
    )
    if one != other:
        return difference(one, other)  # type: ignore[arg-type]
    owners = [name for name in one if wanted.owners.get(name) != found.owners.get(name)]
    return "" if not owners else f"other owners: {owners[:20]}"


def assert_same(wanted: Kept, folder: Path, whole: bool = True) -> None:
    """A folder is what was kept. whole: its own mode and time count too."""
    found = keep(folder)
    assert not unlike(wanted, found), unlike(wanted, found)
    assert not whole or found.root == wanted.root, f"{folder}: its own mode or time"


def restore(backup: Backup, to: Path, *arguments: str, expect: int = 0) -> Result:
    """`restore` to a folder, and never anything left of its staging there."""
    result = backup.call("restore", "--to", str(to), *arguments, expect=expect)
    assert not leftovers(to), leftovers(to)
    return result


def leftovers(to: Path) -> list[str]:
    """What a restore keeps in its target while it is at work."""
    return [name for name in os.listdir(to) if name.startswith(".restore-")] if to.is_dir() else []


def of_type(lines: list[Line], kind: str) -> dict[str, Line]:
    """The JSON lines of one type by their exact path."""
    return {exact(line, "path"): line for line in lines if line["type"] == kind}


def mode_of(place: Path) -> int:
    return stat.S_IMODE(place.lstat().st_mode)
