"""The stations of a run one by one, in this process, so that each can be measured alone.

In: a tree. Out: what each station gives for it. The code measured is the program's own: a walk's batches are
the real ones, a worker's copies are really staged, a committer really names them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipeline.layout import SourcePlace
from pipeline.model.errors import Problem
from pipeline.model.message import Results, decode_results
from pipeline.model.report import Counts
from pipeline.retention import Rules as RetentionRules
from pipeline.stages import digest
from pipeline.stages.committer import Committer, Retention, Rules
from pipeline.stages.guard import Guard
from pipeline.stages.hasher import Hasher
from pipeline.stages.scanner import Scanner
from pipeline.stages.setup import HashSetup, ScanSetup, SourceRoot
from pipeline.store.backup import Backup, open_backup
from pipeline.store.barrier import Barrier
from pipeline.store.files import StoredFiles
from pipeline.store.journal import Event, Journal
from pipeline.store.spool import PathSpool
from pipeline.store.staging import Staging

RUN = 1


class Work(NamedTuple):
    """An open backup with the committer of a run, and the batches of a tree that it has never seen."""

    backup: Backup
    committer: Committer
    journal: Journal
    results: list[Results]


def source_root(tree: Path) -> SourceRoot:
    found = tree.stat()
    return SourceRoot(SourcePlace(b"data", at_root=True), os.fsencode(tree), (found.st_dev, found.st_ino))


def scan(tree: Path, state: Path) -> list[bytes]:
    """The batches that a walk sends."""
    batches: list[bytes] = []
    setup = ScanSetup((source_root(tree),), frozenset(), (), os.fspath(state))
    scanner = Scanner(setup, lambda payload, files, size_bytes: batches.append(payload))
    scanner.walk()
    scanner.close()
    return batches


def hash_setup(tree: Path, backup_root: Path | None, algorithm: str = "blake3") -> HashSetup:
    root = os.fspath(backup_root) if backup_root is not None else None
    staging = backup_root is not None
    return HashSetup((source_root(tree),), algorithm, "content", root, RUN, staging, staging, False)


@contextmanager
def first_run(tree: Path, folder: Path) -> Iterator[Work]:
    """All is scanned, hashed and staged; nothing is committed."""
    with open_backup(folder / "backup", 0) as backup:
        state = backup.state
        state.add_source(b"data", True)
        state.begin_run(0, "fast", "")
        state.commit()
        assert backup.root is not None
        assert backup.root_handle is not None
        assert backup.staging_handle is not None
        assert backup.quarantine_handle is not None
        hasher = Hasher(hash_setup(tree, backup.root), 1, lambda size_bytes: None)
        results = [decode_results(hasher.process(batch)[0]) for batch in scan(tree, backup.state_path)]
        hash_file = partial(digest.of_file, new_hasher=digest.hasher("blake3"))
        files = StoredFiles(backup.root_handle, backup.staging_handle, backup.quarantine_handle, hash_file)
        staging = Staging(backup.staging_handle, files.folders)
        barrier = Barrier(backup.root_handle, files.folders)
        journal = Journal(state, staging, files, barrier, RUN, _refuse_problems, dry_run=False, inspect=True)
        committer = Committer(
            journal, state, staging, RUN, Rules(1, False, Retention(RetentionRules(), None, None)), Counts(),
            PathSpool(folder), PathSpool(folder), Guard(state, 50, 0, True), False, True,
        )  # fmt: skip
        yield Work(backup, committer, journal, results)
        files.close()


def commit(work: Work) -> None:
    """What the committer does with a whole run's results."""
    for results in work.results:
        work.committer.take(results)
    for _ in work.committer.conclude():
        pass
    work.journal.close_group()


def unchanged(answers: list[bytes]) -> int:
    """How many files a worker's answers call unchanged."""
    return sum(decode_results(answer).unchanged for answer in answers)


def _refuse_problems(event: Event) -> None:
    assert not isinstance(event, Problem), event
