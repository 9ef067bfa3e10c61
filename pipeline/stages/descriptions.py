"""The metadata that restored entries get: owners as this machine has them, attributes from the state.

In: what the state holds of an entry. Out: `Metadata`, and whether what is there already has it. Guarantees:
set-id bits come back only together with the owner that they were given for. Nothing is written. Fails with
SQLite's errors.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipeline.model import attributes
from pipeline.model.record import Held, Kind
from pipeline.store.metadata import MAY_CHANGE_OWNER
from pipeline.store.owners import LocalOwners
from pipeline.store.reading import Reader, read_attributes
from pipeline.store.target import Metadata

_TYPES = {Kind.FILE: stat.S_IFREG, Kind.LINK: stat.S_IFLNK, Kind.FOLDER: stat.S_IFDIR}
_KEPT_BYTES = 4 << 20
_ENTRY_BYTES = 200
"""What keeping one takes beside its own bytes, roughly."""


class Remembered:
    """Attributes by their identity, read once as long as there is room for them: most entries of a tree have
    the same few."""

    def __init__(self, read: Callable[[bytes], bytes], most_bytes: int = _KEPT_BYTES) -> None:
        self._read = read
        self._left_bytes = self._most_bytes = most_bytes
        self._kept: dict[bytes, bytes] = {}

    def __call__(self, name: bytes) -> bytes:
        packed = self._kept.get(name)
        if packed is None:
            packed = self._read(name)
            self._left_bytes -= len(packed) + _ENTRY_BYTES
            if self._left_bytes < 0:
                self._kept, self._left_bytes = {}, self._most_bytes
            else:
                self._kept[name] = packed
        return packed


class Descriptions:
    """state: the database's path. numeric_ids: owners by their recorded numbers, whoever that is here."""

    def __init__(self, state: str, numeric_ids: bool) -> None:
        self._reader = Reader(Path(state))
        self.owners = LocalOwners(None if numeric_ids else self._reader)
        self._attributes = Remembered(partial(read_attributes, self._reader))

    def of(self, held: Held) -> Metadata:
        """A mode that nobody knows leaves what it is private."""
        mode = held.mode if held.mode >= 0 else 0o700
        packed = self._attributes(held.attributes) if held.attributes is not None else b""
        return self.of_plain(mode, held.uid, held.gid, held.mtime_ns)._replace(attributes=packed)

    def of_plain(self, mode: int, uid: int, gid: int, mtime_ns: int) -> Metadata:
        """The same of an entry without extended attributes."""
        uid, gid = self.owners.of(uid, gid)
        return Metadata(_restored_mode(mode, uid, gid), uid, gid, mtime_ns)

    def fits(self, found: os.stat_result, held: Held) -> bool:
        """Whether what is there has kind, size, mode, owner and mtime as they were."""
        kind = _TYPES.get(Kind(held.kind), stat.S_IFMT(held.mode))
        wanted = self.of(held)
        if stat.S_IFMT(found.st_mode) != kind or found.st_mtime_ns != held.mtime_ns:
            return False
        if held.kind == Kind.FILE and found.st_size != held.size:
            return False
        if held.kind != Kind.LINK and stat.S_IMODE(found.st_mode) != wanted.mode:
            return False
        return not MAY_CHANGE_OWNER or (found.st_uid, found.st_gid) == (wanted.uid, wanted.gid)

    def fits_attributes(self, packed: bytes, held: Held) -> bool:
        return attributes.agree(self.of(held).attributes, packed)


def _restored_mode(mode: int, uid: int, gid: int) -> int:
    """Permission bits as recorded. Set-id bits only together with the owner that they were given for."""
    if MAY_CHANGE_OWNER or (uid, gid) == (os.geteuid(), os.getegid()):
        return stat.S_IMODE(mode)
    return stat.S_IMODE(mode) & 0o1777
