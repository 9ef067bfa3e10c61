"""Extended attributes and access control lists of files, folders, links and special files.

In: open files, or paths that lead to one thing alone. Out: packed attributes (`model.attributes`), and the
names of those that couldn't be set. Guarantees: what this process may not see isn't there for it (as the
system itself hides `trusted.*` from who isn't root); where a file system, or a system, has no attributes,
there are none. Fails with OSError for what has nothing to do with attributes.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from pipeline.model import attributes
from pipeline.model.attributes import ACCESS_LIST
from pipeline.store import calls

Pair = tuple[bytes, bytes]

EXIST = sys.platform == "linux"
_NONE_HERE = (errno.ENOTSUP, errno.ENOSYS, errno.ENODATA, errno.EPERM, errno.EACCES)
_NOT_HELD = (*_NONE_HERE, errno.ENOSPC, errno.EDQUOT, errno.E2BIG, errno.ERANGE, errno.EINVAL)


def read(place: int | bytes) -> bytes:
    """The attributes of an open file, or of what a path leads to (which is not followed if it is a link)."""
    if not EXIST:
        return b""
    follows = isinstance(place, int)
    place = calls.place_of(place) if isinstance(place, int) else place
    try:
        names = os.listxattr(place, follow_symlinks=follows)
    except OSError as error:
        if error.errno not in _NONE_HERE:
            raise
        return b""
    if not names:
        return b""
    found = []
    for name in map(os.fsencode, names):
        try:
            found.append((name, os.getxattr(place, name, follow_symlinks=follows)))
        except OSError as error:
            if error.errno not in _NONE_HERE:
                raise
    return attributes.pack(found)


def read_name(name: bytes, folder: int) -> bytes:
    """Of what lies under a name in an open folder and can't be opened itself: a link, a special file."""
    return read(calls.path_of(name, folder))


def give(place: int | bytes, mode: int, wanted: Sequence[Pair], replaces: bool) -> list[bytes]:
    """Attributes, and the mode (permission bits) with them. place: an open file, or a path that is followed.

    replaces: what is there already and isn't wanted goes. Returns the names that can't be held here. Where
    that is an access list, the owning group gets no more than the list gave it.
    """
    place = calls.place_of(place) if isinstance(place, int) else place
    if replaces:
        _remove_others(place, {name for name, _ in wanted})
    if wanted and os.geteuid() != 0:
        os.chmod(place, mode | 0o600)  # attributes of the user belong to the content
    lost = [name for name, value in wanted if not _set(place, name, value)]
    if ACCESS_LIST in lost:
        mode = mode & ~0o070 | attributes.group_permissions(dict(wanted)[ACCESS_LIST]) << 3
    os.chmod(place, mode)  # after the lists, which change it
    return lost


def give_link(path: bytes, wanted: Sequence[Pair]) -> list[bytes]:
    """The same for what a path leads to itself, a link, which has no mode. Returns the names not held."""
    return [name for name, value in wanted if not _set(path, name, value, follows=False)]


def _set(place: int | bytes, name: bytes, value: bytes, follows: bool = True) -> bool:
    if not EXIST:
        return False
    try:
        os.setxattr(place, name, value, follow_symlinks=follows)
    except OSError as error:
        if error.errno not in _NOT_HELD:
            raise
        return False
    return True


def _remove_others(place: int | bytes, wanted: set[bytes]) -> None:
    if not EXIST:
        return
    try:
        for name in map(os.fsencode, os.listxattr(place)):
            if name not in wanted and attributes.is_replaced(name):
                os.removexattr(place, name)
    except OSError as error:
        if error.errno not in _NONE_HERE:
            raise
