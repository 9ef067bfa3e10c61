"""The one writer of final names: carries out the recorded operations, and carries them out again.

In: operations. Out: problems with single files, as values. Guarantees: every operation is idempotent, so
recovery simply does them all again (promise 5); nothing that isn't ours is ever replaced or unlinked: it is
moved to quarantine and reported; the new name is there before the old one goes (promise 2); every folder is
reached by handles that follow no link (promise 8). Fails with OSError where the backup side can't be written.

What `Place` may find, in the order of the cases in `_place`:

1. the staged file is there and the target is free: renamed
2. the target is the staged file already (a rename between two names of one file does nothing): unstaged
3. the target is the one that is meant to be replaced: replaced in one step
4. the target is foreign: into quarantine, then as 1
5. the staged file is gone, the target has the content: it was done before
6. neither has it, but it still has its old name: that gets the new one beside it
7. it is nowhere: lost; the owner is forgotten, so that it is stored again
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence

from pipeline import spelling
from pipeline.layout import DELETED, DUPLICATES
from pipeline.model import attributes
from pipeline.model.errors import Problem, Severity
from pipeline.model.record import signed64
from pipeline.store import calls, system
from pipeline.store.folders import READ_FLAGS, Folders, Obstacle, split
from pipeline.store.metadata import describe, give
from pipeline.store.operation import (
    Describe,
    Identity,
    MakePrivate,
    Mark,
    OpenUp,
    Operation,
    Place,
    Remove,
    RemoveEmpty,
)
from pipeline.store.staging_file import unshare

Hash = Callable[[int], bytes]
_LOOKS_AGAIN = 3
"""From the root, where a folder has gone. A file system may also say so of a name that it can't hold."""
_ASIDE_BYTES = 120


class Lost(Exception):
    """A content that was to get a name is nowhere to be found."""

    def __init__(self, operation: Place) -> None:
        super().__init__(operation.target)
        self.operation = operation


