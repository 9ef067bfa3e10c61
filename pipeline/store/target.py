"""The folder that a restore writes into.

In: paths relative to it, contents, metadata. Out: files, links and folders with their final names.
Guarantees (promise 8, contained): every folder on the way is opened relative to its parent without following
links, so nothing outside is ever written, whatever links stand in there or appear meanwhile; a file or link
is made whole in a private folder and gets its name by one rename, so what stands under that name before (also
another name of a file elsewhere, a hard link) is replaced, never written into. Nothing that stands there
already is replaced unless that was asked for. Fails with OSError, and with `Occupied` where something stands
in the way.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import Counter
from typing import NamedTuple

from pipeline.model import attributes, treepath
from pipeline.model.errors import RestoreError
from pipeline.model.record import Stat
from pipeline.store import calls, extended
from pipeline.store.folders import FOLDER_FLAGS, Folders, Obstacle
from pipeline.store.metadata import change_owner, give
from pipeline.store.staging_file import StagingFile

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | calls.O_NOFOLLOW | calls.O_CLOEXEC
_STAGING_NAME = re.compile(rb"\.restore-[0-9]+-[0-9a-f]{12}")
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)


class Occupied(Exception):
    """Something stands at a name, and stays. Its text says what."""


class Metadata(NamedTuple):
    """mode: permission bits, set-id bits too. Times in nanoseconds since 1970. attributes: packed."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    attributes: bytes = b""


class Root(NamedTuple):
    """A folder by its path, and by what it is: whatever its path leads to later, it is still this one.

    staging: a name in it that is this restore's own; empty in a dry run.
    """

    path: str
    device: int
    inode: int
    staging: bytes = b""

    def open(self) -> int:
        """A handle. Raises RestoreError where the path leads somewhere else by now."""
        try:
            handle = calls.open(self.path, FOLDER_FLAGS)
        except OSError as error:
            raise RestoreError(f"{self.path}: {error.strerror}") from error
        found = calls.fstat(handle)
        if (found.st_dev, found.st_ino) != (self.device, self.inode):
            calls.close(handle)
            raise RestoreError(f"{self.path} is no longer the folder that it was when this began")
        return handle


