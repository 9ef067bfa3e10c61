"""A state that somebody has tampered with, read by every command: what can't be is refused by its path.

A state is a file like any other. Rows are changed with SQLite's own tools, as damage or malice would, one
victim for each kind of change. Nothing outside the backup is read, written or moved (promise 8), nobody sees
a traceback, and what the state says of other paths counts as before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pytest
from edited import edited_state
from harness import Backup, Result, exact
from restored import restore
from test_restore_hostile import exactly
from trees import EPOCH_NS, File, Link, Tree, write_tree

Value: TypeAlias = bytes | str | int | float | None
GOOD = {"good": "good\n", "folder/good": "good, too\n"}
HUGE = float("inf")


class Tampered(NamedTuple):
    """A column of the victim's row in `files`, and what it is changed to."""

    column: str
    value: Value


PATHS = {
    "up": b"docs\0..\0victim",
    "up from below": b"docs\0folder\0..\0..\0victim",
    "up, in one component": b"docs\0folder/../../victim",
    "slash": b"docs\0folder/victim",
    "absolute": b"docs\0/etc\0victim",
    "absolute, in the end": b"docs\0/victim",
    "empty": b"docs\0\0victim",
    "run of empty ones": b"docs\0\0\0\0victim",
    "empty at the end": b"docs\0victim\0",
    "empty source": b"\0victim",
    "dot": b"docs\0.",
    "dots": b"docs\0..",
    "other source": b"nowhere\0victim",
    "source that is up": b"..\0victim",
    "a second source's root": b"docs2",
}
FILE_FIELDS = {
    "negative size": Tampered("size", -1), "size in words": Tampered("size", "large"),
    "size of no end": Tampered("size", HUGE), "mode in words": Tampered("mode", "rwx"),
    "negative mode": Tampered("mode", -7), "uid in words": Tampered("uid", "root"),
    "uid beyond all": Tampered("uid", 1 << 40), "negative gid": Tampered("gid", -9),
    "mtime in words": Tampered("mtime_ns", "now"), "mtime that is none": Tampered("mtime_ns", 1.5),
    "unknown kind": Tampered("kind", 9), "kind in words": Tampered("kind", "file"),
    "a folder, it says": Tampered("kind", 1), "a link, it says": Tampered("kind", 2),
    "unknown area": Tampered("area", 7), "area in words": Tampered("area", "live"),
    "number 0": Tampered("number", 0), "number in words": Tampered("number", "one"),
    "digest in words": Tampered("digest", "blake3"), "digest too short": Tampered("digest", b"\1"),
    "number beyond all": Tampered("digest", 5),
}  # fmt: skip
LINK_FIELDS = {
    "target with a NUL": Tampered("target", b"a\0b"), "empty target": Tampered("target", b""),
    "target in words": Tampered("target", "a"), "target too long": Tampered("target", b"x" * 5000),
    "a file, it says": Tampered("kind", 0),
}  # fmt: skip


class Victim(NamedTuple):
    """What is changed, and the path under which it is refused, as JSON has it."""

    name: str
    change: Tampered
    refused: str

    @property
    def is_link(self) -> bool:
        return self.name in LINK_FIELDS


def victims() -> Iterator[Victim]:
    for name, path in PATHS.items():
        unlike_others = path.replace(b"victim", name.encode())
        yield Victim(name, Tampered("path", unlike_others), os.fsdecode(unlike_others.replace(b"\0", b"/")))
    for name, change in {**FILE_FIELDS, **LINK_FIELDS}.items():
        yield Victim(name, change, f"docs/folder/{name}")


VICTIMS = list(victims())


def tree() -> Tree:
    found: dict[str, str | File | Link] = dict(GOOD)
    for victim in VICTIMS:
        content = File(f"{victim.name}\n".encode(), 0o644, EPOCH_NS)
        found[f"folder/{victim.name}"] = Link(victim.name) if victim.is_link else content
    return found


