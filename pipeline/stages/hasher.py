"""The hashing worker: reads, hashes and stages the files of a batch.

In: batches of items with their records. Out: results in the same order; unchanged ones are only counted.
Guarantees: the recorded hash comes from the very read whose bytes are staged (promise 3); every file is
opened relative to its folder, without following links and without waiting for a fifo (promise 8); `fstat`
before and after each read tells whether it changed meanwhile. Problems with single files are results; only a
backup side that can't be written is FATAL.

One read or two: a new path, or a known one of another size, is hashed and staged in one pass. A known path of
the same size is hashed first; a small file can then be staged from the buffer, a large one is read again.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline import layout
from pipeline.model import message, treepath
from pipeline.model.errors import Severity
from pipeline.model.record import Area, Kind, Record, Stat
from pipeline.stages import digest
from pipeline.stages.batch import KILLED_TWO, VANISHED, Batch, Source
from pipeline.stages.setup import HashSetup
from pipeline.store.folders import READ_FLAGS, Folders
from pipeline.store.metadata import permissions
from pipeline.store.pieces import pieces
from pipeline.store.staging import Expected, damage_of
from pipeline.store.staging_file import StagingFile

RACY_NS = 2_000_000_000
ATTEMPTS = 3


class BackupSideFailed(Exception):
    """Staging can't be written."""


class _Read(NamedTuple):
    """One file, read once. staged: name and inode. in_buffer: whether the buffer has all of its bytes."""

    found: Stat
    digest: bytes
    in_buffer: bool
    staged: tuple[bytes, int] | None
    settled: bool


