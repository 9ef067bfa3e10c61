"""The hashing worker: reads, hashes and stages the files of a batch.

In: batches of items with their records. Out: results in the same order; unchanged ones are only counted.
Guarantees: the recorded hash comes from the very read whose bytes are staged (promise 3); every file is
opened relative to its folder, without following links and without waiting for a fifo (promise 8); `fstat`
before and after tells whether a file that is stored changed while it was read. Problems with single files are
results; only a backup side that can't be written is FATAL.

One read or two: a new path, or a known one of another size, is hashed and staged in one pass. A known path of
the same size is hashed first; a small file can then be staged from the buffer, a large one is read again.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from pipeline import layout
from pipeline.model import message, treepath
from pipeline.model.attributes import identity
from pipeline.model.errors import Severity
from pipeline.model.record import NAMES_MASK, Kind, Record, Stat
from pipeline.stages import digest
from pipeline.stages.ahead import ReadAhead
from pipeline.stages.batch import KILLED_TWO, BackupSideFailed, Batch, Source
from pipeline.stages.large import LargeFiles
from pipeline.stages.setup import HashSetup
from pipeline.stages.staged_copies import StagedCopies
from pipeline.stages.stored_look import StoredLook
from pipeline.store import calls, extended
from pipeline.store.folders import READ_FLAGS, Folders
from pipeline.store.page_cache import LARGE_BYTES, is_cached, let_go
from pipeline.store.staging_file import StagingFile

RACY_NS = 2_000_000_000
ATTEMPTS = 3


class _Read(NamedTuple):
    """One file, read once. staged: name and inode. in_buffer: whether the buffer has all of its bytes.
    attributes: packed; partly: why these aren't all."""

    found: Stat
    attributes: bytes
    digest: bytes
    in_buffer: bool
    staged: tuple[bytes, int] | None
    settled: bool
    partly: str | None


