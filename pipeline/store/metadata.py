"""Owner, mode, mtime and extended attributes of stored files, as far as a file system has them.

In: handles, or names in open folders. Guarantees: nothing is followed; set-id bits never reach a backup, and
are given only together with the owner; while an owner or a list changes, nobody but the owner gets in. Fails
with OSError.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.model import attributes
from pipeline.store import calls, extended
from pipeline.store.extended import Pair

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
    if is_link:
        change_owner(name, uid, gid, parent)
    else:
        with _way_to(name, parent) as path:
            give(path, (uid, gid), mode, attributes.for_stored(packed), replaces=True)
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
        yield calls.way_to(handle)
    finally:
        os.close(handle)


def give(
    place: int | bytes, owner: tuple[int, int], mode: int, wanted: Sequence[Pair], replaces: bool
) -> tuple[list[bytes], bool]:
    """Owner, mode (permission bits) and attributes of what is open, or of what a path leads to.

    Returns the names of the attributes that can't be held here, and whether it has its owner. replaces: as
    for `extended.give`.
    """
    found = calls.fstat(place) if isinstance(place, int) else calls.stat(place)
    uid, gid = owner
    is_theirs = uid in (-1, found.st_uid) and gid in (-1, found.st_gid)
    if not is_theirs:
        may_change = MAY_CHANGE_OWNER or gid not in (-1, found.st_gid)
        if may_change and found.st_mode & 0o6077:  # what the old group was allowed is not for the new one
            calls.chmod(place, extended.PRIVATE)
        is_theirs = change_owner(place, uid, gid)
    if not is_theirs:
        mode &= 0o1777
    return extended.give(place, mode, wanted, replaces), is_theirs


def change_owner(place: int | bytes, uid: int, gid: int, parent: int | None = None) -> bool:
    """Whether it could be done: as root, where the file system has owners; somebody else can give what is
    theirs to a group of theirs. The state has the true owner in any case.

    place: what is open, or a path that is followed, or a name in `parent` that isn't.
    """
    new_uid = uid if MAY_CHANGE_OWNER else -1
    try:
        if parent is None:
            calls.chown(place, new_uid, gid)
        else:
            calls.chown(place, new_uid, gid, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _OWNER_NOT_SUPPORTED:
            raise
        return False
    return MAY_CHANGE_OWNER or uid in (-1, os.geteuid())