class Target:
    """One process's way into the folder.

    name: this process's own folder in staging. replaces: whether what stands at a name may be replaced.
    backup_root: never entered, also where it lies in the folder.
    """

    def __init__(self, place: Root, name: bytes, replaces: bool, backup_root: str) -> None:
        self.root = place.open()
        self._replaces = replaces
        backup = os.stat(backup_root)
        self._folders = Folders(self.root, closed=(backup.st_dev, backup.st_ino))
        try:
            staging = calls.open(place.staging, FOLDER_FLAGS, dir_fd=self.root)
            self._staging = Folders(staging).make(name)
        except OSError as error:
            raise RestoreError(f"{place.path}: {error.strerror}") from error
        self._next = 0
        self._not_held: Counter[str] = Counter()
        self._owner: tuple[int, int] | None = None  # of what is made in staging, unless it is changed

    def folder(self, relative: bytes) -> int:
        """The handle of a folder, made private where it is missing. Raises Occupied."""
        while True:
            try:
                handle = self._folders.make(relative) if relative else self.root
                return self._opened_up(handle) if self._replaces else handle
            except Obstacle as obstacle:
                if not self._replaces:
                    shown = treepath.escaped(obstacle.path)
                    raise Occupied(f"{shown} stands in the way, and is no folder") from obstacle
                _unlink(obstacle.name, obstacle.parent)

    def _opened_up(self, handle: int) -> int:
        """A folder of ours that an earlier restore has closed to us; it gets its own mode again later."""
        found = calls.fstat(handle)
        if found.st_uid == os.geteuid() and found.st_mode & 0o700 != 0o700:
            calls.chmod(handle, stat.S_IMODE(found.st_mode) | 0o700)
        return handle

    def existing_folder(self, relative: bytes) -> int:
        """Like `folder`, but raises FileNotFoundError, and NotADirectoryError for a link."""
        return self._folders.at(relative) if relative else self.root

    def take_not_held(self) -> Counter[str]:
        """What this folder's file system, or the rights of who restores, couldn't hold since this was asked
        last: the kinds of metadata, each with the number of entries that go without."""
        taken, self._not_held = self._not_held, Counter()
        return taken

    def new_file(self) -> StagingFile:
        """A file that has no name outside of staging yet."""
        return StagingFile(self._staging, self._new_name())

    def finish(self, file: StagingFile, metadata: Metadata, size_bytes: int) -> bytes:
        """Its name in staging, when it has all of its bytes and its metadata."""
        mode, uid, gid, mtime_ns, packed = metadata
        found = Stat(mode, uid, gid, mtime_ns, 0, 0, size_bytes)
        _, lost, is_theirs = file.finish(found, mode, attributes.unpack(packed))
        self._count(lost, is_theirs)
        return file.name

    def count(self, kind: str) -> None:
        """Another entry without metadata of this kind."""
        self._not_held[kind] += 1

    def _count(self, lost: list[bytes], is_theirs: bool) -> None:
        self._not_held.update({attributes.kind_words(name) for name in lost})
        if not is_theirs:
            self._not_held["owners"] += 1

    def new_small_file(self, content: bytes, metadata: Metadata) -> bytes:
        """A whole file in staging, and its name there: as few calls as it takes, since most files are small.

        The process's umask must be 0, so that the mode is right from the start.
        """
        if metadata.attributes:
            file = self.new_file()
            file.write(memoryview(content))
            return self.finish(file, metadata, len(content))
        name, (mode, uid, gid, mtime_ns, _) = self._new_name(), metadata
        handle = calls.open(name, _CREATE, mode, dir_fd=self._staging)
        try:
            written = os.write(handle, content)
            while written < len(content):
                written += os.write(handle, memoryview(content)[written:])
            if self._owner is None:
                found = os.fstat(handle)
                self._owner = found.st_uid, found.st_gid
            is_theirs = self._owner == (uid, gid)
            if not is_theirs:
                is_theirs = change_owner(handle, uid, gid)
                self._count([], is_theirs)
            if self._owner != (uid, gid) or mode & 0o6000:
                # A new owner, and for some also writing, clears set-id bits; they are for this owner alone.
                os.fchmod(handle, mode if is_theirs else mode & 0o1777)
            os.utime(handle, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(handle)
        return name

    def new_link(self, target: bytes, metadata: Metadata) -> bytes:
        """A symbolic link in staging, and its name there."""
        name = self._new_name()
        calls.symlink(target, name, dir_fd=self._staging)
        is_theirs = change_owner(name, metadata.uid, metadata.gid, self._staging)
        self._count(extended.give_link(calls.path_of(name, self._staging), _wanted(metadata)), is_theirs)
        calls.utime(name, ns=(metadata.mtime_ns,) * 2, dir_fd=self._staging, follow_symlinks=False)
        return name

    def new_special(self, kind: int, device: int, metadata: Metadata) -> bytes:
        """A fifo, a socket or a device in staging, and its name there. kind: the type bits of its mode.
        Raises PermissionError: devices are for root."""
        name = self._new_name()
        calls.mknod(name, kind | 0o600, device, dir_fd=self._staging)
        place, owner = calls.path_of(name, self._staging), (metadata.uid, metadata.gid)
        self._count(*give(place, owner, metadata.mode, _wanted(metadata), replaces=False))
        calls.utime(name, ns=(metadata.mtime_ns,) * 2, dir_fd=self._staging, follow_symlinks=False)
        return name

    def new_name(self, of: bytes, folder: int) -> bytes:
        """A second name in staging for what lies in a folder of this target already."""
        name = self._new_name()
        calls.link(of, name, src_dir_fd=folder, dst_dir_fd=self._staging, follow_symlinks=False)
        return name

    def give_name(self, staged: bytes, folder: int, name: bytes) -> None:
        """The final name, in one step. Raises Occupied."""
        try:
            # The folder is this restore's own and private until its content is there, so nobody puts
            # something there between the two calls; renaming without replacing costs twice as much.
            if not self._replaces and calls.access(name, os.F_OK, dir_fd=folder, follow_symlinks=False):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
            try:
                calls.rename(staged, name, src_dir_fd=self._staging, dst_dir_fd=folder)
            except IsADirectoryError:
                calls.rmdir(name, dir_fd=folder)  # only an empty one goes
                calls.rename(staged, name, src_dir_fd=self._staging, dst_dir_fd=folder)
        except OSError as error:
            calls.unlink(staged, dir_fd=self._staging)
            if isinstance(error, FileExistsError) and not self._replaces:
                raise Occupied("something stands here already; left alone") from error
            if error.errno == errno.EXDEV:
                raise Occupied("another file system is mounted here; restore into it by itself") from error
            if error.errno in _NOT_EMPTY:
                raise Occupied("a folder that isn't empty stands here; left alone") from error
            raise

    def describe_folder(self, relative: bytes, metadata: Metadata) -> None:
        """After its content: a folder's owner, mode and mtime."""
        handle = self.existing_folder(relative)
        owner = metadata.uid, metadata.gid
        self._count(*give(handle, owner, metadata.mode, _wanted(metadata), replaces=True))
        calls.utime(handle, ns=(metadata.mtime_ns, metadata.mtime_ns))

    def _new_name(self) -> bytes:
        self._next += 1
        return b"%x" % self._next


def make_staging(place: Root) -> tuple[Root, int]:
    """A private folder in the one that is restored into, with a name that nothing else has.

    Also a handle that holds its lock: as long as it is open, nobody takes the folder for a leftover.
    """
    name = b".restore-%d-%s" % (os.getpid(), os.urandom(6).hex().encode())
    root = place.open()
    try:
        calls.mkdir(name, 0o700, dir_fd=root)
        staging = calls.open(name, FOLDER_FLAGS, dir_fd=root)
    finally:
        calls.close(root)
    # Without a set-group bit that it may have inherited, and without an access list that is passed on.
    extended.give(staging, 0o700, (), replaces=True)
    calls.flock(staging, calls.LOCK_EX)
    return place._replace(staging=name), staging


def remove_staging(place: Root) -> None:
    """Staging and whatever is left in it: two levels of our own making."""
    root = place.open()
    try:
        staging = calls.open(place.staging, FOLDER_FLAGS, dir_fd=root)
        _empty(staging)
        calls.close(staging)
        calls.rmdir(place.staging, dir_fd=root)
    finally:
        calls.close(root)


def remove_leftovers(place: Root) -> None:
    """What restores have left here that were killed: folders of ours that nobody has locked."""
    root = place.open()
    try:
        for name in map(os.fsencode, calls.listdir(root)):
            if _STAGING_NAME.fullmatch(name):
                _remove_unlocked(name, root)
    finally:
        calls.close(root)


def _remove_unlocked(name: bytes, root: int) -> None:
    try:
        staging = calls.open(name, FOLDER_FLAGS, dir_fd=root)
    except OSError:
        return
    try:
        calls.flock(staging, calls.LOCK_EX | calls.LOCK_NB)
        if calls.fstat(staging).st_uid == os.geteuid():
            _empty(staging)
            calls.rmdir(name, dir_fd=root)
    except OSError:
        return  # somebody's own, or in use: then it stays
    finally:
        calls.close(staging)


def _empty(staging: int) -> None:
    for folder in calls.listdir(staging):
        inner = calls.open(folder, FOLDER_FLAGS, dir_fd=staging)
        for file in calls.listdir(inner):
            calls.unlink(file, dir_fd=inner)
        calls.close(inner)
        calls.rmdir(folder, dir_fd=staging)


def place_in_target(path: bytes, with_names: bool) -> bytes:
    """Where a path goes, relative to the folder that is restored into."""
    return treepath.with_slashes(path) if with_names else treepath.relative(path)


def _wanted(metadata: Metadata) -> list[extended.Pair]:
    return attributes.unpack(metadata.attributes)


def _unlink(name: bytes, folder: int) -> None:
    """What stood in the way of a folder. Another worker may have been here first, and made the folder."""
    try:
        calls.unlink(name, dir_fd=folder)
    except (FileNotFoundError, IsADirectoryError):
        return
