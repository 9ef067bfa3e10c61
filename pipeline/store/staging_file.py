"""One new file in staging: written, given its metadata, and named only then.

In: bytes. Out: a staged name. Guarantees: made exclusively, 0600, never through a link; what is a hole in the
bytes is one on the disk. Fails with OSError.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.model.attributes import unpack
from pipeline.model.record import Stat, signed64
from pipeline.store import calls, extended
from pipeline.store.extended import Pair
from pipeline.store.folders import READ_FLAGS
from pipeline.store.metadata import change_owner, give, permissions
from pipeline.store.pieces import pieces

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | calls.O_NOFOLLOW | calls.O_CLOEXEC
_READ_BYTES = 1 << 20


class StagingFile:
    """One file that is being written to staging."""

    def __init__(self, folder: int, name: bytes) -> None:
        self._folder = folder
        self.name = name
        self._handle = calls.open(name, _CREATE, 0o600, dir_fd=folder)
        self._has_holes = False

    def write(self, data: memoryview, is_hole: bool = False) -> None:
        """is_hole: the bytes are all zero, and nothing is written for them."""
        if is_hole:
            self._has_holes = True
            os.lseek(self._handle, len(data), os.SEEK_CUR)
            return
        while data:
            data = data[os.write(self._handle, data) :]

    def finish(
        self, found: Stat, mode: int, attributes: Sequence[Pair] = (), durable: bool = False
    ) -> tuple[int, list[bytes], bool]:
        """Give it its metadata (mode: permission bits) and close it. Returns its inode, the names of the
        extended attributes that can't be held here, and whether it has its owner.

        durable: its bytes are on the disk when this returns.
        """
        try:
            if self._has_holes:
                os.ftruncate(self._handle, os.lseek(self._handle, 0, os.SEEK_CUR))
            owner = found.uid, found.gid
            lost, is_theirs = give(self._handle, owner, mode, attributes, replaces=False)
            os.utime(self._handle, ns=(found.mtime_ns, found.mtime_ns))
            if durable:
                calls.fsync(self._handle)
            return signed64(os.fstat(self._handle).st_ino), lost, is_theirs
        finally:
            self._close()

    def discard(self) -> None:
        self._close()
        calls.unlink(self.name, dir_fd=self._folder)

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


def stage_small(folder: int, name: bytes, content: bytes, found: Stat, mode: int) -> int:
    """A whole new file with its metadata (mode: permission bits) in as few calls as will do: there are
    millions. Returns its inode. Nobody else reaches what is in staging, so it has its mode from the start."""
    handle = calls.open(name, _CREATE, mode, dir_fd=folder)
    try:
        written = os.write(handle, content)
        while written < len(content):
            written += os.write(handle, content[written:])
        os.utime(handle, ns=(found.mtime_ns, found.mtime_ns))
        made = os.fstat(handle)
        if (made.st_uid, made.st_gid) != (found.uid, found.gid):
            change_owner(handle, found.uid, found.gid)
        if made.st_mode & 0o7777 != mode:  # by the umask, or the folder's default ACL
            os.fchmod(handle, mode)
        return signed64(made.st_ino)
    finally:
        os.close(handle)


class Described(NamedTuple):
    """The metadata that a copy gets. mode: permission bits."""

    found: Stat
    mode: int
    attributes: Sequence[Pair]


def copy_stored(
    parent: int,
    name: bytes,
    staging: int,
    staged: bytes,
    given: Described | None = None,
    size_bytes: int | None = None,
    durable: bool = False,
) -> int:
    """A file and its holes, in staging, with the metadata that are given, or else its own. Returns the inode
    of the copy. size_bytes: no more than that. durable: it is on the disk when this returns."""
    source = calls.open(name, READ_FLAGS, dir_fd=parent)
    try:
        found, copy = os.fstat(source), StagingFile(staging, staged)
        most = found.st_size if size_bytes is None else size_bytes
        try:
            for piece, is_hole in pieces(source, bytearray(_READ_BYTES), most):
                copy.write(piece, is_hole)
            if given is None:
                own = unpack(extended.read(source))
                given = Described(Stat.of(found), permissions(found.st_mode), own)
            inode, _, _ = copy.finish(given.found, given.mode, given.attributes, durable)
        except OSError:
            copy.discard()
            raise
    finally:
        os.close(source)
    return inode


def unshare(parent: int, name: bytes, staging: int, staged: bytes) -> None:
    """A file that has names elsewhere, too, becomes one of our own, so that what is done to it stays here.

    On the disk before it takes its name. staged: a name that nobody else uses.
    """
    copy_stored(parent, name, staging, staged, durable=True)
    calls.rename(staged, name, src_dir_fd=staging, dst_dir_fd=parent)
