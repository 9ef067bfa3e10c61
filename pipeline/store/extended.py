"""Extended attributes and access control lists of files, folders, links and special files.

In: open files, or paths that lead to one thing alone. Out: packed attributes (`model.attributes`), and the
names of those that couldn't be set. Guarantees: what this process may not see isn't there for it (as the
system itself hides `trusted.*` from who isn't root); where a file system, or a system, has no attributes,
there are none; while they change, nobody but the owner gets in. Fails with OSError for what has nothing to do
with attributes.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Sequence

from pipeline.model import attributes
from pipeline.model.attributes import ACCESS_LIST, DEFAULT_LIST
from pipeline.store import calls

Pair = tuple[bytes, bytes]

EXIST = sys.platform == "linux"
PRIVATE = 0o700
TOO_MANY = (
    "too many extended attributes for the system to name them; of these only access lists are backed up"
)
NO_PROC = "attributes of links and special files can't be read without /proc; they are backed up without them"
_NONE_HERE = (errno.ENOTSUP, errno.ENOSYS, errno.ENODATA, errno.EPERM, errno.EACCES)
_NOT_HELD = (*_NONE_HERE, errno.ENOSPC, errno.EDQUOT, errno.E2BIG, errno.ERANGE, errno.EINVAL)
_SAID_TWICE = (b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT")
"""How XFS calls access lists once more, for root."""


def read(place: int | bytes) -> bytes:
    """The attributes of an open file, or of what a path leads to (which is not followed if it is a link)."""
    names = _names(place) if EXIST else ()
    return _read(place, names) if names else b""


def read_name(name: bytes, folder: int) -> bytes:
    """Of what lies under a name in an open folder and can't be opened itself: a link, a special file."""
    return read(calls.path_of(name, folder))


def seen(place: int | bytes) -> tuple[bytes, str | None]:
    """As `read`, for what is to be backed up in any case; and why these aren't all (None: they are)."""
    try:
        return read(place), None
    except OSError as error:
        if error.errno != errno.E2BIG:  # more than 64 KiB of names; what a name is known of can still be read
            raise
    return _read(place, (ACCESS_LIST, DEFAULT_LIST)), TOO_MANY


def seen_name(name: bytes, folder: int) -> tuple[bytes, str | None]:
    """As `read_name`, in the same way."""
    try:
        return seen(calls.path_of(name, folder))
    except FileNotFoundError:
        if os.path.exists(calls.way_to(folder)):
            raise
        return b"", NO_PROC  # it is the way to it that isn't there


def _names(place: int | bytes) -> list[bytes]:
    follows = isinstance(place, int)
    try:
        names = os.listxattr(_place_of(place), follow_symlinks=follows)
    except OSError as error:
        if error.errno not in _NONE_HERE:
            raise
        return []
    return [name for name in map(os.fsencode, names) if name not in _SAID_TWICE] if names else []


def _read(place: int | bytes, names: Iterable[bytes]) -> bytes:
    follows, found = isinstance(place, int), []
    for name in names:
        try:
            found.append((name, os.getxattr(_place_of(place), name, follow_symlinks=follows)))
        except OSError as error:
            if error.errno not in _NONE_HERE:
                raise
    return attributes.pack(found)


def give(place: int | bytes, mode: int, wanted: Sequence[Pair], replaces: bool) -> list[bytes]:
    """Attributes, and the mode (permission bits) with them. place: an open file, or a path that is followed.

    replaces: what is there already and isn't wanted goes. Returns the names that can't be held here. Where
    that is an access list, nobody gets more than the list gave.
    """
    place = _place_of(place)
    others = _others(place, {name for name, _ in wanted}) if replaces else []
    if wanted or others:
        # The mode without its list, or a list with another mode, would let somebody in; and attributes of the
        # user belong to the content, so that the owner needs the right to write.
        os.chmod(place, PRIVATE)
    for name in others:
        _remove(place, name)
    lost = []
    for name, value in sorted(wanted, key=lambda pair: attributes.is_list(pair[0])):  # a list sets the mode
        if not _set(place, name, value):
            lost.append(name)
            if attributes.is_replaced(name):
                _remove(place, name)  # an older one says what is no longer so
    if ACCESS_LIST in lost:
        mode = attributes.mode_without(dict(wanted)[ACCESS_LIST], mode)
    os.chmod(place, mode)  # after the lists, which change it
    return lost


def give_link(path: bytes, wanted: Sequence[Pair]) -> list[bytes]:
    """The same for what a path leads to itself, a link, which has no mode. Returns the names not held."""
    return [name for name, value in wanted if not _set(path, name, value, follows=False)]


def _place_of(place: int | bytes) -> int | bytes:
    return calls.place_of(place) if isinstance(place, int) else place


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


def _others(place: int | bytes, wanted: set[bytes]) -> list[bytes]:
    """Those that go. place: followed, if it is a path."""
    if not EXIST:
        return []
    try:
        names = os.listxattr(place)
    except OSError as error:
        if error.errno not in _NONE_HERE:
            raise
        return []
    return [name for name in map(os.fsencode, names) if name not in wanted and attributes.is_replaced(name)]


def _remove(place: int | bytes, name: bytes) -> None:
    if not EXIST:
        return
    try:
        os.removexattr(place, name)
    except OSError as error:
        if error.errno not in _NONE_HERE:
            raise
