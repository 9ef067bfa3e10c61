"""Owner, mode and mtime of stored files, as far as a file system has them.

In: handles, or names in open folders. Guarantees: nothing is followed; set-id bits never reach a backup.
Fails with OSError.
"""

from __future__ import annotations

import errno
import os
import stat

_OWNER_NOT_SUPPORTED = (errno.EPERM, errno.EINVAL, errno.ENOTSUP)
MAY_CHANGE_OWNER = os.geteuid() == 0


def permissions(mode: int) -> int:
    """The mode of a stored file: as in the source, but nothing in a backup runs with somebody's rights."""
    return stat.S_IMODE(mode) & 0o1777


def describe(parent: int, name: bytes, is_link: bool, mode: int, uid: int, gid: int, mtime_ns: int) -> None:
    """Mode, owner and mtime of a stored file or link. A link has no mode of its own."""
    change_owner(uid, gid, name=name, parent=parent)
    if not is_link:
        # O_PATH, since the file may not be readable even for its owner; /proc resolves it to the inode.
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{handle}", mode)
        finally:
            os.close(handle)
    os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)


def change_owner(uid: int, gid: int, *, handle: int = -1, name: bytes = b"", parent: int = -1) -> None:
    """As root, where the file system has owners. The state has the true owner in any case."""
    if not MAY_CHANGE_OWNER:
        return
    try:
        if handle >= 0:
            os.chown(handle, uid, gid)
        else:
            os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _OWNER_NOT_SUPPORTED:
            raise
