"""Readers take no lock and a writer waits for none: restore, verify and the lists, beside runs that change
the backup all the time."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import Backup, Result
from restored import assert_same, keep, restore
from test_verify import findings, verify
from trees import Link, Tree, change, grow, remove, write_tree

from pipeline.layout import SourcePlace
from pipeline.model import message
from pipeline.stages.foreign import ForeignWalk
from pipeline.stages.restorer import Restorer
from pipeline.stages.setup import RestoreSetup, VerifySetup
from pipeline.store import calls
from pipeline.store.past import read_held
from pipeline.store.reading import Reader
from pipeline.store.state import connect_writer
from pipeline.store.target import Root, make_staging

ROUNDS = [3, pytest.param(20, marks=pytest.mark.slow)]


def test_a_writer_that_ends_while_a_reader_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The WAL is there at the first look and gone at the next: the reader takes no connection that sees
    no writer any more for one that does."""
    place = tmp_path / "state.db"

    def write(statement: str) -> None:
        with closing(connect_writer(place)) as connection:
            connection.execute(statement)

    write("CREATE TABLE t (value)")
    looks = iter([True])
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: next(looks, None) or real(path))
    reader = Reader(place)
    assert reader.execute("SELECT count(*) FROM t").fetchall() == [(0,)]
    write("INSERT INTO t VALUES (1)")
    assert reader.execute("SELECT count(*) FROM t").fetchall() == [(1,)]
    reader.close()


@pytest.mark.parametrize("then", ["a folder", "a link", "other content", "gone"])
def test_a_file_that_has_moved_since_it_was_listed(backup: Backup, tmp_path: Path, then: str) -> None:
    """What the list says is older than the backup: the content is found where it lies by now, whatever stands
    in its place."""
    backup.write({"f": "the content\n", "g": "g\n"})
    backup.run()
    state = backup.root / ".pipeline" / "state.db"
    (held,) = read_held(Reader(state), 1, b"docs\0f", b"docs\0f\1", with_low=True)
    remove(backup.source / "f")
    new: dict[str, Tree] = {
        "a folder": {"f": {"inside": "x\n"}}, "a link": {"f": Link("g")}, "other content": {"f": "other\n"},
        "gone": {},
    }  # fmt: skip
    backup.write(new[then])
    backup.run()
    (tmp_path / "to").mkdir()
    found = (tmp_path / "to").stat()
    target, lock = make_staging(Root(str(tmp_path / "to"), found.st_dev, found.st_ino))
    places = {b"docs": SourcePlace(b"docs", True)}
    setup = RestoreSetup(places, "blake3", str(backup.root), str(state), target, False, "never", False, False)
    before = os.umask(0)
    Restorer(setup, 1, lambda _: None).process(
        message.encode([(message.INSIDE, b"docs"), (message.FILE, b"f", held[1:])])
    )
    os.umask(before)
    calls.close(lock)
    assert (tmp_path / "to/f").read_text() == "the content\n"


