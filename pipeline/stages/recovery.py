"""Recovery: finishes what a cut run had begun, under the lock and before anything else.

In: an open backup. Out: the problems that were met; the state and the stored files agree again.
Guarantees (promise 5): all recorded intents are done again in order (each is idempotent), then a barrier,
then they are dropped in the transaction that also forgets what is lost, and only then what they needed is
swept from staging. A cut in here is finished by the next recovery. After an unfinished `fast` run and a power
cut, what that run stored is read and compared before it is trusted. Fails with BackupSideError.
"""

from __future__ import annotations

import os

from pipeline import layout, planner
from pipeline.model import treepath
from pipeline.model.errors import Problem, Severity
from pipeline.model.record import Kind, Record, Version, VersionStatus
from pipeline.planner import Context
from pipeline.stages.batch import VANISHED
from pipeline.store import calls
from pipeline.store.barrier import Barrier
from pipeline.store.files import StoredFiles
from pipeline.store.folders import READ_FLAGS, split
from pipeline.store.operation import Place
from pipeline.store.staging import Staging
from pipeline.store.state import State
from pipeline.store.system import backup_side_errors

CLOCK_MARGIN_NS = 10_000_000_000


def recover(state: State, files: StoredFiles, staging: Staging, barrier: Barrier, boot: str) -> list[Problem]:
    last = state.last_run()
    if last is None:
        return []
    number, status, durability, last_boot, started_ns = last
    recovery = _Recovery(state, files, number, started_ns)
    with backup_side_errors():
        intents = state.intents()
        # First, since what a disk was filled with is the space that the rest needs.
        for name in staging.sweep(intents):
            files.set_aside(layout.OWN_FOLDER + b"/staging/" + name)
        if intents:
            recovery.forget_lost(files.apply(intents, redo=True))
            barrier(done=intents)
            state.replace_intents([])
        is_another_boot = last_boot != boot or not boot  # a system without names for them can't tell
        if status == "interrupted" and durability == "fast" and is_another_boot:
            recovery.verify_last_run()
        state.commit()
        staging.sweep()
    return files.take_problems() + recovery.problems


class _Recovery:
    """run: the run that was cut. started_ns: when it began."""

    def __init__(self, state: State, files: StoredFiles, run: int, started_ns: int) -> None:
        self._state = state
        self._files = files
        self._run = run
        self._started_ns = started_ns
        self.problems: list[Problem] = []
        self._places = state.places()

    def forget_lost(self, lost: list[Place]) -> None:
        for operation in lost:
            if operation.number:
                self._lose(operation.owner, operation.number)
                continue
            record = self._state.record(operation.owner)
            if record is not None and planner.is_stored(record):
                self._forget(record)

    def verify_last_run(self) -> None:
        """Without barriers, a power cut may have left names without their bytes."""
        for record in self._state.records(b"", b"\xff"):
            place = self._places[treepath.source_name(record.path)]
            at = planner.stored_at(record, place)
            if record.kind == Kind.FILE and at is not None and not self._is_sound(at, record):
                self._files.set_aside(at)
                self._forget(record)
            if record.number == 1:
                continue  # it has never had a version
            for version in self._state.versions(record.path):
                if version.kind == Kind.FILE and version.status == VersionStatus.KEPT:
                    at = layout.version(place, treepath.relative(record.path), version.number)
                    if not self._is_sound(at, version):
                        self._files.set_aside(at)
                        self._lose(version.path, version.number)

    def _is_sound(self, at: bytes, expected: Record | Version) -> bool:
        """What was touched since the run began is read; whatever is older, earlier runs have synced."""
        folder, name = split(at)
        try:
            found = calls.stat(name, dir_fd=self._files.folders.at(folder), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if found.st_size == expected.size and found.st_ctime_ns < self._started_ns - CLOCK_MARGIN_NS:
            return True
        return self._holds(at, expected)

    def _holds(self, at: bytes, expected: Record | Version) -> bool:
        folder, name = split(at)
        try:
            handle = calls.open(name, READ_FLAGS, dir_fd=self._files.folders.at(folder))
        except OSError as error:
            if error.errno not in VANISHED:
                raise  # a file that can't be opened isn't lost
            return False
        try:
            return self._files.hash_file(handle) == expected.digest
        finally:
            os.close(handle)

    def _forget(self, record: Record) -> None:
        context = Context(self._places[treepath.source_name(record.path)], self._run)
        plan = planner.plan_forget(record, "lost", context)
        self._state.write(plan, self._run)
        again = "; it is stored again from the source" if record.is_present else ""
        cause = f"its stored content was lost in a crash{again}"
        self.problems.append(Problem(Severity.WARNING, record.path, cause))

    def _lose(self, path: bytes, number: int) -> None:
        self._state.lose_version(path, number, self._run)
        self.problems.append(Problem(Severity.WARNING, path, f"its version {number} was lost in a crash"))
