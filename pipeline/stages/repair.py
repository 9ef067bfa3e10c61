"""Repair: a stored file that is rotten or missing is stored again from the source.

In: an open backup, under the lock and recovered; paths. Out: for each, whether it was repaired. Guarantees:
only the very content that the state promises is stored, hashed in the read whose bytes are written (promise
3); the name is given by the journal, as in a run, and what stood there goes to quarantine. The state says the
same before and after. Fails with BackupSideError.
"""

from __future__ import annotations

import os
from itertools import count

from pipeline import planner
from pipeline.model import treepath
from pipeline.model.attributes import for_stored
from pipeline.model.plan import Action, Plan, Store
from pipeline.model.record import Area, Kind, Record, Stat
from pipeline.stages import digest
from pipeline.stages.batch import open_source
from pipeline.stages.setup import SourceRoot
from pipeline.store import calls
from pipeline.store.files import StoredFiles
from pipeline.store.folders import READ_FLAGS, Folders, split
from pipeline.store.journal import Journal
from pipeline.store.metadata import permissions
from pipeline.store.operation import Identity
from pipeline.store.pieces import pieces
from pipeline.store.staging import Staged
from pipeline.store.staging_file import StagingFile
from pipeline.store.state import State
from pipeline.store.system import backup_side_errors

PROVES_NOTHING = frozenset({"xxh3_128"})
"""Hashes that are no proof against somebody who wants two contents to be taken for one."""


class Repair:
    """staging: its folder's handle. sources: those that can be read now; why_not: why others can't be."""

    def __init__(
        self,
        state: State,
        journal: Journal,
        files: StoredFiles,
        staging: int,
        sources: dict[bytes, SourceRoot],
        why_not: dict[bytes, str],
        algorithm: str,
    ) -> None:
        self._state = state
        self._journal = journal
        self._files = files
        self._staging = staging
        self._sources = sources
        self._why_not = why_not
        self._algorithm = algorithm
        self._new_hasher = digest.hasher(algorithm)
        self._names = (b"r-%x" % number for number in count(1))

    def repair(self, path: bytes) -> str | None:
        """Why it can't be repaired; None where it is, or where the stored file is right by now."""
        record, name = self._state.record(path), treepath.source_name(path)
        if record is None or record.kind != Kind.FILE or not record.is_present or record.digest is None:
            return "the path is no longer a file in the source"
        if name not in self._sources:
            return self._why_not.get(name, "its source is not in the configuration")
        source = self._sources[name]
        at = planner.stored_at(record, source.place)
        assert at is not None, "a file with a digest has a place"
        if self._is_right(at, record):
            return None
        if self._algorithm in PROVES_NOTHING:
            return f"an equal {self._algorithm} digest is no proof that it is the same content"
        try:
            staged = self._stage(source, record)
        except OSError as error:
            return f"the source can't be read: {error.strerror}"
        if staged is None:
            return "the source no longer has that content"
        action = Action.DUPLICATE if record.area == Area.DUPLICATE else Action.BACKUP
        plan = Plan(action, path, "repaired", (Store(at, replaces=False),), record, record, stored_at=at)
        self._journal.execute(plan, staged)
        return None

    def _is_right(self, at: bytes, record: Record) -> bool:
        """Looked at again, under the lock: a run may have mended it meanwhile."""
        folder, name = split(at)
        try:
            handle = calls.open(name, READ_FLAGS, dir_fd=self._files.folders.at(folder))
        except OSError:
            return False
        try:
            return self._files.hash_file(handle) == record.digest
        except OSError:
            return False
        finally:
            os.close(handle)

    def _stage(self, source: SourceRoot, record: Record) -> Staged | None:
        """The source's content in staging, None where it isn't the recorded one. Raises its OSErrors."""
        root = open_source(source)
        folders = Folders(root)
        try:
            folder, name = split(treepath.relative(record.path))
            handle = calls.open(name, READ_FLAGS, dir_fd=folders.at(folder))
            try:
                return self._copy(handle, record)
            finally:
                os.close(handle)
        finally:
            folders.close()
            calls.close(root)

    def _copy(self, handle: int, record: Record) -> Staged | None:
        if os.fstat(handle).st_size != record.size:
            return None
        state, buffer = self._new_hasher(), bytearray(digest.READ_BYTES)
        with backup_side_errors():
            staged = StagingFile(self._staging, next(self._names))
        for piece, is_hole in pieces(handle, buffer, record.size):
            state.update(piece)
            with backup_side_errors():
                staged.write(piece, is_hole)
        if state.digest() != record.digest:
            with backup_side_errors():
                staged.discard()
            return None
        found = Stat(record.mode, record.uid, record.gid, record.mtime_ns, 0, 0, record.size)
        with backup_side_errors():
            wanted = for_stored(self._state.attributes(record.attributes))
            inode, _, _ = staged.finish(found, permissions(record.mode), wanted)
        return Staged(staged.name, Identity(inode, record.size, record.digest, None))
