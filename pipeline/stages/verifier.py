"""The verifying worker: reads what is stored and compares it with what the state says.

In: batches of stored contents, or of files that nothing names. Out: only what isn't right, in the same order;
a file that nothing names comes back with its digest. Guarantees: every byte is read and hashed; what looks
wrong while a writer is at work is looked for where it lies by then, and what the writer has given up
meanwhile isn't missed. Nothing is written.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable
from typing import Any

from pipeline import layout
from pipeline.model import message, treepath
from pipeline.model.errors import Severity
from pipeline.model.record import Area, Held, Kind, Version
from pipeline.stages import digest
from pipeline.stages.batch import KILLED_TWO
from pipeline.stages.contents import Contents
from pipeline.stages.setup import VerifySetup

ROTTEN, MISSING, FOREIGN, MISPLACED = "rotten", "missing", "foreign", "misplaced"
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)


class Verifier:
    """A worker's state."""

    def __init__(self, setup: VerifySetup, worker: int, alive: Callable[[int], None]) -> None:
        self._contents = Contents(setup.places, setup.backup_root, setup.state)
        self._report = setup.report
        self._new_hasher = digest.hasher(setup.algorithm)
        self._buffer = bytearray(digest.READ_BYTES)
        self._alive = alive
        self._inside = b""
        self._bytes_read = 0
        self._tally: Counter[str] = Counter()
        self._items: list[tuple[Any, ...]] = []

    def process(self, payload: bytes) -> tuple[bytes, int, int]:
        """A batch's results, encoded, the number of its contents, and the bytes that were read."""
        self._items, self._tally, self._bytes_read = [], Counter(), 0
        for item in message.decode_items(payload):
            self._item(item)
        self._items += [(message.TALLY, name, number) for name, number in self._tally.items()]
        tried = self._tally.total()
        results = (tried, 0, 0, self._bytes_read, 0, self._items)
        return message.encode(results), tried, self._bytes_read

    @staticmethod
    def given_up(item: list[Any], folder: bytes) -> Any:
        """The result of an item at which two workers have died."""
        if item[0] in (message.FILE, message.LINK):
            return [message.PROBLEM, treepath.join(folder, item[1]), KILLED_TWO, Severity.ERROR]
        if item[0] in (message.FOLDER, message.VERSION):
            return [message.PROBLEM, item[1], KILLED_TWO, Severity.ERROR]
        return [*item, 0, None] if item[0] == message.STRAY else item

    def _item(self, item: list[Any]) -> None:
        tag = item[0]
        if tag == message.FILE:
            self._file(Held(treepath.join(self._inside, item[1]), *item[2]))
        elif tag == message.INSIDE:
            self._inside = item[1]
        elif tag == message.LINK:
            self._link(Held(treepath.join(self._inside, item[1]), *item[2]))
        elif tag == message.VERSION:
            self._version(Version._make(item[2]))
        elif tag == message.FOLDER:
            self._folder(Held(item[1], *item[2]))
        elif tag == message.STRAY:
            self._stray(item[1])
        else:
            self._items.append(tuple(item))

    def _version(self, version: Version) -> None:
        held = Held.of_version(version)
        (self._link if version.kind == Kind.LINK else self._file)(held)
        if version.pinned:
            place = self._contents.places[treepath.source_name(version.path)]
            marker = layout.version(place, treepath.relative(version.path), version.number, b"pinned")
            if not self._exists(marker) and self._contents.is_promised(version.path, version.number):
                self._wrong(MISSING, marker, version.path, "the marker of a pinned version is not there")

    def _file(self, held: Held) -> None:
        self._tally["files"] += 1
        cause = None
        for at in self._contents.all_places(held):
            try:
                handle = self._contents.open(at)
            except OSError as error:
                if error.errno not in _NOT_THERE:
                    cause = f"can't be read: {error.strerror}"
                continue
            try:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    cause = "something that is not a file stands there"
                elif self._digest(handle) == held.digest:
                    self._right(held, at)
                    return
                else:
                    cause = "its bytes are not those that were stored"
            except OSError as error:
                cause = f"can't be read: {error.strerror}"
            finally:
                os.close(handle)
        if not self._contents.is_promised(held.path, held.number):
            return
        at = self._contents.place(held.path, held.number, held.area)
        if cause is not None:
            self._wrong(ROTTEN, at, held.path, cause, held)
        else:
            self._wrong(MISSING, at, held.path, "it is not there", held)

    def _digest(self, handle: int) -> bytes:
        return digest.of_file(handle, self._new_hasher, self._buffer, self._has_read)

    def _has_read(self, size_bytes: int) -> None:
        self._bytes_read += size_bytes
        if size_bytes >= digest.READ_BYTES:
            self._alive(size_bytes)

    def _link(self, held: Held) -> None:
        self._tally["links"] += 1
        found = False
        for at in self._contents.all_places(held):
            try:
                if self._contents.target(at) == held.target:
                    self._right(held, at)
                    return
                found = True
            except OSError as error:
                found |= error.errno not in _NOT_THERE
        if self._contents.is_promised(held.path, held.number):
            at = self._contents.place(held.path, held.number, held.area)
            what, cause = (ROTTEN, "it points elsewhere") if found else (MISSING, "it is not there")
            self._wrong(what, at, held.path, cause)

    def _folder(self, held: Held) -> None:
        at = self._contents.place(held.path, held.number, Area.LIVE)
        if self._is_folder(at) or not self._contents.is_promised_folder(held.path, at):
            return
        if not self._is_folder(at):  # nor has a writer made it between the two looks
            self._wrong(MISSING, at, held.path, "the folder is not there")

    def _is_folder(self, at: bytes) -> bool:
        try:
            return not at or stat.S_ISDIR(self._contents.stat(at).st_mode)
        except OSError:
            return False

    def _stray(self, at: bytes) -> None:
        """A file that nothing names: read, so that a content that is missing elsewhere is found again."""
        try:
            handle = self._contents.open(at)
        except OSError:
            self._items.append((message.STRAY, at, 0, None))
            return
        try:
            found = os.fstat(handle)
            is_file = stat.S_ISREG(found.st_mode)
            self._items.append((message.STRAY, at, found.st_size, self._digest(handle) if is_file else None))
        except OSError:
            self._items.append((message.STRAY, at, 0, None))
        finally:
            os.close(handle)

    def _exists(self, at: bytes) -> bool:
        try:
            self._contents.stat(at)
        except OSError:
            return False
        return True

    def _right(self, held: Held, at: bytes) -> None:
        if self._report:
            self._items.append((message.DONE, held.path, "VERIFY", "", at))

    def _wrong(self, what: str, at: bytes, path: bytes, cause: str, held: Held | None = None) -> None:
        size, recorded = (held.size, held.digest) if held is not None else (0, None)
        is_repairable = held is not None and held.area in (Area.LIVE, Area.DUPLICATE)
        self._items.append((message.WRONG, what, at, path, cause, size, recorded, is_repairable))
