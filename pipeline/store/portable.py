"""Calls by folder and name for systems without folder handles (Windows), or with too few of them (macOS).

In: what the functions of `os` with the same names take, with the folders that `open` has given. Out: the
same as theirs. Guarantees: a folder is a path that was no link when it was opened; that is what paths can
promise, and less than handles do: who can replace folders while a run is at work can lead it elsewhere. What
another program holds (Windows) is tried again for a while. Fails with OSError as they do.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat as modes
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

Name: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

O_DIRECTORY = getattr(os, "O_DIRECTORY", 1 << 28)
O_NOFOLLOW = getattr(os, "O_NOFOLLOW", 1 << 29)
_OURS = O_DIRECTORY | O_NOFOLLOW
_HELD_BY_OTHERS = (5, 32)  # winerror.h: ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION
PATIENCE_S = 5.0
_PAUSE_S = 0.05

_folders: dict[int, bytes] = {}
_locks: dict[int, int] = {}  # of folders that are locked: what holds the lock
_numbers = itertools.count(1 << 30)
"""Folders are numbers that no file can have."""


def path_of(name: Name, folder: int | None) -> bytes:
    """The whole path of a name in a folder."""
    return os.path.join(_folders[folder], os.fsencode(name)) if folder is not None else os.fsencode(name)


def place_of(handle: int) -> int | bytes:
    """What calls that know no folders of ours can take: a file's handle, or a folder's path."""
    return _folders.get(handle, handle)


def way_to(folder: int) -> bytes:
    """A folder's path."""
    return _folders[folder]


