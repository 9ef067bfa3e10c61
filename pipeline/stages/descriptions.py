"""The metadata that restored entries get: owners as this machine has them, attributes from the state.

In: what the state holds of an entry. Out: `Metadata`, and whether what is there already has it. Guarantees:
set-id bits come back only together with the owner that they were given for. Nothing is written. Fails with
SQLite's errors, and with NotKnown.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pipeline.model import attributes
from pipeline.model.record import Held, Kind
from pipeline.store.metadata import MAY_CHANGE_OWNER
from pipeline.store.owners import LocalOwners
from pipeline.store.reading import Reader, Remembered, read_attributes
from pipeline.store.target import Metadata

_TYPES = {Kind.FILE: stat.S_IFREG, Kind.LINK: stat.S_IFLNK, Kind.FOLDER: stat.S_IFDIR}


class NotKnown(Exception):
    """The state doesn't have what an entry needs. Its text says what."""


class Descriptions:
    """state: the database's path. numeric_ids: owners by their recorded numbers, whoever that is here."""

    def __init__(self, state: str, numeric_ids: bool) -> None:
        self._reader = Reader(Path(state))
        self.owners = LocalOwners(None if numeric_ids else self._reader)
        self._attributes = Remembered(self._read_attributes)

    def _read_attributes(self, name: bytes) -> bytes:
        try:
            return read_attributes(self._reader, name)
        except ValueError as error:
            raise NotKnown(f"{error}; not restored") from error

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
