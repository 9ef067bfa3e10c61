"""Owner, mode, mtime and extended attributes of stored files, as far as a file system has them.

In: handles, or names in open folders. Guarantees: nothing is followed; set-id bits never reach a backup.
Fails with OSError.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.model import attributes
from pipeline.store import calls, extended

_OWNER_NOT_SUPPORTED = (errno.EPERM, errno.EINVAL, errno.ENOTSUP)
MAY_CHANGE_OWNER = os.geteuid() == 0


def permissions(mode: int) -> int:
    """The mode of a stored file: as in the source, but nothing in a backup runs with somebody's rights."""
    return stat.S_IMODE(mode) & 0o1777


def describe(
    parent: int, name: bytes, is_link: bool, mode: int, uid: int, gid: int, mtime_ns: int, packed: bytes = b""
) -> None:
    """Mode, owner, mtime and attributes of a stored file or link. A link has no mode of its own, and none of
    the attributes that a backup's file gets."""
    change_owner(uid, gid, name=name, parent=parent)
    if not is_link:
        with _way_to(name, parent) as path:
            extended.give(path, mode, attributes.for_stored(packed), replaces=True)
    calls.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)


@contextmanager
def _way_to(name: bytes, parent: int) -> Iterator[bytes]:
    """To a file that may not be readable even for its owner. By a handle that asks for no rights, /proc leads
    to the very inode; a path may lead to a link that has taken its place."""
    if calls.PORTABLE:
        yield calls.path_of(name, parent)
        return
    handle = calls.open(name, os.O_PATH | calls.O_NOFOLLOW | calls.O_CLOEXEC, dir_fd=parent)
    try:
        yield b"/proc/self/fd/%d" % handle
    finally:
        os.close(handle)


def change_owner(uid: int, gid: int, *, handle: int = -1, name: bytes = b"", parent: int = -1) -> bool:
    """Whether it could be done: as root, where the file system has owners; somebody else can give what is
    theirs to a group of theirs. The state has the true owner in any case."""
    new_uid = uid if MAY_CHANGE_OWNER else -1
    try:
        if handle >= 0:
            calls.chown(handle, new_uid, gid)
        else:
            calls.chown(name, new_uid, gid, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _OWNER_NOT_SUPPORTED:
            raise
        return False
    return MAY_CHANGE_OWNER or uid in (-1, os.geteuid())
