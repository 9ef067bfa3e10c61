"""Readers take no lock and a writer waits for none: restore, verify and the lists, beside runs that change
the backup all the time."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Backup, Result
from restored import assert_same, keep, restore
from test_verify import findings, verify
from trees import change, grow

ROUNDS = [5, pytest.param(60, marks=pytest.mark.slow)]


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
