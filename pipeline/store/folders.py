"""Handles of folders below one root, so that no path is ever resolved by the kernel as a whole.

In: paths relative to the root, components joined by `/`. Out: open folder handles.
Guarantees (promise 8, contained): every component is opened relative to its parent with O_NOFOLLOW and
O_DIRECTORY, so a symbolic link that stands or appears anywhere on the way is never followed; paths may be
longer than PATH_MAX; at most `capacity` handles are open. Fails with OSError as `open` does (a link is a
NotADirectoryError); `make` raises `Obstacle` where something that is not a folder stands in the way.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pipeline.store import calls

FOLDER_FLAGS = os.O_RDONLY | calls.O_DIRECTORY | calls.O_NOFOLLOW | calls.O_CLOEXEC
READ_FLAGS = os.O_RDONLY | calls.O_NOFOLLOW | calls.O_NONBLOCK | calls.O_CLOEXEC
"""For files: a link is not followed, and a fifo is not waited for."""
_NOT_A_FOLDER = (errno.ENOTDIR, errno.ELOOP)
_NO_NAMES = (b"", b".", b"..")
# As many as serve a merge of a few areas, well within RLIMIT_NOFILE = 64.
CAPACITY = 16


def identity_of(path: Path) -> tuple[int, int] | None:
    """Device and inode of what a path leads to; None where that can't be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Obstacle(Exception):
    """Something that is not a folder stands at `path`, in the folder of the handle `parent`."""

    def __init__(self, path: bytes, parent: int, name: bytes) -> None:
        super().__init__(path)
        self.path = path
        self.parent = parent
        self.name = name


class Folders:
    """A cache of folder handles below `root` (which stays the caller's).

    closed: device and inode of a folder that is never entered: the backup itself, where something else is
    written.
    """

    def __init__(self, root: int, capacity: int = CAPACITY, closed: tuple[int, int] | None = None) -> None:
        self._root = root
        self._capacity = capacity
        self._closed = closed
        self._handles: dict[bytes, int] = {}

    def at(self, path: bytes) -> int:
        """The handle of an existing folder; the empty path is the root."""
        return self._descend(path, make=False)

    def make(self, path: bytes) -> int:
        """The handle of a folder that is made (0700) where it is missing, with its parents."""
        return self._descend(path, make=True)

    def forget(self, path: bytes) -> None:
        """A folder was removed or replaced: its handle, and those below it, mean nothing any more."""
        for known in [k for k in self._handles if k == path or k.startswith(path + b"/")]:
            calls.close(self._handles.pop(known))

    def close(self) -> None:
        for handle in self._handles.values():
            calls.close(handle)
        self._handles.clear()

    def _descend(self, path: bytes, make: bool) -> int:
        handle = self._handles.get(path)
        if handle is not None:
            return handle
        missing = []
        while path and path not in self._handles:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        handle = self._handles[path] if path else self._root
        for folder in reversed(missing):
            handle = self._open(folder, handle, make)
            self._remember(folder, handle)
            if self._closed is not None:
                self._refuse_closed(folder, handle, self._closed)
        return handle

    def _open(self, path: bytes, parent: int, make: bool) -> int:
        name = path.rpartition(b"/")[2]
        if name in _NO_NAMES:  # whatever a state or an intent says
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        try:
            return calls.open(name, FOLDER_FLAGS, dir_fd=parent)
        except FileNotFoundError:
            if not make:
                raise
        except OSError as error:
            if error.errno not in _NOT_A_FOLDER:
                raise
            if make:
                raise Obstacle(path, parent, name) from error
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from error
        try:
            calls.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass  # another process has made it meanwhile, or what it has made is refused by the next line
        return calls.open(name, FOLDER_FLAGS, dir_fd=parent)

    def _refuse_closed(self, path: bytes, handle: int, closed: tuple[int, int]) -> None:
        found = calls.fstat(handle)
        if (found.st_dev, found.st_ino) == closed:
            self.forget(path)
            raise PermissionError(errno.EPERM, "that is the backup itself", path)

    def _remember(self, path: bytes, handle: int) -> None:
        if len(self._handles) >= self._capacity:
            oldest = next(iter(self._handles))
            calls.close(self._handles.pop(oldest))
        self._handles[path] = handle


def split(path: bytes) -> tuple[bytes, bytes]:
    """A path's folder and name."""
    folder, _, name = path.rpartition(b"/")
    return folder, name