@pytest.mark.parametrize("then", ["gone", "a folder"])
def test_what_changes_between_its_listing_and_a_look(
    backup: Backup, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """A writer removes a folder before it is entered, or makes one where a file was listed: nothing foreign,
    and no problem."""
    backup.write({"known": "known\n"})
    backup.run()
    write_tree(backup.root, {"empty": None, "full": {"mine": "foreign\n"}, "later": "a file\n"})
    items: list[Any] = []
    setup = VerifySetup({}, "blake3", str(backup.root), str(backup.root / ".pipeline/state.db"), False)
    walk = ForeignWalk(setup, lambda batch, *_: items.extend(message.decode_items(batch)))
    at = walk._contents.folders.at

    def changed_by_then(folder: bytes) -> int:
        if folder == b"empty":
            remove(backup.root / "later")
            remove(backup.root / "empty")
            if then == "a folder":
                (backup.root / "later").mkdir()
        return at(folder)

    monkeypatch.setattr(walk._contents.folders, "at", changed_by_then)
    walk.walk()
    assert [item[:2] for item in items if item[0] != message.POSITION] == [[message.STRAY, b"full/mine"]]


class Writer(threading.Thread):
    """Runs, each after other changes, until there were enough; how they ended, and how long the WAL was."""

    def __init__(self, backup: Backup, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.backup = backup
        self.results: list[Result] = []
        self.longest_wal = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        wal = self.backup.root / ".pipeline" / "state.db-wal"
        try:
            for number in range(self.rounds):
                change(self.backup.source, seed=500 + number, share=0.06)
                self.results.append(self.backup.run("--json", "--quiet"))
                if wal.exists():
                    self.longest_wal = max(self.longest_wal, wal.stat().st_size)
        except BaseException as failure:
            self.failure = failure


@contextmanager
def writing(backup: Backup, rounds: int) -> Iterator[Writer]:
    writer = Writer(backup, rounds)
    writer.start()
    try:
        yield writer
    finally:
        writer.join(timeout=600)
    assert not writer.is_alive()
    assert writer.failure is None, writer.failure


def reader_of(backup: Backup) -> Backup:
    """The same backup, for calls from another thread: what one remembers isn't mixed with the other's."""
    return Backup(backup.base, settings=dict(backup.settings))


def make(base: Path, **settings: int) -> Backup:
    limits = {"safety.max_delete_percent": 100, **{k.replace("__", "."): v for k, v in settings.items()}}
    backup = Backup(base / "one", settings=limits)
    grow(backup.source, 300, seed=3)
    backup.run("--quiet")
    return backup


@pytest.mark.parametrize("rounds", ROUNDS)
def test_restores_beside_runs(tmp_path: Path, rounds: int) -> None:
    """An earlier run comes back exactly, time after time, while what it held moves to other places; no run
    is disturbed, and the WAL stays within bounds."""
    backup = make(tmp_path, retention__max_versions_per_file=1000)
    wanted, reader = keep(backup.source), reader_of(backup)
    with writing(backup, rounds) as writer:
        times = 0
        while writer.is_alive() or times == 0:
            restore(reader, tmp_path / "to", "--at", "1")
            assert_same(wanted, tmp_path / "to")
            shutil.rmtree(tmp_path / "to")
            times += 1
    assert times > 2
    assert [result.exit for result in writer.results] == [0] * rounds
    assert writer.longest_wal < 16 << 20
    backup.assert_right()


@pytest.mark.parametrize("rounds", ROUNDS)
def test_verify_beside_runs(tmp_path: Path, rounds: int) -> None:
    """Nothing is reported wrong while things move, are archived, promoted, pruned and come back."""
    backup = make(tmp_path, retention__max_versions_per_file=1)
    reader = reader_of(backup)
    with writing(backup, rounds) as writer:
        times = 0
        while writer.is_alive() or times == 0:
            arguments = random.Random(times).choice([[], ["--sample", "50%"], ["--verbose"]])
            assert findings(verify(reader, *arguments)) == {}
            times += 1
    assert times > 2
    assert [result.exit for result in writer.results] == [0] * rounds
    assert findings(verify(backup)) == {}


@pytest.mark.parametrize("rounds", ROUNDS)
def test_latest_state_and_lists_beside_runs(tmp_path: Path, rounds: int) -> None:
    """A restore of the latest state, which changes under it, finds every content that it has seen; the lists
    answer as ever."""
    backup = make(tmp_path, retention__max_versions_per_file=1000)
    reader = reader_of(backup)
    with writing(backup, rounds) as writer:
        times = 0
        while writer.is_alive() or times == 0:
            result = reader.call("restore", "--to", str(tmp_path / "to"), "--json", expect=None)
            assert result.exit == 0, result.said
            shutil.rmtree(tmp_path / "to")
            for arguments in (["ls"], ["diff", "1", "1"], ["status"], ["export"]):
                reader.call(*arguments)
            times += 1
    assert [result.exit for result in writer.results] == [0] * rounds
