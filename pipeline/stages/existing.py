"""What a folder that is restored into has already.

In: what the state holds of an entry, and where it goes. Out: whether exactly that is there, metadata and
bytes. Guarantees: no link is followed, nothing is written. Never fails: what can't be looked at isn't there.
"""

from __future__ import annotations

import os
import stat

from pipeline.model.record import NAMES_MASK, Held, Kind
from pipeline.stages import digest
from pipeline.stages.descriptions import Descriptions
from pipeline.stages.digest import NewHasher
from pipeline.store import calls, extended
from pipeline.store.folders import READ_FLAGS, Folders
from pipeline.store.target import Root


class Existing:
    """place: the folder. descriptions: what its entries should have."""

    def __init__(self, place: Root, descriptions: Descriptions, new_hasher: NewHasher) -> None:
        self._folders = Folders(place.open())
        self._descriptions = descriptions
        self._new_hasher = new_hasher
        self._buffer = bytearray(digest.READ_BYTES)

    def has(self, folder: bytes, name: bytes, held: Held) -> bool:
        """folder: relative to the place."""
        try:
            parent = self._folders.at(folder)
            found = calls.stat(name, dir_fd=parent, follow_symlinks=False)
            if not self._descriptions.fits(found, held):
                return False
            names = held.links & NAMES_MASK if held.links > 0 else 1
            if held.kind != Kind.FOLDER and found.st_nlink > names:
                return False  # one with others that were not its names
            if held.kind == Kind.FILE:
                return self._has_file(calls.open(name, READ_FLAGS, dir_fd=parent), held)
            if not self._descriptions.fits_attributes(extended.read_name(name, parent), held):
                return False
            if held.kind == Kind.LINK:
                return calls.readlink(name, dir_fd=parent) == held.target
            is_device = stat.S_ISCHR(held.mode) or stat.S_ISBLK(held.mode)
            return not is_device or found.st_rdev == held.size
        except OSError:
            return False  # then it is restored, and what stands in the way is met there

    def _has_file(self, handle: int, held: Held) -> bool:
        try:
            if not self._descriptions.fits_attributes(extended.read(handle), held):
                return False
            return digest.of_file(handle, self._new_hasher, self._buffer) == held.digest
        finally:
            os.close(handle)