def make(base: Path, others: dict[str, str]) -> Backup:
    """A backup of the tree, run twice, and beside it what a path that leads out would meet."""
    backup = Backup(base / "one")
    backup.write({**tree(), **others})
    write_tree(backup.base, {victim.name: f"{victim.name}\n" for victim in VICTIMS})
    for victim in VICTIMS:
        os.utime(backup.base / victim.name, ns=(EPOCH_NS, EPOCH_NS))
    backup.run()
    backup.write({"good": "changed\n"})
    backup.run()
    return backup


def tamper(backup: Backup, *changes: Victim) -> None:
    with edited_state(backup) as connection:
        for victim in changes:
            statement = f"UPDATE files SET {victim.change.column} = ? WHERE path = ?"
            path = b"docs\0folder\0" + victim.name.encode()
            assert connection.execute(statement, (victim.change.value, path)).rowcount == 1
        connection.execute("INSERT INTO sources VALUES (?, 0)", (b"..",))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Backup:
    return make(tmp_path_factory.mktemp("made"), {})


def without(backup: Backup) -> dict[str, object]:
    """Everything beside the backup's own folders."""
    own = ("backup", "logs", ".")
    return {name: seen for name, seen in exactly(backup.base).items() if name.split("/")[0] not in own}


def refused(result: Result) -> set[str]:
    return {
        exact(line, "path") for line in result.lines if line["type"] == "error" and line["path"] is not None
    }


LOOKS = (
    ["verify"], ["verify", "--sample", "50%"], ["ls"], ["ls", "--at", "1", "--json"], ["history", "good"],
    ["export"], ["diff", "1", "2"], ["diff", "1"], ["duplicates"], ["status"], ["runs"],
)  # fmt: skip
RUNS = (["run", "--dry-run"], ["run"], ["run", "--set", "safety.max_delete_percent=100"])


def call_each(backup: Backup, commands: Iterable[list[str]]) -> None:
    """Any exit code, but no traceback (the harness sees to it), and nothing outside is touched."""
    before = without(backup)
    for arguments in commands:
        backup.call(*arguments, expect=None)
        assert without(backup) == before, arguments


def test_all_of_it_at_once(made: Backup, tmp_path: Path) -> None:
    """One victim of each kind: all are named, exit 3, and every other path comes."""
    backup = made.twin(tmp_path / "one")
    tamper(backup, *VICTIMS)
    before = without(backup)
    result = restore(backup, tmp_path / "to", "--json", expect=3)
    assert without(backup) == before
    assert refused(result) >= {victim.refused for victim in VICTIMS}
    names = {str(place.relative_to(tmp_path / "to")) for place in (tmp_path / "to").rglob("*")}
    assert names == {*GOOD, "folder"}


@pytest.mark.parametrize("victim", VICTIMS, ids=lambda victim: victim.name)
@pytest.mark.slow
def test_each_of_them_and_every_command(made: Backup, tmp_path: Path, victim: Victim) -> None:
    """As above, each by itself, so that none hides behind another."""
    backup = made.twin(tmp_path / "one")
    tamper(backup, victim)
    before = without(backup)
    result = restore(backup, tmp_path / "to", "--json", expect=3)
    assert refused(result) == {victim.refused}
    assert without(backup) == before
    call_each(backup, LOOKS)
    if victim.change.column == "path":
        call_each(backup, RUNS)


def test_every_command_that_looks(made: Backup, tmp_path: Path) -> None:
    """No command ends with a traceback or leaves the backup; one that trips over a row says which."""
    backup = made.twin(tmp_path / "one")
    tamper(backup, *VICTIMS)
    call_each(backup, LOOKS)
    assert "state.db is damaged" in backup.call("ls", expect=1).stderr


def test_a_run_never_leaves_the_backup(made: Backup, tmp_path: Path) -> None:
    """Paths that lead up, or out in another way, to files of the very content that the state tells of: a run
    that takes them for deleted ones moves nothing that lies outside."""
    backup = made.twin(tmp_path / "one")
    tamper(backup, *(victim for victim in VICTIMS if victim.change.column == "path"))
    call_each(backup, RUNS)
