"""Duplicates that take no space of their own: one inode, or one set of blocks, for equal contents.

In: a new content in staging, and a stored file with the same digest. Out: the name in staging that is to be
stored. Guarantees: bytes are compared, not digests, so what is shared is what was hashed (promise 3), and an
original that has rotted takes no duplicate along (promise 1); files share an inode only where all their
metadata are equal, and `StoredFiles` gives a file an inode of its own before it changes them. Where the file
system can't share, the new content stays as it is, and that is told once. Fails with OSError where staging
can't be written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable
from contextlib import ExitStack

from pipeline.model.errors import Problem, Severity
from pipeline.model.record import signed64
from pipeline.store import calls, extended
from pipeline.store.folders import READ_FLAGS, Folders, split
from pipeline.store.staging import Staged

_CANNOT = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.ENOTTY, errno.EXDEV)
_NOT_THIS_ONE = (
    errno.EMLINK, errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EIO,
)  # fmt: skip
"""An original that is gone, or can't be read: then the new content is stored as it is."""
_PIECE_BYTES = 16 << 20
"""What btrfs takes at once."""
_COMPARED_BYTES = 1 << 20
_DEDUPE_RANGE = 0xC0189436  # linux/fs.h: FIDEDUPERANGE
_RANGE = struct.Struct("=QQHHIqQQiI")  # struct file_dedupe_range with one file_dedupe_range_info


class Sharing:
    """how: `hardlink` or `reflink`. staging: its handle. folders: the stored files. new_name: gives a name in
    staging that nobody else uses."""

    def __init__(self, how: str, staging: int, folders: Folders, new_name: Callable[[], bytes]) -> None:
        self._how = how
        self._staging = staging
        self._folders = folders
        self._new_name = new_name
        self._can = True

    def share(self, new: Staged, staged: bytes | None, stored: bytes) -> tuple[Staged, Problem | None]:
        """What is stored instead of the new content, or that itself. The original is still in staging, or has
        its stored name. The problem: that this file system can't."""
        if not self._can:
            return new, None
        try:
            with ExitStack() as opened:
                folder, name = (self._staging, staged) if staged is not None else self._place(stored)
                mine = calls.open(new.name, READ_FLAGS, dir_fd=self._staging)
                opened.callback(os.close, mine)
                theirs = calls.open(name, READ_FLAGS, dir_fd=folder)
                opened.callback(os.close, theirs)
                if self._how == "reflink":
                    _share_blocks(mine, theirs)
                    return new, None
                return self._linked(new, mine, theirs, name, folder), None
        except OSError as error:
            if error.errno in _CANNOT:
                self._can = False
                return new, _warning(self._how, error)
            if error.errno not in _NOT_THIS_ONE:
                raise
            return new, None

    def _place(self, stored: bytes) -> tuple[int, bytes]:
        folder, name = split(stored)
        return self._folders.at(folder), name

    def _linked(self, new: Staged, mine: int, theirs: int, name: bytes, folder: int) -> Staged:
        found = os.fstat(theirs)
        if not (_agree(os.fstat(mine), found) and extended.read(mine) == extended.read(theirs)):
            return new
        if not _same_bytes(mine, theirs):
            return new
        staged = self._new_name()
        calls.link(name, staged, src_dir_fd=folder, dst_dir_fd=self._staging, follow_symlinks=False)
        linked = calls.stat(staged, dir_fd=self._staging, follow_symlinks=False)
        if (linked.st_dev, linked.st_ino) != (found.st_dev, found.st_ino):  # another one took the name
            calls.unlink(staged, dir_fd=self._staging)
            return new
        calls.unlink(new.name, dir_fd=self._staging)
        return Staged(staged, new.identity._replace(inode=signed64(found.st_ino)))


def _agree(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether both are files with the same metadata."""
    return stat.S_ISREG(one.st_mode) and all(
        getattr(one, name) == getattr(other, name)
        for name in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_dev")
    )


def _same_bytes(one: int, other: int) -> bool:
    offset = 0
    while piece := os.pread(one, _COMPARED_BYTES, offset):
        if piece != os.pread(other, len(piece), offset):
            return False
        offset += len(piece)
    return True


def _share_blocks(mine: int, theirs: int) -> None:
    """ioctl_fideduperange(2): the kernel itself compares the bytes, and shares what is equal."""
    size_bytes, offset = os.fstat(mine).st_size, 0
    while offset < size_bytes:
        length = min(_PIECE_BYTES, size_bytes - offset)
        request = bytearray(_RANGE.pack(offset, length, 1, 0, 0, mine, offset, 0, 0, 0))
        fcntl.ioctl(theirs, _DEDUPE_RANGE, request)
        *_, shared_bytes, status, _ = _RANGE.unpack(request)
        if status < 0:
            raise OSError(-status, os.strerror(-status))
        if status or not shared_bytes:  # they differ
            return
        offset += shared_bytes


def _warning(how: str, error: OSError) -> Problem:
    return Problem(
        Severity.WARNING, None,
        f"the backup's file system can't do what duplicates.action = \"{how}\" asks for ({error.strerror});"
        " duplicates are stored as copies",
    )  # fmt: skip