class Hasher:
    """A worker's state. worker: a number that no other worker of this run has or had."""

    def __init__(self, setup: HashSetup, worker: int, alive: Callable[[int], None]) -> None:
        self._setup = setup
        self._sources = {source.name: Source(source) for source in setup.sources}
        self._new_hasher = digest.hasher(setup.algorithm)
        self._buffer = bytearray(digest.READ_BYTES)
        self._view = memoryview(self._buffer)
        self._by_stat = setup.trust == "stat"
        self._check_stored = setup.check_stored and setup.backup_root is not None
        self._worker = worker
        self._next_staged = 0
        self._alive = alive
        self._stored: Folders | None = None
        self._staging = -1
        if setup.backup_root is not None:
            self._stored = Folders(os.open(setup.backup_root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            if setup.stage:
                self._staging = self._stored.at(layout.OWN_FOLDER + b"/staging")
                self._staging = os.dup(self._staging)

    def process(self, payload: bytes) -> tuple[bytes, int, int]:
        """A batch's results, encoded, the number of its files and the bytes that were read."""
        batch = Batch(self._setup.report_unchanged)
        try:
            for item in message.decode_items(payload):
                self._item(item, batch)
        except BackupSideFailed as error:
            batch.items.append((message.FATAL, str(error)))
        results = (
            batch.files, batch.unchanged, batch.specials, batch.bytes_read, batch.bytes_stored, batch.items,
        )  # fmt: skip
        return message.encode(results), batch.files, batch.bytes_read

    @staticmethod
    def given_up(item: list[Any], folder: bytes) -> Any:
        """The result of an item at which two workers have died. Only files need one to be read."""
        if item[0] == message.FOLDER:
            _, path, found, row = item
            known = row is not None
            return [message.FOUND, path, Kind.FOLDER, found, None, None, False, known, None, None, 0, None]
        if item[0] in (message.FILE, message.LINK, message.SPECIAL):
            return [message.PROBLEM, treepath.join(folder, item[1]), KILLED_TWO, Severity.ERROR]
        return item

    def _item(self, item: list[Any], batch: Batch) -> None:
        tag = item[0]
        if tag == message.FILE:
            batch.files += 1
            self._file(item[1], item[2], batch)
        elif tag == message.INSIDE:
            batch.inside(item[1], self._sources[treepath.source_name(item[1])])
        elif tag == message.LINK:
            self._link(item, batch)
        elif tag == message.FOLDER:
            self._folder(item, batch)
        elif tag == message.SPECIAL:
            self._special(item, batch)
        else:
            batch.items.append(tuple(item))

    # -- files --------------------------------------------------------------------------------------------

    def _file(self, name: bytes, row: list[Any] | None, batch: Batch) -> None:
        try:
            folder = batch.handle
            if folder is None:
                folder = batch.handle = batch.source.folders.at(batch.relative)
            if self._by_stat and row is not None and self._has_same_stat(folder, name, row, batch):
                batch.is_unchanged(name)
                return
            handle = os.open(name, READ_FLAGS, dir_fd=folder)
        except OSError as error:
            batch.not_readable(name, error)
            return
        try:
            if row is not None and self._is_unchanged(handle, name, row, batch):
                batch.is_unchanged(name)
            else:
                self._open_file(handle, name, Record._make(row) if row is not None else None, batch)
        except OSError as error:
            batch.not_readable(name, error)
        finally:
            os.close(handle)

    def _has_same_stat(self, folder: int, name: bytes, row: list[Any], batch: Batch) -> bool:
        """With `trust = "stat"`: whether the file may be taken as unchanged without being read."""
        record = Record._make(row)
        if record.unsettled or record.digest is None or not record.is_present or record.kind != Kind.FILE:
            return False
        found = Stat.of(os.stat(name, dir_fd=folder, follow_symlinks=False))
        return found == Stat(*record[2:9]) and self._damage(record, name, batch) is None

    def _is_unchanged(self, handle: int, name: bytes, row: list[Any], batch: Batch) -> bool:
        """The hot path: whether a known small file is what its record says, bytes and all.

        It answers as `_open_file` would, on the raw row and without the values that only a change needs (that
        is most of the time per file). Whatever is not plainly unchanged is left to `_open_file`.
        """
        _, kind, mode, uid, gid, mtime_ns, ctime_ns, inode, size, recorded, _, area, _, _, _, _, unsettled = (
            row
        )
        before = os.fstat(handle)
        if (
            before.st_size != size
            or size >= digest.READ_BYTES
            or unsettled
            or kind != 0  # a file
            or area == 2  # deleted
            or before.st_mode != mode
            or before.st_ctime_ns != ctime_ns  # then `_open_file` reads it: not twice
        ):
            return False
        content = os.read(handle, size + 1)  # one more would show that it has grown
        found = os.fstat(handle)
        if (
            len(content) != size
            or found.st_size != size
            or found.st_mtime_ns != mtime_ns
            or found.st_ctime_ns != ctime_ns
            or found.st_ino != inode
            or found.st_uid != uid
            or found.st_gid != gid
            or self._new_hasher(content).digest() != recorded
        ):
            return False
        if self._check_stored and not self._looks_stored(name, area, size, mtime_ns, batch):
            return False
        batch.bytes_read += size
        return True

    def _looks_stored(self, name: bytes, area: int, size: int, mtime_ns: int, batch: Batch) -> bool:
        """Whether the stored file is what it should be, at a quick look; if in doubt, no."""
        folder = batch.stored_handles.get(area)
        try:
            if folder is None:
                at, name = batch.stored_in(name, area)
                assert self._stored is not None, "what is to be checked exists"
                folder = self._stored.at(at)
                # Only one: opening another folder may close it.
                batch.stored_handles = {area: folder} if batch.relative else {}
            stored = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return False
        return stored.st_mtime_ns == mtime_ns and stored.st_size == size and stat.S_ISREG(stored.st_mode)

    def _open_file(self, handle: int, name: bytes, record: Record | None, batch: Batch) -> None:
        path = batch.path + b"\0" + name
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            batch.items.append((message.GONE, path))  # what was listed is no longer there
            return
        expected = record.digest if record is not None and record.kind == Kind.FILE else None
        if record is not None and record.size != before.st_size:
            expected = None
        read_ns = time.time_ns()
        read = self._read_settled(handle, before, expected, batch)
        same = expected is not None and read.digest == expected
        damage = self._damage(record, name, batch) if same and record is not None else None
        if record is None or not same or damage is not None:
            read = self._stage(handle, read, batch)
        unsettled = not read.settled or max(read.found.mtime_ns, read.found.ctime_ns) > read_ns - RACY_NS
        if record is not None and same and damage is None and record.is_current(read.found, unsettled):
            batch.is_unchanged(name)
            return
        staged, inode = read.staged if read.staged is not None else (None, 0)
        warning = None if read.settled else "changed while it was read; stored as read"
        batch.items.append((
            message.FOUND, path, Kind.FILE, read.found, read.digest, None, unsettled,
            record is not None, damage, staged, inode, warning,
        ))  # fmt: skip

    def _read_settled(
        self, handle: int, before: os.stat_result, expected: bytes | None, batch: Batch
    ) -> _Read:
        """Read until the file held still meanwhile, or as often as is sensible."""
        for attempt in range(1, ATTEMPTS + 1):
            read_digest, in_buffer, staged, size_bytes = self._read(handle, before, expected)
            after = os.fstat(handle)
            batch.bytes_read += size_bytes
            settled = (
                size_bytes == after.st_size == before.st_size
                and after.st_mtime_ns == before.st_mtime_ns
                and after.st_ctime_ns == before.st_ctime_ns
            )
            if settled or attempt == ATTEMPTS:
                found = Stat.of(after)._replace(size=size_bytes)
                named = self._finish(staged, found, batch) if staged is not None else None
                return _Read(found, read_digest, in_buffer, named, settled)
            if staged is not None:
                self._discard(staged)
            before = after
        raise AssertionError("the last attempt returns")

    def _read(
        self, handle: int, before: os.stat_result, expected: bytes | None
    ) -> tuple[bytes, bool, StagingFile | None, int]:
        """One pass over the file: digest, whether the buffer has it all, the staged copy, bytes read."""
        count = os.preadv(handle, [self._buffer], 0)
        if count < len(self._buffer) and (
            count == before.st_size or not os.preadv(handle, [bytearray(1)], count)
        ):
            return self._new_hasher(self._view[:count]).digest(), True, None, count
        # No further than it was long at first: a file that grows as fast as it is read would never end.
        if expected is not None:
            return self._pass(handle, before.st_size, None)
        return self._pass(handle, before.st_size, self._staging_file())

    def _pass(
        self, handle: int, size_bytes: int, staged: StagingFile | None
    ) -> tuple[bytes, bool, StagingFile | None, int]:
        """Hash a large file, and write it to staging on the way where that is wanted."""
        state, offset = self._new_hasher(), 0
        try:
            for piece, is_hole in pieces(handle, self._buffer, size_bytes):
                state.update(piece)
                if staged is not None:
                    self._write(staged, piece, is_hole)
                offset += len(piece)
                self._alive(len(piece))
        except OSError:
            if staged is not None:
                self._discard(staged)
            raise
        return state.digest(), False, staged, offset

    # -- staging ------------------------------------------------------------------------------------------

    def _staging_file(self) -> StagingFile | None:
        if self._staging < 0:
            return None
        self._next_staged += 1
        name = b"%x-%x-%x" % (self._setup.run, self._worker, self._next_staged)
        try:
            return StagingFile(self._staging, name)
        except OSError as error:
            raise BackupSideFailed(_write_cause(error)) from error

    def _write(self, staged: StagingFile, piece: memoryview, is_hole: bool = False) -> None:
        try:
            staged.write(piece, is_hole)
        except OSError as error:
            # What was written so far is swept with the rest of staging.
            raise BackupSideFailed(_write_cause(error)) from error

    def _discard(self, staged: StagingFile) -> None:
        try:
            staged.discard()
        except OSError as error:
            raise BackupSideFailed(_write_cause(error)) from error

    def _stage(self, handle: int, read: _Read, batch: Batch) -> _Read:
        """The content's staged copy: already there, from the buffer, or by reading the file again."""
        if self._staging < 0:
            return read
        # The file may have shrunk into the buffer meanwhile, or have grown out of it again.
        while read.staged is None and not read.in_buffer:
            read = self._read_settled(handle, os.fstat(handle), None, batch)
        if read.staged is not None:
            return read
        staged = self._staging_file()
        assert staged is not None, "there is a staging folder"
        self._write(staged, self._view[: read.found.size])
        return read._replace(staged=self._finish(staged, read.found, batch))

    def _finish(self, staged: StagingFile, found: Stat, batch: Batch) -> tuple[bytes, int]:
        try:
            inode = staged.finish(found, permissions(found.mode))
        except OSError as error:
            raise BackupSideFailed(_write_cause(error)) from error
        batch.bytes_stored += found.size
        return staged.name, inode

    def _damage(self, record: Record, name: bytes, batch: Batch) -> str | None:
        """What is wrong with the stored file of a known path, at a quick look."""
        if self._stored is None or not self._check_stored:
            return None
        batch.stored_handles = {}
        at = b"/".join(filter(None, batch.stored_in(name, record.area)))
        expected = Expected(record.kind, record.size, record.digest, record.target, record.mtime_ns)
        try:
            return damage_of(self._stored, at, expected)
        except OSError as error:
            raise BackupSideFailed(f"can't look at the backup: {error.strerror}") from error

    # -- everything else ----------------------------------------------------------------------------------

    def _link(self, item: list[Any], batch: Batch) -> None:
        _, name, found, target, row = item
        path, record, damage = batch.path + b"\0" + name, None, None
        if row is not None:
            record = Record._make(row)
            if record.kind == Kind.LINK and record.target == target:
                damage = self._damage(record, name, batch)
                if damage is None and record.is_current(Stat(*found), unsettled=False):
                    batch.is_unchanged(name)
                    return
        batch.found(path, Kind.LINK, found, target, row is not None, damage)

    def _special(self, item: list[Any], batch: Batch) -> None:
        _, name, found, row = item
        batch.specials += 1
        path = batch.path + b"\0" + name
        if row is not None:
            record = Record._make(row)
            if record.kind == Kind.SPECIAL and record.is_current(Stat(*found), unsettled=False):
                return
        batch.found(path, Kind.SPECIAL, found, None, row is not None, None)

    def _folder(self, item: list[Any], batch: Batch) -> None:
        _, path, found, row = item
        damage = None
        batch.stored_handles = {}  # looking at another folder may close them
        if row is not None:
            record = Record._make(row)
            if record.kind == Kind.FOLDER and record.is_present:
                place = self._sources[treepath.source_name(path)].place
                damage = self._folder_damage(layout.stored(place, treepath.relative(path), Area.LIVE))
                same = (record.mode, record.uid, record.gid, record.mtime_ns) == tuple(found[:4])
                if damage is None and same:
                    return
        batch.found(path, Kind.FOLDER, found, None, row is not None, damage)

    def _folder_damage(self, at: bytes) -> str | None:
        if self._stored is None or not self._check_stored:
            return None
        try:
            self._stored.at(at)
        except OSError as error:
            if error.errno in VANISHED:
                return "gone"
            raise BackupSideFailed(f"can't look at the backup: {error.strerror}") from error
        return None


def _write_cause(error: OSError) -> str:
    return f"can't write to the backup: {error.strerror}"