def open(name: Name, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    path = path_of(name, dir_fd)
    if flags & O_DIRECTORY:
        return _open_folder(path, follows=not flags & O_NOFOLLOW)
    if flags & O_NOFOLLOW and not hasattr(os, "O_NOFOLLOW") and os.path.islink(path):
        raise _error(errno.ELOOP, path)
    known = flags if hasattr(os, "O_NOFOLLOW") else flags & ~_OURS | getattr(os, "O_BINARY", 0)
    return os.open(path, known, mode)


def _open_folder(path: bytes, follows: bool) -> int:
    found = os.stat(path, follow_symlinks=follows)
    if modes.S_ISLNK(found.st_mode):
        raise _error(errno.ELOOP, path)
    if not modes.S_ISDIR(found.st_mode):
        raise _error(errno.ENOTDIR, path)
    with os.scandir(path):
        pass  # a handle needs the right to read
    number = next(_numbers)
    _folders[number] = path
    return number


def close(handle: int) -> None:
    if _folders.pop(handle, None) is None:
        os.close(handle)
    elif (lock := _locks.pop(handle, None)) is not None:
        os.close(lock)


def dup(handle: int) -> int:
    path = _folders.get(handle)
    if path is None:
        return os.dup(handle)
    number = next(_numbers)
    _folders[number] = path
    return number


def fstat(handle: int) -> os.stat_result:
    path = _folders.get(handle)
    return os.fstat(handle) if path is None else os.stat(path, follow_symlinks=False)


def stat(name: Name, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
    return os.stat(path_of(name, dir_fd), follow_symlinks=follow_symlinks)


def access(name: Name, mode: int, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> bool:
    path = path_of(name, dir_fd)
    return os.path.lexists(path) if mode == os.F_OK and not follow_symlinks else os.access(path, mode)


def readlink(name: Name, *, dir_fd: int | None = None) -> bytes:
    return os.readlink(path_of(name, dir_fd))


def scandir(handle: int) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    return os.scandir(os.fsdecode(_folders[handle]))


def _read_into_first(handle: int, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
    data = os.pread(handle, len(buffers[0]), offset)
    buffers[0][: len(data)] = data
    return len(data)


preadv = getattr(os, "preadv", _read_into_first)  # on macOS only since some version


def listdir(handle: int) -> list[str]:
    return os.listdir(os.fsdecode(_folders[handle]))


def mkdir(name: Name, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    os.mkdir(path_of(name, dir_fd), mode)


def symlink(target: bytes, name: Name, *, dir_fd: int | None = None) -> None:
    os.symlink(target, path_of(name, dir_fd))


def mknod(name: Name, mode: int, device: int, *, dir_fd: int | None = None) -> None:
    os.mknod(path_of(name, dir_fd), mode, device)


def link(old: Name, new: Name, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool = False) -> None:
    os.link(path_of(old, src_dir_fd), path_of(new, dst_dir_fd), follow_symlinks=follow_symlinks)


def rename(old: Name, new: Name, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Replaces what stands there, on Windows too."""
    one, other = path_of(old, src_dir_fd), path_of(new, dst_dir_fd)
    _patiently(lambda: os.replace(one, other))


replace = rename


def unlink(name: Name, *, dir_fd: int | None = None) -> None:
    path = path_of(name, dir_fd)
    _patiently(lambda: os.unlink(path))


def rmdir(name: Name, *, dir_fd: int | None = None) -> None:
    path = path_of(name, dir_fd)
    _patiently(lambda: os.rmdir(path))


def utime(
    name: Name | int, *, ns: tuple[int, int], dir_fd: int | None = None, follow_symlinks: bool = True
) -> None:
    place = place_of(name) if isinstance(name, int) else path_of(name, dir_fd)
    if follow_symlinks or os.utime in os.supports_follow_symlinks:
        os.utime(place, ns=ns, follow_symlinks=follow_symlinks)
    elif not os.path.islink(place):  # a link's own time can't be set there
        os.utime(place, ns=ns)


def chown(
    name: Name | int, uid: int, gid: int, *, dir_fd: int | None = None, follow_symlinks: bool = True
) -> None:
    place = place_of(name) if isinstance(name, int) else path_of(name, dir_fd)
    if not hasattr(os, "chown"):
        raise _error(errno.ENOTSUP, os.fsencode(str(name)))
    os.chown(place, uid, gid, follow_symlinks=follow_symlinks)


def chmod(name: Name | int, mode: int) -> None:
    os.chmod(place_of(name) if isinstance(name, int) else name, mode)


def _patiently(call: Callable[[], None]) -> None:
    """Indexers and virus scanners hold files for a moment; only Windows refuses to rename those."""
    limit_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            call()
            return
        except OSError as error:
            if getattr(error, "winerror", None) not in _HELD_BY_OTHERS or time.monotonic() > limit_s:
                raise
            time.sleep(_PAUSE_S)


def _error(code: int, path: bytes) -> OSError:
    return OSError(code, os.strerror(code), path)


if sys.platform == "win32":
    import msvcrt

    LOCK_SH, LOCK_EX, LOCK_NB = 1, 2, 4
    _LOCKED_AT = 1 << 30  # behind what is written there, since what is locked can't be read by others

    fsync = os.fsync

    def flock(handle: int, operation: int) -> None:
        """One byte of a file, exclusively. Raises PermissionError where another one has it; a folder can't be
        locked."""
        if handle in _folders:
            raise _error(errno.ENOTSUP, _folders[handle])
        os.lseek(handle, _LOCKED_AT, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK if operation & LOCK_NB else msvcrt.LK_LOCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)

else:
    import fcntl

    LOCK_SH, LOCK_EX, LOCK_NB = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_NB
    _FLUSH_DRIVE = getattr(fcntl, "F_FULLFSYNC", None)
    _NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY)

    def fsync(handle: int) -> None:
        """As `os.fsync`, of what `os.open` has opened. On macOS that leaves it in the drive's cache, and a
        call of its own writes all that the drive holds; not every file system there knows it."""
        if _FLUSH_DRIVE is not None:
            try:
                fcntl.fcntl(handle, _FLUSH_DRIVE)
                return
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
        os.fsync(handle)

    def flock(handle: int, operation: int) -> None:
        """As `fcntl.flock`, of a folder too: until it is closed."""
        if handle in _folders and handle not in _locks:
            _locks[handle] = os.open(_folders[handle], os.O_RDONLY)
        fcntl.flock(_locks.get(handle, handle), operation)
