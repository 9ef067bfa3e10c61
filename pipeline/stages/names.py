"""Hard links among what is restored: another name for a file that was restored before.

In: entry states that name an earlier path, in scan order. Out: what was done, or that the entry must be
restored as a file of its own. Guarantees: a name is only given to a file whose every byte was hashed (promise
3) and is what this entry held; so what stood in the earlier one's way, couldn't be restored, or is another
content, never gets a second name. Memory is bounded. Never fails.
"""

from __future__ import annotations

import errno
import os
import stat
from enum import Enum
from typing import TypeVar

from pipeline.model import treepath
from pipeline.model.record import Held, Kind
from pipeline.stages import digest
from pipeline.stages.digest import NewHasher
from pipeline.store import calls
from pipeline.store.folders import READ_FLAGS, split
from pipeline.store.target import Occupied, Target, place_in_target

K = TypeVar("K")
_REMEMBERED = 10_000
_CANNOT = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


class Given(Enum):
    """What became of an entry: it is a name now, was one already, or has to be restored by itself."""

    NAME = 1
    ALREADY = 2
    NOTHING = 3


class Names:
    """target: None where nothing is restored (a dry run). with_names: as in `place_in_target`."""

    def __init__(self, target: Target | None, with_names: bool, new_hasher: NewHasher) -> None:
        self._target = target
        self._with_names = with_names
        self._new_hasher = new_hasher
        self._buffer = bytearray(digest.READ_BYTES)
        self._instead: dict[bytes, bytes] = {}
        self._read: dict[tuple[int, int, int, int], bytes] = {}  # digests of files, by what they are

    def restored(self, held: Held) -> None:
        """A name that was restored by itself stands for the file from now on."""
        if held.linked_to is not None:
            _remember(self._instead, held.linked_to, held.path)

    def give(self, held: Held) -> Given:
        assert self._target is not None, "a dry run restores every entry by itself"
        assert held.linked_to is not None, "only what has another name comes here"
        first = self._instead.get(held.linked_to, held.linked_to)
        first_folder, first_name = split(place_in_target(first, self._with_names))
        folder, name = split(place_in_target(held.path, self._with_names))
        try:
            parent = self._target.existing_folder(first_folder)
            found = calls.stat(first_name, dir_fd=parent, follow_symlinks=False)
            if not self._is_right(found, first_name, parent, held):
                return Given.NOTHING
            staged = self._target.new_name(first_name, parent)
        except OSError as error:
            if error.errno in _CANNOT:
                self._target.count("hard links")
            return Given.NOTHING  # by itself it can be restored, or fails with a cause that is told then
        try:
            place = self._target.folder(folder)
            if _is_there(name, place, found):
                return Given.ALREADY
            self._target.give_name(staged, place, name)
        except (OSError, Occupied):
            return Given.NOTHING
        return Given.NAME

    def _is_right(self, found: os.stat_result, name: bytes, parent: int, held: Held) -> bool:
        if Kind.of_mode(found.st_mode) != held.kind or found.st_mtime_ns != held.mtime_ns:
            return False
        if held.kind == Kind.LINK:
            return calls.readlink(name, dir_fd=parent) == held.target
        if held.kind == Kind.SPECIAL:
            is_device = stat.S_ISCHR(held.mode) or stat.S_ISBLK(held.mode)
            same_type = stat.S_IFMT(found.st_mode) == stat.S_IFMT(held.mode)
            return same_type and (not is_device or found.st_rdev == held.size)
        return found.st_size == held.size and self._digest(found, name, parent) == held.digest

    def _digest(self, found: os.stat_result, name: bytes, parent: int) -> bytes:
        """Read once, however many names a file gets."""
        key = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
        known = self._read.get(key)
        if known is None:
            handle = calls.open(name, READ_FLAGS, dir_fd=parent)
            try:
                known = digest.of_file(handle, self._new_hasher, self._buffer)
            finally:
                os.close(handle)
            _remember(self._read, key, known)
        return known


def words(held: Held) -> str:
    assert held.linked_to is not None, "it is a name of another"
    return f"another name of {treepath.shown(held.linked_to)}"


def _is_there(name: bytes, folder: int, first: os.stat_result) -> bool:
    try:
        found = calls.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (first.st_dev, first.st_ino)


def _remember(known: dict[K, bytes], key: K, value: bytes) -> None:
    """What is forgotten costs another look, or a name less."""
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value