class StoredFiles:
    """The named files below the backup root.

    hash_file: the digest of an open file's bytes, for telling files apart where inodes can't.
    """

    def __init__(self, root: int, staging: int, quarantine: int, hash_file: Hash) -> None:
        self.folders = Folders(root)
        self._staging = staging
        self._quarantine = quarantine
        self.hash_file = hash_file
        self._problems: list[Problem] = []
        self._redo = False

    def close(self) -> None:
        self.folders.close()

    def take_problems(self) -> list[Problem]:
        """The problems since this was asked last."""
        if not self._problems:
            return []
        problems, self._problems = self._problems, []
        return problems

    def apply(self, operations: Sequence[Operation], redo: bool = False) -> list[Place]:
        """Carry out a group. redo: some or all of them may have been done before a crash.

        Returns the placements whose content is lost.
        """
        self._redo = redo
        lost = []
        for operation in operations:
            try:
                self._apply(operation)
            except Lost as error:
                lost.append(error.operation)
        return lost

    def _apply(self, operation: Operation) -> None:
        match operation:
            case Place():
                self._place(operation)
            case Remove():
                self._remove(operation)
            case MakePrivate():
                self._make_private(operation)
            case OpenUp():
                self._open_up(operation)
            case RemoveEmpty():
                if self._remove_empty(operation.target):
                    self._prune(split(operation.target)[0])
            case Describe():
                self._describe(operation)
            case Mark():
                self._mark(operation.target)

    # -- files --------------------------------------------------------------------------------------------

    def _place(self, op: Place, looks_left: int = _LOOKS_AGAIN) -> None:
        folder, name = split(op.target)
        parent = self._make(folder)
        try:
            if op.replaces is None or not self._matches(parent, name, op.replaces):
                system.rename_new(op.staged, name, from_folder=self._staging, to_folder=parent)  # case 1
            else:
                calls.rename(op.staged, name, src_dir_fd=self._staging, dst_dir_fd=parent)  # case 3
        except FileExistsError:
            self._place_where_something_stands(op, parent, name)
        except FileNotFoundError:
            if _exists(op.staged, self._staging):  # a kept handle's folder was removed behind our back
                if not looks_left:
                    raise
                self.folders.close()
                self._place(op, looks_left - 1)
            elif not self._matches(parent, name, op.identity):  # otherwise case 5
                self._place_from_origin(op)

    def _place_where_something_stands(self, op: Place, parent: int, name: bytes) -> None:
        if self._matches(parent, name, op.identity):  # case 2
            _unlink_if_there(op.staged, self._staging)
            return
        if not _exists(op.staged, self._staging):
            self._place_from_origin(op)
            return
        self._to_quarantine(op.target, parent, name)  # case 4
        system.rename_new(op.staged, name, from_folder=self._staging, to_folder=parent)

    def _place_from_origin(self, op: Place) -> None:
        """Cases 6 and 7. Raises Lost."""
        folder, name = split(op.origin)
        try:
            if not op.origin or not self._matches(self.folders.at(folder), name, op.identity):
                raise Lost(op)
        except (FileNotFoundError, NotADirectoryError):
            raise Lost(op) from None
        calls.link(
            name,
            op.staged,
            src_dir_fd=self.folders.at(folder),
            dst_dir_fd=self._staging,
            follow_symlinks=False,
        )
        self._place(op)

    def _matches(self, parent: int, name: bytes, identity: Identity) -> bool:
        """Whether `name` is this file: by inode and size, or, when redoing, by content."""
        try:
            found = calls.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if stat.S_ISLNK(found.st_mode):
            return identity.target is not None and calls.readlink(name, dir_fd=parent) == identity.target
        if not stat.S_ISREG(found.st_mode) or found.st_size != identity.size or identity.digest is None:
            return False
        if signed64(found.st_ino) == identity.inode:
            return True
        return self._redo and self._digest(parent, name) == identity.digest

    def _digest(self, parent: int, name: bytes) -> bytes:
        handle = calls.open(name, READ_FLAGS, dir_fd=parent)
        try:
            return self.hash_file(handle)
        finally:
            os.close(handle)

    def _remove(self, op: Remove) -> None:
        folder, name = split(op.target)
        try:
            parent = self.folders.at(folder)
            if self._matches(parent, name, op.identity):
                calls.unlink(name, dir_fd=parent)
            elif self._redo and _inode(name, parent) == op.identity.inode:  # a power cut took its bytes
                self._to_quarantine(op.target, parent, name)
            elif _exists(name, parent):
                if not self._redo:
                    self._warn("left alone: it is not what was stored here", op.target)
                return
        except (FileNotFoundError, NotADirectoryError):
            pass  # gone with its folder, by an earlier try
        self._prune(folder)

    def _prune(self, folder: bytes) -> None:
        """In the two areas that mirror paths, no empty folder may stand in the way of a later file; nor
        anywhere one that only a long spelling has made."""
        while _mirrors(folder) or spelling.ends_within(folder):
            if not self._remove_empty(folder):
                return
            folder = split(folder)[0]

    def _describe(self, op: Describe) -> None:
        folder, name = split(op.target)
        try:
            parent = self.folders.at(folder)
            found = calls.stat(name, dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            self._warn("gone before its metadata could be set", op.target)
            return
        if stat.S_ISLNK(found.st_mode) != op.is_link or (
            not self._redo and signed64(found.st_ino) != op.inode
        ):
            self._warn("left alone: it is not what was stored here", op.target)
            return
        if found.st_nlink > 1 and stat.S_ISREG(found.st_mode):
            unshare(parent, name, self._staging, b"d-%x" % found.st_ino)
        describe(parent, name, op.is_link, op.mode, op.uid, op.gid, op.mtime_ns, op.attributes)

    def _mark(self, target: bytes) -> None:
        folder, name = split(target)
        parent = self._make(folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | calls.O_NOFOLLOW | calls.O_CLOEXEC
        try:
            os.close(calls.open(name, flags, 0o600, dir_fd=parent))
        except FileExistsError:
            if not stat.S_ISREG(calls.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                self._to_quarantine(target, parent, name)
                self._mark(target)

    # -- folders ------------------------------------------------------------------------------------------

    def _make(self, folder: bytes) -> int:
        """The handle of a folder that is made where it is missing; what stands in its way is foreign."""
        looks_left = _LOOKS_AGAIN
        while True:
            try:
                return self.folders.make(folder)
            except Obstacle as obstacle:
                self._to_quarantine(obstacle.path, obstacle.parent, obstacle.name)
            except FileNotFoundError:
                if not looks_left:
                    raise
                looks_left -= 1
                # A folder that a handle is kept of was removed behind our back: look again from the root.
                self.folders.close()

    def _make_private(self, op: MakePrivate) -> None:
        if op.target:
            calls.chmod(self._make(op.target), 0o700)

    def _open_up(self, op: OpenUp) -> None:
        handle = self._make(op.target)
        give(handle, (op.uid, op.gid), op.mode, attributes.for_stored(op.attributes), replaces=True)

    def _remove_empty(self, path: bytes) -> bool:
        """Whether the folder is gone. One that isn't empty stays, and so does what isn't a folder."""
        folder, name = split(path)
        self.folders.forget(path)
        try:
            calls.rmdir(name, dir_fd=self.folders.at(folder))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            return error.errno == errno.ENOENT
        return True

    # -- foreign things -----------------------------------------------------------------------------------

    def set_aside(self, path: bytes) -> None:
        """A stored file that turned out not to be what it was stored as: out of the way, if it is there."""
        folder, name = split(path)
        try:
            parent = self.folders.at(folder)
            if _exists(name, parent):
                self._to_quarantine(path, parent, name)
        except (FileNotFoundError, NotADirectoryError):
            return
        self._prune(folder)

    def _to_quarantine(self, path: bytes, parent: int, name: bytes) -> None:
        """Never overwritten, never unlinked: moved aside under a name that says where it stood."""
        self.folders.forget(path)
        end = min(_ASIDE_BYTES, len(name))
        while name[end : end + 1] and name[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        for attempt in range(1, 1_000_000):
            aside = b"%d-%s" % (attempt, name[:end])
            try:
                system.rename_new(name, aside, from_folder=parent, to_folder=self._quarantine)
            except FileExistsError:
                continue
            kept = f".pipeline/quarantine/{os.fsdecode(aside)}"
            self._warn(f"what stood here was not what was stored; moved to {kept}", path)
            return
        raise FileExistsError(errno.EEXIST, "quarantine is full", os.fsdecode(path))

    def _warn(self, cause: str, at: bytes) -> None:
        self._problems.append(Problem(Severity.WARNING, None, cause, at))


def _mirrors(folder: bytes) -> bool:
    return b"/" in folder and folder.partition(b"/")[0] in (DUPLICATES, DELETED)


def _exists(name: bytes, folder: int) -> bool:
    try:
        calls.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _inode(name: bytes, folder: int) -> int:
    return signed64(calls.stat(name, dir_fd=folder, follow_symlinks=False).st_ino)


def _unlink_if_there(name: bytes, folder: int) -> None:
    try:
        calls.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
