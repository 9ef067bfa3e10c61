"""Damage of the state: the database or its WAL truncated, zeroed, bits flipped; after a run that has ended,
and after one that was killed among its renames.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from cut_short import run_cut_after
from edited import edited_state
from harness import Backup, difference
from trees import remove, write_tree

PAGE_BYTES = 4096


class Damage(NamedTuple):
    """What happens to a file of the state. share: where, as a part of its size."""

    how: str
    share: float

    def do(self, place: Path) -> bool:
        """Whether there is any other byte now: a page may be all zeros already."""
        before = place.read_bytes()
        content = bytearray(before)
        at = min(len(content) - 1, int(self.share * len(content)))
        page = at // PAGE_BYTES * PAGE_BYTES
        match self.how:
            case "truncated":
                del content[at:]
            case "page gone":
                del content[page : page + PAGE_BYTES]
            case "zeroed":
                content[page : page + PAGE_BYTES] = bytes(len(content[page : page + PAGE_BYTES]))
            case "bit flipped":
                content[at] ^= 1 << at % 8
        place.write_bytes(content)
        return content != before


class Made:
    """A backup in two states, to be damaged again and again: whole, and cut among the renames of a run."""

    def __init__(self, base: Path) -> None:
        self.backup = Backup(base / "it")
        self.base = base
        files = {f"file{number:02}": f"content {number}\n" * 20 for number in range(40)}
        self.backup.write({"folder": files, "copy": files["file07"], "changes": "one\n"})
        self.backup.run()
        self.backup.write({"changes": "two\n"})
        self.backup.run()
        self.backup.write({"changes": "three\n", "new": "new\n", "folder": {"file03": "changed\n"}})
        shutil.copytree(self.backup.root, base / "whole", symlinks=True)
        assert run_cut_after(self.backup, 3)
        shutil.copytree(self.backup.root, base / "cut", symlinks=True)

    def put_back(self, which: str) -> Backup:
        shutil.rmtree(self.backup.root)
        shutil.copytree(self.base / which, self.backup.root, symlinks=True)
        self.backup._exported = None
        return self.backup


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    yield Made(tmp_path_factory.mktemp("damage"))


def damages(seed: int, flips: int, steps: int) -> list[Damage]:
    generator = random.Random(seed)
    hows = ("truncated", "zeroed", "page gone")
    spread = [Damage(how, step / steps) for step in range(steps) for how in hows]
    return spread + [Damage("bit flipped", generator.random()) for _ in range(flips)]


def assert_no_harm(backup: Backup, damage: Damage) -> str:
    """Either the next run is refused, and nothing is touched, or it does what the source says: no deletion,
    no content less than before. Returns which."""
    tree, contents = backup.tree(), backup.all_contents()
    result = backup.run("--quiet", expect=None)
    assert result.exit in (0, 1, 3), f"{damage}: {result.said}"
    if result.exit == 1:
        assert "state.db" in result.stderr and "rebuild" in result.stderr, f"{damage}: {result.said}"
        assert not difference(tree, backup.tree()), damage
        return "refused"
    assert not [line for line in result.decisions() if line.startswith(("DELETE", "RETENTION"))], damage
    lost = contents - backup.all_contents()
    assert not lost, f"{damage}: {lost}"
    for name in ("changes", "new", "folder/file03", "folder/file39"):
        assert backup.read(name) == (backup.source / name).read_bytes(), damage
    return "an earlier state"


SIZES = [
    pytest.param(2, 1, id="some"),
    pytest.param(24, 8, id="many", marks=pytest.mark.slow),
    pytest.param(200, 20, id="most", marks=pytest.mark.sweep),
]


@pytest.mark.parametrize(("flips", "steps"), SIZES)
def test_a_damaged_database_after_a_run_is_always_refused(made: Made, flips: int, steps: int) -> None:
    """Nothing is lost, whatever rots: a state that isn't what the last run left is refused, a bit inside of a
    row included, with nothing touched. Guard: `seal.look`, asked by `trust.check_for_writing`."""
    for damage in damages(1, flips, steps):
        backup = made.put_back("whole")
        is_damaged = damage.do(backup.root / ".pipeline" / "state.db")
        assert not is_damaged or assert_no_harm(backup, damage) == "refused", damage


@pytest.mark.parametrize(("flips", "steps"), SIZES)
@pytest.mark.parametrize("name", ["state.db", "state.db-wal"])
def test_damage_beside_a_cut_run_does_no_harm(made: Made, name: str, flips: int, steps: int) -> None:
    """After a kill, with intents pending, damage of the database or the WAL ends in an earlier state or in a
    refusal, never in a deletion or a lost content. Guards: the checksums of SQLite's WAL; integrity_check and
    `unsound_rows` in `trust.check_for_writing`; `StoredFiles` moves what it doesn't know aside."""
    for damage in damages(2, flips, steps):
        backup = made.put_back("cut")
        damage.do(backup.root / ".pipeline" / name)
        assert_no_harm(backup, damage)


