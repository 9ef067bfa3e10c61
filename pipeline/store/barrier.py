"""Step 2 of the crash protocol: what is about to count, and what was done before, is on the disk.

In: the operations that are about to be recorded, and those that were carried out since the barrier before.
Out: nothing; it returns when it is so. Guarantees: with `syncfs(2)`, all that was written to the file system;
where there is none (macOS), the files and folders that these operations rely on, one by one:

- each staged file, and the program's own folders, where it has its name
- each folder on the way to a name that was made, moved or removed, and what was given other metadata

Weaker there: a link can't be synced, only its name; what can't be opened is left to `sync(2)`, which on
systems other than Linux may return before it is done. Fails with OSError, and is never tried again, since a
kernel reports a lost write only once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Sequence

from pipeline.layout import OWN_FOLDER
from pipeline.store import calls, system
from pipeline.store.folders import READ_FLAGS, Folders, split
from pipeline.store.operation import Describe, MakePrivate, Mark, OpenUp, Operation, Place

_STAGING = OWN_FOLDER + b"/staging"
_OWN_FOLDERS = (b"", OWN_FOLDER, OWN_FOLDER + b"/quarantine")
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Gone by now, with its folder or by a later operation; or a link stands there."""


class Barrier:
    """Opened at the start, so that it also reports writes that failed later. folders: below the root."""

    def __init__(self, root: int, folders: Folders) -> None:
        self._root = root
        self._folders = folders

    def __call__(self, coming: Sequence[Operation] = (), done: Sequence[Operation] = ()) -> None:
        """coming: about to be recorded. done: since the last call, if `system.syncs_at_once` is false."""
        if not system.sync_file_system(self._root):
            self._one_by_one(*_relied_on(coming, done))

    def for_all(self) -> None:
        """For all that was ever written, without a list of it: where `system.syncs_at_once` is true."""
        if not system.sync_file_system(self._root):  # it wasn't, after all
            os.sync()  # which waits on Linux, but doesn't tell what couldn't be written

    def _one_by_one(self, folders: Iterable[bytes], files: Iterable[bytes]) -> None:
        is_closed = False  # to us
        for paths, refused in ((folders, system.REFUSED_BY_FOLDERS), (files, ())):
            for path in paths:
                try:
                    self._sync_if_there(path, os.fsync, refused)
                except PermissionError:
                    is_closed = True
        if is_closed:
            os.sync()
        # Last: with what the drive still holds.
        self._sync_if_there(_STAGING, calls.fsync, system.REFUSED_BY_FOLDERS)

    def _sync_if_there(self, path: bytes, sync: Callable[[int], None], refused: Collection[int]) -> None:
        folder, name = split(path)
        try:
            _sync(self._folders.at(folder), name, sync, refused)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise


def _sync(
    folder: int, name: bytes, sync: Callable[[int], None], refused: Collection[int] = frozenset()
) -> None:
    """name: of a file or folder, empty for the folder itself."""
    handle = calls.open(name or b".", READ_FLAGS, dir_fd=folder)
    try:
        sync(handle)
    except OSError as error:
        if error.errno not in refused:
            raise
    finally:
        os.close(handle)


def make_staged_durable(staging: int, names: Iterable[bytes]) -> None:
    """The same of files in `staging/`, for who has written them on another machine: what this kernel holds,
    no barrier there can reach. staging: the folder's handle. Raises OSError."""
    if system.sync_file_system(staging):
        return
    for name in names:
        _sync(staging, name, os.fsync)
    _sync(staging, b"", calls.fsync, system.REFUSED_BY_FOLDERS)  # last: with what the drive still holds


def _relied_on(coming: Iterable[Operation], done: Iterable[Operation]) -> tuple[list[bytes], list[bytes]]:
    """The backup paths of folders and of files, each once."""
    folders, files = set(_OWN_FOLDERS), set[bytes]()
    for operation in done:
        folder = split(operation.target)[0]
        while folder not in folders:
            folders.add(folder)
            folder = split(folder)[0]
        if isinstance(operation, MakePrivate | OpenUp):
            folders.add(operation.target)
        elif isinstance(operation, Describe | Mark):
            files.add(operation.target)
    staged = (place.staged for place in coming if isinstance(place, Place) and place.identity.target is None)
    files.update(_STAGING + b"/" + name for name in staged)
    return sorted(folders), sorted(files)