class Hasher:
    """A worker's state. worker: a number that no other worker of this run has or had."""

    def __init__(self, setup: HashSetup, worker: int, alive: Callable[[int], None]) -> None:
        self._setup = setup
        self._cleanup = ExitStack()
        try:
            self._open(setup, worker, alive)
        except BaseException:  # in a cluster, this process goes on
            self.close()
            raise

    def _open(self, setup: HashSetup, worker: int, alive: Callable[[int], None]) -> None:
        self._sources: dict[bytes, Source] = {}
        for place in setup.sources:
            self._sources[place.name] = Source(place)
            self._cleanup.callback(self._sources[place.name].close)
        self._new_hasher = digest.hasher(setup.algorithm)
        self._buffer = bytearray(digest.READ_BYTES)
        self._view = memoryview(self._buffer)
        self._by_stat = setup.trust == "stat"
        self._large = LargeFiles(setup.algorithm, alive)
        self._cleanup.callback(self._large.close)
        stored, self._copies = None, None
        if setup.backup_root is not None:
            root = calls.open(setup.backup_root, os.O_RDONLY | calls.O_DIRECTORY | calls.O_CLOEXEC)
            self._cleanup.callback(calls.close, root)
            stored = Folders(root)
            self._cleanup.callback(stored.close)
            if setup.stage:
                staging = calls.dup(stored.at(layout.OWN_FOLDER + b"/staging"))
                self._cleanup.callback(calls.close, staging)
                self._copies = StagedCopies(staging, setup.run, worker)
        self._look = StoredLook(stored if setup.check_stored else None)
        self._ahead = ReadAhead(self._sources, known_too=not self._by_stat)

    def close(self) -> None:
        """Nothing of the sources or of the backup stays open."""
        self._cleanup.close()

    def process(self, payload: bytes) -> tuple[bytes, int, int]:
        """A batch's results, encoded, the number of its files and the bytes that were read."""
        batch = self.work(payload)
        return batch.encoded(), batch.files, batch.bytes_read

    def work(self, payload: bytes) -> Batch:
        """A batch with its results."""
        batch, items = Batch(self._setup.report_unchanged), message.decode_items(payload)
        self._ahead.before(items)
        try:
            for item in items:
                self._item(item, batch)
        except BackupSideFailed as error:
            batch.items.append((message.FATAL, str(error)))
        self._ahead.after(batch.files)
        return batch

    @staticmethod
    def given_up(item: list[Any], folder: bytes) -> Any:
        """The result of an item at which two workers have died. Only files need one to be read."""
        if item[0] == message.FOLDER:
            _, path, found, row, packed, *why = item
            known = row is not None
            return [
                message.FOUND, path, Kind.FOLDER, found, None, None, False, known, None, None, 0,
                why[0] if why else None, packed,
            ]  # fmt: skip
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
            handle = calls.open(name, READ_FLAGS, dir_fd=folder)
        except OSError as error:
            batch.not_readable(name, error)
            return
        try:
            if row is not None and self._is_unchanged(handle, name, row, batch):
                batch.is_unchanged(name)
            elif row is not None or not self._is_small_and_new(handle, name, batch):
                self._open_file(handle, name, Record._make(row) if row is not None else None, batch)
        except OSError as error:
            batch.not_readable(name, error)
        finally:
            os.close(handle)

    def _has_same_stat(self, folder: int, name: bytes, row: list[Any], batch: Batch) -> bool:
        """With `trust = "stat"`: whether the file may be taken as unchanged without being read.

        On the raw row, as `_is_unchanged`; what is not plainly unchanged is opened and read.
        """
        _, kind, mode, uid, gid, mtime_ns, ctime_ns, inode, size, recorded, _, area, _, _, _, _, unsettled, \
            links, _, _ = row  # fmt: skip
        if unsettled or recorded is None or kind != 0 or area == 2:  # no file, deleted
            return False
        found = calls.stat(name, dir_fd=folder, follow_symlinks=False)
        return (
            found.st_mtime_ns == mtime_ns
            and found.st_ctime_ns == ctime_ns
            and found.st_size == size
            and found.st_ino == inode
            and found.st_mode == mode
            and found.st_uid == uid
            and found.st_gid == gid
            and found.st_nlink == links & NAMES_MASK
            and self._look.is_right(name, area, size, mtime_ns, batch)
        )

    def _is_unchanged(self, handle: int, name: bytes, row: list[Any], batch: Batch) -> bool:
        """The hot path: whether a known small file is what its record says, bytes and all.

        It answers as `_open_file` would, on the raw row and without the values that only a change needs (that
        is most of the time per file). Whatever is not plainly unchanged is left to `_open_file`.
        """
        _, kind, mode, uid, gid, mtime_ns, ctime_ns, inode, size, recorded, _, area, _, _, _, _, unsettled, \
            links, _, _ = row  # fmt: skip
        if size >= digest.READ_BYTES or unsettled or kind != 0 or area == 2:  # no file, deleted
            return False
        # One look is enough: what changes from here on either shows in the bytes, or is the next run's.
        found = os.fstat(handle)
        if (
            found.st_ctime_ns != ctime_ns
            or found.st_mtime_ns != mtime_ns
            or found.st_size != size
            or found.st_ino != inode
            or found.st_mode != mode
            or found.st_uid != uid
            or found.st_gid != gid
            or found.st_nlink != links & NAMES_MASK
        ):
            return False
        content = os.read(handle, size + 1)  # one more would show that it has grown
        if self._new_hasher(content).digest() != recorded or len(content) != size:
            return False
        if not self._look.is_right(name, area, size, mtime_ns, batch):
            return False
        batch.bytes_read += size
        return True

    def _is_small_and_new(self, handle: int, name: bytes, batch: Batch) -> bool:
        """The hot path of a first run: a small file at a new path, read and staged in one go.

        As `_open_file` would, with fewer calls. What holds still no less than that is left to it: False.
        """
        read_ns = time.time_ns()
        before = os.fstat(handle)
        size = before.st_size
        if size >= digest.READ_BYTES or not stat.S_ISREG(before.st_mode):
            return False
        content = os.read(handle, size + 1)  # one more would show that it has grown
        after = os.fstat(handle)
        if (
            len(content) != size
            or after.st_size != size
            or after.st_mtime_ns != before.st_mtime_ns
            or after.st_ctime_ns != before.st_ctime_ns
        ):
            return False
        (packed, why), found, staged, inode = extended.seen(handle), Stat.of(after), None, 0
        if self._copies is not None:
            staged, inode = self._copies.small(content, found, packed, batch)
        batch.bytes_read += size
        unsettled = max(found.mtime_ns, found.ctime_ns) > read_ns - RACY_NS
        batch.items.append((
            message.FOUND, batch.path + b"\0" + name, 0, found, self._new_hasher(content).digest(), None,
            unsettled, False, None, staged, inode, why, packed,
        ))  # fmt: skip
        return True

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
        is_passing = before.st_size >= LARGE_BYTES and not is_cached(handle, before.st_size)
        read = self._read_settled(handle, before, expected, batch)
        same = expected is not None and read.digest == expected
        damage = self._look.damage(record, name, batch) if same and record is not None else None
        if record is None or not same or damage is not None:
            read = self._stage(handle, read, batch)
        if is_passing:
            let_go(handle)
        unsettled = not read.settled or max(read.found.mtime_ns, read.found.ctime_ns) > read_ns - RACY_NS
        if record is not None and same and damage is None and record.is_current(read.found, unsettled):
            batch.is_unchanged(name)
            return
        staged, inode = read.staged if read.staged is not None else (None, 0)
        warning = read.partly if read.settled else "changed while it was read; stored as read"
        batch.items.append((
            message.FOUND, path, Kind.FILE, read.found, read.digest, None, unsettled,
            record is not None, damage, staged, inode, warning, read.attributes,
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
                found, (packed, why) = Stat.of(after)._replace(size=size_bytes), extended.seen(handle)
                named = None
                if staged is not None and self._copies is not None:
                    named = self._copies.finish(staged, found, packed, batch)
                return _Read(found, packed, read_digest, in_buffer, named, settled, why)
            if staged is not None and self._copies is not None:
                self._copies.discard(staged)
            before = after
        raise AssertionError("the last attempt returns")

    def _read(
        self, handle: int, before: os.stat_result, expected: bytes | None
    ) -> tuple[bytes, bool, StagingFile | None, int]:
        """One pass over the file: digest, whether the buffer has it all, the staged copy, bytes read."""
        if before.st_size < len(self._buffer):
            count = calls.preadv(handle, [self._buffer], 0)
            if count < len(self._buffer) and (
                count == before.st_size or not calls.preadv(handle, [bytearray(1)], count)
            ):
                return self._new_hasher(self._view[:count]).digest(), True, None, count
        # No further than it was long at first: a file that grows as fast as it is read would never end.
        if expected is not None:
            return self._pass(handle, before.st_size, None)
        copy = self._copies.begin() if self._copies is not None else None
        return self._pass(handle, before.st_size, copy)

    def _pass(
        self, handle: int, size_bytes: int, staged: StagingFile | None
    ) -> tuple[bytes, bool, StagingFile | None, int]:
        """Hash a large file, and write it to staging on the way where that is wanted."""
        copies = self._copies
        if staged is None or copies is None:
            read_digest, read_bytes = self._large.read(handle, size_bytes, None)
            return read_digest, False, None, read_bytes
        try:
            read_digest, read_bytes = self._large.read(handle, size_bytes, partial(copies.write, staged))
        except OSError:
            copies.discard(staged)
            raise
        return read_digest, False, staged, read_bytes

    # -- staging ------------------------------------------------------------------------------------------

    def _stage(self, handle: int, read: _Read, batch: Batch) -> _Read:
        """The content's staged copy: already there, from the buffer, or by reading the file again."""
        if self._copies is None:
            return read
        # The file may have shrunk into the buffer meanwhile, or have grown out of it again.
        while read.staged is None and not read.in_buffer:
            read = self._read_settled(handle, os.fstat(handle), None, batch)
        if read.staged is not None:
            return read
        content = bytes(self._view[: read.found.size])
        return read._replace(staged=self._copies.small(content, read.found, read.attributes, batch))

    # -- everything else ----------------------------------------------------------------------------------

    def _link(self, item: list[Any], batch: Batch) -> None:
        _, name, found, target, row, packed, *why = item
        path, record, damage = batch.path + b"\0" + name, None, None
        if row is not None:
            record = Record._make(row)
            if record.kind == Kind.LINK and record.target == target:
                damage = self._look.damage(record, name, batch)
                if damage is None and _is_current(record, found, packed):
                    batch.is_unchanged(name)
                    return
        batch.found(path, Kind.LINK, found, target, packed, row is not None, damage, *why)

    def _special(self, item: list[Any], batch: Batch) -> None:
        _, name, found, row, packed, *why = item
        batch.specials += 1
        path = batch.path + b"\0" + name
        if row is not None:
            record = Record._make(row)
            if record.kind == Kind.SPECIAL and _is_current(record, found, packed):
                return
        batch.found(path, Kind.SPECIAL, found, None, packed, row is not None, None, *why)

    def _folder(self, item: list[Any], batch: Batch) -> None:
        _, path, found, row, packed, *why = item
        damage = None
        batch.stored_handles = {}  # looking at another folder may close them
        if row is not None:
            record = Record._make(row)
            if record.kind == Kind.FOLDER and record.is_present:
                place = self._sources[treepath.source_name(path)].place
                damage = self._look.folder_damage(path, place)
                same = (record.mode, record.uid, record.gid, record.mtime_ns) == tuple(found[:4])
                is_seen = record.links == found[7] and record.attributes == identity(packed)
                if damage is None and same and is_seen:
                    return
        batch.found(path, Kind.FOLDER, found, None, packed, row is not None, damage, *why)


def _is_current(record: Record, found: list[int], packed: bytes) -> bool:
    """Of a link, or a special file. Their attributes are read each time, so it needn't be settled."""
    is_same = record.attributes == identity(packed) and record.size == found[6]
    return is_same and record.is_current(Stat(*found), unsettled=False)
