"""Staging: where bytes are written, and old contents get a second name, before a final name is given.

In: buffers to write, stored files to adopt. Out: names in `.pipeline/staging/` and what they are.
Guarantees: a staged name is made exclusively (0600, in a folder of 0700), never followed if it is a link, and
has its final metadata before it can get a final name. Nothing here touches a final name. Fails with OSError
where the backup side can't be written, with `Damaged` where a stored file isn't what the state says.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from pipeline.model.record import Kind, Stat, same_time, signed64
from pipeline.store import calls, extended
from pipeline.store.folders import Folders, split
from pipeline.store.metadata import describe, permissions
from pipeline.store.operation import Identity, Operation, Place
from pipeline.store.staging_file import Described, copy_stored
from pipeline.store.system import NO_HARD_LINKS


class Damaged(Exception):
    """A stored file is gone, or is no longer what was stored. `how`: `gone` or `changed`."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Staged(NamedTuple):
    """A name in staging and the file that it names."""

    name: bytes
    identity: Identity


class Adopted(NamedTuple):
    """A name in staging for a stored file. origin: the identity of the file under its stored name."""

    name: bytes
    identity: Identity
    origin: Identity


class Expected(NamedTuple):
    """What a stored file should be, by the state."""

    kind: int
    size: int
    digest: bytes | None
    target: bytes | None
    mtime_ns: int


def damage_of(folders: Folders, at: bytes, expected: Expected) -> str | None:
    """What is wrong with a stored file, as far as its name, kind, size and mtime tell: the quick look."""
    try:
        _look(folders, at, expected)
    except Damaged as damaged:
        return damaged.how
    return None


def _look(folders: Folders, at: bytes, expected: Expected) -> os.stat_result:
    folder, name = split(at)
    try:
        parent = folders.at(folder)
        found = calls.stat(name, dir_fd=parent, follow_symlinks=False)
        target = calls.readlink(name, dir_fd=parent) if stat.S_ISLNK(found.st_mode) else None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Damaged("gone") from error
    if expected.kind == Kind.LINK:
        if target != expected.target:
            raise Damaged("changed")
    elif (
        not stat.S_ISREG(found.st_mode)
        or found.st_size != expected.size
        or not same_time(found.st_mtime_ns, expected.mtime_ns)
    ):
        raise Damaged("changed")
    return found


def _identity(found: os.stat_result, expected: Expected) -> Identity:
    return Identity(signed64(found.st_ino), expected.size, expected.digest, expected.target)


class Staging:
    """The parent's side of staging. `folder` is the handle of `.pipeline/staging/`."""

    def __init__(self, folder: int, folders: Folders) -> None:
        self._folder = folder
        self._folders = folders
        self._next = 0

    def new_name(self) -> bytes:
        self._next += 1
        return b"p-%x" % self._next

    def adopt(self, at: bytes, expected: Expected) -> Adopted:
        """A second name for a stored file, so that it survives whatever happens to the first one.

        Where the file system has no hard links, it is a copy. Raises Damaged.
        """
        folder, name = split(at)
        found = _look(self._folders, at, expected)
        staged, parent = self.new_name(), self._folders.at(folder)
        try:
            calls.link(name, staged, src_dir_fd=parent, dst_dir_fd=self._folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            self._copy(name, parent, staged, expected, Stat.of(found))
        # Looked at again under the name that nobody else knows: what is adopted is what was looked at.
        adopted = calls.stat(staged, dir_fd=self._folder, follow_symlinks=False)
        if stat.S_IFMT(adopted.st_mode) != stat.S_IFMT(found.st_mode) or adopted.st_size != found.st_size:
            self.discard(staged)
            raise Damaged("changed")
        return Adopted(staged, _identity(adopted, expected), _identity(found, expected))

    def _copy(self, name: bytes, parent: int, staged: bytes, expected: Expected, found: Stat) -> None:
        if expected.target is not None:
            calls.symlink(expected.target, staged, dir_fd=self._folder)
            describe(self._folder, staged, True, 0, found.uid, found.gid, found.mtime_ns)
            return
        copy_stored(parent, name, self._folder, staged, size_bytes=expected.size)

    def separate(
        self, at: bytes, expected: Expected, found: Stat, wanted: Sequence[extended.Pair]
    ) -> tuple[Staged, Identity] | None:
        """A copy of a stored file that is one with others, and what it was; None where it has one name alone.

        found, wanted: the metadata and the attributes that the copy gets.
        """
        folder, name = split(at)
        parent = self._folders.at(folder)
        here = calls.stat(name, dir_fd=parent, follow_symlinks=False)
        if here.st_nlink == 1 or not stat.S_ISREG(here.st_mode):
            return None
        staged = self.new_name()
        given = Described(found, permissions(found.mode), wanted)
        inode = copy_stored(parent, name, self._folder, staged, given, expected.size)
        identity = _identity(here, expected)
        return Staged(staged, identity._replace(inode=inode)), identity

    def inspect(self, at: bytes, expected: Expected) -> None:
        """What `adopt` would find, without doing it. Raises Damaged."""
        _look(self._folders, at, expected)

    def identify(self, at: bytes, expected: Expected) -> Identity:
        """The identity of a stored file that is to go, or one that matches nothing if it isn't that."""
        try:
            return _identity(_look(self._folders, at, expected), expected)
        except Damaged:
            return Identity(0, expected.size, expected.digest, expected.target)

    def inode(self, at: bytes) -> int:
        """The inode of a stored file. Raises Damaged."""
        folder, name = split(at)
        try:
            found = calls.stat(name, dir_fd=self._folders.at(folder), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Damaged("gone") from error
        return signed64(found.st_ino)

    def new_link(self, target: bytes, found: Stat) -> Staged:
        """A symbolic link with its final metadata."""
        staged = self.new_name()
        calls.symlink(target, staged, dir_fd=self._folder)
        describe(self._folder, staged, True, 0, found.uid, found.gid, found.mtime_ns)
        inode = signed64(calls.stat(staged, dir_fd=self._folder, follow_symlinks=False).st_ino)
        return Staged(staged, Identity(inode, found.size, None, target))

    def discard(self, name: bytes) -> None:
        calls.unlink(name, dir_fd=self._folder)

    def sweep(self, intents: Iterable[Operation] = ()) -> list[bytes]:
        """Unlink what a cut run, or a replaced worker, has left, but for what the pending intents need.

        Returns the names of folders, which nobody of ours has made.
        """
        needed = {operation.staged for operation in intents if isinstance(operation, Place)}
        folders = []
        with calls.scandir(self._folder) as entries:
            found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_folder in found:
            if is_folder:
                folders.append(name)
            elif name not in needed:
                # A worker elsewhere that nobody waits for any more may take away what it has written itself.
                with suppress(FileNotFoundError):
                    calls.unlink(name, dir_fd=self._folder)
        return folders
