"""A worker's side of staging: the copies that it makes, under names that no other worker has.

In: bytes and what was found of their files. Out: staged names with their inodes. Guarantees: nothing refers
to a staged name before the journal does (invariant A). Fails with BackupSideFailed.
"""

from __future__ import annotations

from pipeline.model.attributes import for_stored
from pipeline.model.record import Stat
from pipeline.stages.batch import BackupSideFailed, Batch
from pipeline.store.metadata import permissions
from pipeline.store.staging_file import StagingFile, stage_small


class StagedCopies:
    """folder: the handle of `staging/`. run, worker: their numbers, for the names."""

    def __init__(self, folder: int, run: int, worker: int) -> None:
        self._folder = folder
        self._prefix = b"%x-%x-" % (run, worker)
        self._next = 0

    def small(self, content: bytes, found: Stat, packed: bytes, batch: Batch) -> tuple[bytes, int]:
        """Name and inode of a copy that is made in one go. packed: the file's extended attributes."""
        if packed:
            copy = self.begin()
            self.write(copy, memoryview(content))
            return self.finish(copy, found, packed, batch)
        name = self._new_name()
        try:
            inode = stage_small(self._folder, name, content, found, permissions(found.mode))
        except OSError as error:
            # What was written so far is swept with the rest of staging.
            raise _failed(error) from error
        batch.bytes_stored += found.size
        return name, inode

    def begin(self) -> StagingFile:
        try:
            return StagingFile(self._folder, self._new_name())
        except OSError as error:
            raise _failed(error) from error

    def write(self, copy: StagingFile, piece: memoryview, is_hole: bool = False) -> None:
        try:
            copy.write(piece, is_hole)
        except OSError as error:
            raise _failed(error) from error

    def discard(self, copy: StagingFile) -> None:
        try:
            copy.discard()
        except OSError as error:
            raise _failed(error) from error

    def finish(self, copy: StagingFile, found: Stat, packed: bytes, batch: Batch) -> tuple[bytes, int]:
        """Name and inode of the copy, with its metadata."""
        try:
            inode, _, _ = copy.finish(found, permissions(found.mode), for_stored(packed))
        except OSError as error:
            raise _failed(error) from error
        batch.bytes_stored += found.size
        return copy.name, inode

    def _new_name(self) -> bytes:
        self._next += 1
        return b"%s%x" % (self._prefix, self._next)


def _failed(error: OSError) -> BackupSideFailed:
    return BackupSideFailed(f"can't write to the backup: {error.strerror}")
