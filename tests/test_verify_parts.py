"""Partial verification: call after call goes round everything, nothing twice before all else was once."""

from __future__ import annotations

import math
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
from harness import Backup, exact
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verify import verify

from pipeline.model import message, treepath
from pipeline.model.record import Kind
from pipeline.stages.lister import StoredLister
from pipeline.stages.setup import StoredSetup
from pipeline.store.schema import SCHEMA
from pipeline.ui.cli_reading import _Duration, _Share

HIGHEST = b"\xff" * 256


class Stored:
    """A state with contents in it, and a walk that goes on where the last one ended, as the command does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.db"
        self.path.unlink(missing_ok=True)
        self.position = b""
        self.contents = 0
        with closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(SCHEMA)
        self.add("", 0)

    def add(self, name: str, versions: int) -> None:
        """A file with that many older contents. No name: the source."""
        path = b"s" + (b"\0" + name.encode() if name else b"")
        kind, digest = (Kind.FILE, b"\1" * 32) if name else (Kind.FOLDER, None)
        row = (
            path,
            kind,
            0,
            0,
            0,
            0,
            0,
            0,
            1,
            digest,
            None,
            0,
            None,
            versions + 1,
            versions,
            1,
            0,
            1,
            None,
            None,
        )
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(f"INSERT OR REPLACE INTO files VALUES ({', '.join('?' * 20)})", row)
            for number in range(1, versions + 1):
                version = (path, number, 0, 1, b"\1" * 32, None, 0, 0, 0, None, None)
                connection.execute(f"INSERT OR REPLACE INTO versions VALUES ({', '.join('?' * 11)})", version)
        self.contents += (1 + versions) if name else 0

    def next_part(self, limit: int) -> list[tuple[bytes, int]]:
        """The contents that one call looks at: path, and the number of a version or 0."""
        ranges = ((self.position, HIGHEST), (b"", self.position + b"\0"))
        setup = StoredSetup(str(self.path), frozenset([b"s"]), ranges if self.position else ranges[:1], limit)
        items: list[Any] = []
        StoredLister(setup, lambda batch, *_: items.extend(message.decode_items(batch))).walk()
        found, inside = [], b""
        for item in items:
            if item[0] == message.INSIDE:
                inside = item[1]
            elif item[0] == message.FILE:
                found.append((treepath.join(inside, item[1]), 0))
            elif item[0] == message.VERSION:
                found.append((item[1], item[2][1]))
            elif item[0] == message.POSITION:
                self.position = item[1]
        return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("states")


@settings(deadline=None, max_examples=40)
@given(versions=st.lists(st.integers(0, 4), min_size=1, max_size=30), parts=st.integers(1, 12))
def test_parts_go_round_everything(folder: Path, versions: list[int], parts: int) -> None:
    """n calls of 1/n look at everything, and at nothing twice before all else was looked at once; also over
    several rounds."""
    stored = Stored(folder)
    for number, count in enumerate(versions):
        stored.add(f"{number:02}", count)
    limit = math.ceil(stored.contents / parts)
    seen = [content for _ in range(3 * parts) for content in stored.next_part(limit)]
    for start in range(0, len(seen) - stored.contents + 1, stored.contents):
        assert len(set(seen[start : start + stored.contents])) == stored.contents
    assert len(seen) >= 3 * stored.contents


@settings(deadline=None, max_examples=25)
@given(data=st.data(), parts=st.integers(2, 8))
def test_files_that_are_added_meanwhile(folder: Path, data: st.DataObject, parts: int) -> None:
    """What was there at the beginning is looked at once in a round, and nothing twice, whatever is added."""
    stored = Stored(folder)
    names = [f"{number:02}" for number in range(12)]
    for name in names:
        stored.add(name, data.draw(st.integers(0, 2)))
    seen: list[tuple[bytes, int]] = []
    for _ in range(parts * 4):
        limit = math.ceil(stored.contents / parts)
        seen += stored.next_part(limit)
        if {path for path, _ in seen} >= {b"s\0" + name.encode() for name in names}:
            break
        stored.add(f"{data.draw(st.integers(0, 11)):02}x{len(seen):03}", 0)
    old = [content for content in seen if b"x" not in content[0]]
    assert {path for path, _ in old} == {b"s\0" + name.encode() for name in names}
    once = old[: len({*old})]
    assert len({*once}) == len(once)


def test_a_position_that_moves_by_bytes(folder: Path) -> None:
    """Of large files each one moves the position, so that calls with a time limit get on."""
    stored = Stored(folder)
    for number in range(20):
        stored.add(f"{number:02}", 0)
    with closing(sqlite3.connect(stored.path)) as connection, connection:
        connection.execute("UPDATE files SET size = ? WHERE digest IS NOT NULL", (1 << 30,))
    setup = StoredSetup(str(stored.path), frozenset([b"s"]), ((b"", HIGHEST),), None)
    items: list[Any] = []
    StoredLister(setup, lambda batch, *_: items.extend(message.decode_items(batch))).walk()
    assert sum(item[0] == message.POSITION for item in items) >= 20


def looked_at(backup: Backup, *arguments: str) -> list[str]:
    result = verify(backup, "--verbose", *arguments)
    return [exact(line, "stored_at") for line in result.lines if line["type"] == "action"]


@pytest.mark.slow
def test_three_thirds(tmp_path: Path) -> None:
    """The real command: three calls of a third look at each stored content exactly once, in order; the fourth
    begins anew. Each says how much there is."""
    backup = Backup(tmp_path / "one")
    for number in (1, 2):
        backup.write({f"folder{n % 4}/{n:02}": f"{n}, {number if n < 5 else 0}\n" for n in range(25)})
        backup.run()
    everything = looked_at(backup)
    assert len(everything) == 30
    parts = [looked_at(backup, "--sample", "33.34%") for _ in range(4)]
    seen = [at for part in parts for at in part]
    assert seen[:30] == everything
    assert seen[30:] == everything[: len(seen) - 30]


@pytest.mark.slow
def test_the_place_is_noted_for_each_backup(tmp_path: Path) -> None:
    """Two backups with one log folder, and a note that is no note: each goes its own round."""
    backup = Backup(tmp_path / "one")
    backup.write({f"{n}": f"{n}\n" for n in range(4)})
    backup.run()
    other = Backup(tmp_path / "one", settings={"backup_root": "other"})
    other.root = tmp_path / "one" / "other"
    other.run()
    assert looked_at(other, "--sample", "50%") == ["0", "1"]
    backup.write_config()
    assert looked_at(backup, "--sample", "25%") == ["0"]
    other.write_config()
    assert looked_at(other, "--sample", "50%") == ["2", "3"]
    note = backup.logs / "verify-position.json"
    for spoilt in (f'{{"{other.root}": 5}}', "[]", "not JSON", f'{{"{other.root}": "no base 64"}}'):
        note.write_text(spoilt)
        assert looked_at(other, "--sample", "50%") == ["0", "1"]


def test_a_backup_whose_name_is_no_text(tmp_path: Path) -> None:
    """The note holds the backup's path, whatever bytes that is of."""
    backup = Backup(tmp_path / os.fsdecode(b"caf\xe9"))
    backup.write({f"{n}": f"{n}\n" for n in range(4)})
    backup.run()
    parts = [looked_at(backup, "--sample", "50%") for _ in range(2)]
    assert parts == [["0", "1"], ["2", "3"]]


def test_a_time_limit(tmp_path: Path) -> None:
    """`--at-most` ends the call in good order, exit 0, and the next one goes on from there."""
    backup = Backup(tmp_path / "one")
    backup.write({f"{n:03}": f"{n}\n" for n in range(100)})
    backup.run()
    assert len(looked_at(backup, "--at-most", "10m")) == 100
    result = verify(backup, "--at-most", "0.001s")
    assert result.summary["status"] == "ok"
    assert len(looked_at(backup, "--at-most", "10m", "--sample", "50%")) == 50


NONSENSE = [
    (option, value) for option in ("--sample", "--at-most") for value in ("0%", "101%", "x", "-1s", "nan")
]


@pytest.mark.parametrize(("option", "value"), NONSENSE)
def test_what_is_no_share_and_no_time(option: str, value: str) -> None:
    """Refused with an example of what is right."""
    kind = {"--sample": _Share(), "--at-most": _Duration()}[option]
    with pytest.raises(click.BadParameter, match="for example"):
        kind.convert(value, None, None)