def test_rows_that_cannot_be_are_refused_by_a_run(made: Made) -> None:
    """A state whose rows have fields that can't be is refused with the path named, nothing touched, also by
    whoever removes the seal. Guard: `unsound_rows` in `trust.check_for_writing`."""
    for statement in (
        "UPDATE files SET size = 'many' WHERE path = ?",
        "UPDATE files SET kind = 77 WHERE path = ?",
        "UPDATE versions SET digest = 7 WHERE path = ?",
    ):
        backup = made.put_back("whole")
        with edited_state(backup) as connection:
            assert connection.execute(statement, (b"docs\0changes",)).rowcount == 1
        tree = backup.tree()
        result = backup.run(expect=1)
        assert "docs/changes" in result.stderr and "rebuild" in result.stderr
        assert not difference(tree, backup.tree())


def test_every_command_notices_rot_and_rebuild_mends_it(made: Made) -> None:
    """Readers refuse a state that has rotted inside of a row, too; `rebuild` makes a new one that every
    command takes. Guard: `seal.look`, asked by `trust.check_for_reading` and `rebuilding.is_sound`."""
    backup = made.put_back("whole")
    state = backup.root / ".pipeline" / "state.db"
    content = state.read_bytes()
    at = content.index(b"file05")
    state.write_bytes(content[:at] + b"gile05" + content[at + 6 :])
    for words in (["ls"], ["verify"], ["run", "--dry-run"], ["restore", "--to", str(backup.base / "there")]):
        assert "not, byte for byte" in backup.call(*words, expect=1).stderr
    backup.call("rebuild", "--quiet")
    assert backup.call("verify", "--quiet").exit == 0
    backup.run()
    backup.assert_right()


def test_an_older_state_that_is_put_back_is_taken(made: Made) -> None:
    """The advice for a damaged state is to put an older copy back: its age is no damage. What it doesn't know
    of is moved aside, never overwritten. Guard: `Seal.opening`."""
    backup = made.put_back("whole")
    kept = (backup.root / ".pipeline" / "state.db").read_bytes()
    backup.run()
    contents = backup.all_contents()
    (backup.root / ".pipeline" / "state.db").write_bytes(kept)
    backup.run(expect=3)
    assert contents <= backup.all_contents()
    backup.run()
    backup.assert_mirrors_sources()


def test_a_seal_that_rots_is_no_seal(made: Made) -> None:
    """Damage of the seal itself never costs a good state: it is looked through instead. Guard: a seal says
    everything twice."""
    backup = made.put_back("whole")
    seal = backup.root / ".pipeline" / "state.seal"
    content = seal.read_bytes()
    for broken in (b"", content[:30], content.replace(b"1", b"2", 1), content[:-9], b"\xff" * 90):
        seal.write_bytes(broken)
        backup.call("ls")
    backup.run()
    assert seal.read_bytes() != broken
    backup.assert_right()


def test_a_reader_that_keeps_the_wal_is_no_damage(made: Made) -> None:
    """Where a reader beside a run keeps SQLite from emptying its WAL, whoever opens the database next does
    that, and so changes the file: no command takes that for damage. Guard: `State.empty_wal` before
    `set_seal`."""
    backup = made.put_back("whole")
    state = backup.root / ".pipeline" / "state.db"
    with closing(sqlite3.connect(f"{state.as_uri()}?mode=ro", uri=True)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM files").fetchall()
        backup.run()
    assert state.with_name("state.db-wal").exists()
    with closing(sqlite3.connect(state)) as anybody:
        anybody.execute("SELECT count(*) FROM files").fetchall()
    backup.call("ls")
    backup.run()
    backup.assert_right()


def test_the_top_of_a_disk_of_its_own_is_empty(backup: Backup) -> None:
    """A disk that was just formatted can be the backup root, `lost+found` and all; one with something in that
    can't. Guard: `_is_of_file_system`, and that it looks inside."""
    write_tree(backup.root, {"lost+found": None})
    backup.write({"a": "a\n"})
    backup.run()
    backup.assert_right()
    remove(backup.root)
    write_tree(backup.root, {"lost+found": {"#17": "what a check of the disk has found\n"}})
    assert "rebuild" in backup.run(expect=1).stderr
