"""What a backup root can't hold: links, some names, names that differ in case alone.

In: the folder of staging, once for each run; then each new path. Out: names that are respelled
(`pipeline.spelling`), recorded in the state; why a path can't be stored at all, in words, or None.
Guarantees: nothing is stored where the file system would take it for something else of ours (promise 2); a
path that is told of is not backed up, and the run says so (promise 7). Costs some calls for each run where
nothing is missing. Fails with OSError where staging can't be written.

Two names count as one if they are equal but for case, for how accents are composed and for characters that
nobody sees, as Unicode folds them (`ß` is `ss`) and as ext4 and APFS do. Many file systems tell more names
apart; there a name is respelled that needn't be.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from typing import NamedTuple
from unicodedata import normalize

import orjson

from pipeline import layout, spelling
from pipeline.layout import SourcePlace
from pipeline.model import treepath
from pipeline.model.record import Area, Kind
from pipeline.store import calls
from pipeline.store.folders import FOLDER_FLAGS
from pipeline.store.state import State

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | calls.O_NOFOLLOW | calls.O_CLOEXEC
_NOT_ABOUT_NAMES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)
_ODD = bytes(range(1, 32)) + b'<>:"|?*\\\x7f'
_PROBE = b"probe"
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Default_Ignorable_Code_Point (DerivedCoreProperties.txt of Unicode), which `unicodedata` doesn't have."""
_ACCENTED = "prob\u00e9"
_LONGEST = 255
_TAKEN = "CREATE TABLE taken (folded BLOB PRIMARY KEY, path BLOB NOT NULL) WITHOUT ROWID"
_HAS_NO_LINKS = "not backed up: the backup's file system has no symbolic links"
_CANT_HOLD = "not backed up: the backup's file system can't hold this name"
_LIMITS = "limits"


class Limits(NamedTuple):
    """tells_case: and how accents are composed. refused: bytes that no name may have. refused_last: those
    that none may end with. only_text: names are UTF-8. longest: in bytes."""

    has_links: bool = True
    tells_case: bool = True
    refused: bytes = b""
    refused_last: bytes = b""
    only_text: bool = False
    longest: int = _LONGEST

    def can_hold(self, name: bytes) -> bool:
        if len(name) > self.longest:
            return False
        if any(byte in self.refused for byte in name) or name[-1] in self.refused_last:
            return False
        return not self.only_text or _is_text(name)


def probe(staging: int) -> Limits:
    """What the file system of staging can hold. Raises OSError where it can't be tried now, as on a full
    disk."""
    refused, refused_last, only_text, longest = b"", b"", False, _LONGEST
    odd = _PROBE + _ODD + b"\xff"
    if not (_can(staging, odd.ljust(_LONGEST - 1, b"x") + b".") and _can(staging, _PROBE + b" ")):
        refused = bytes(byte for byte in _ODD if not _can(staging, b"%b%cx" % (_PROBE, byte)))
        refused_last = bytes(byte for byte in b". " if not _can(staging, b"%b%c" % (_PROBE, byte)))
        only_text = not _can(staging, _PROBE + b"\xff")
        longest = _longest(staging)
    return Limits(_has_links(staging), _tells_case(staging), refused, refused_last, only_text, longest)


def _longest(staging: int) -> int:
    """In bytes: encrypting file systems have fewer (eCryptfs 143)."""
    fits, too_long = len(_PROBE), _LONGEST + 1
    while too_long - fits > 1:
        size = _LONGEST if too_long > _LONGEST else (fits + too_long) // 2
        fits, too_long = (size, too_long) if _can(staging, _PROBE.ljust(size, b"x")) else (fits, size)
    return fits


def _can(staging: int, name: bytes) -> bool:
    """Whether a file can have this name, and has it then. Raises OSError where that is not about names."""
    try:
        os.close(calls.open(name, _CREATE, 0o600, dir_fd=staging))
    except FileExistsError:  # of a run that was cut
        calls.unlink(name, dir_fd=staging)
        return _can(staging, name)
    except OSError as error:
        if error.errno in _NOT_ABOUT_NAMES:
            raise
        return False
    is_there = name in _names_in(staging)
    with suppress(FileNotFoundError):
        calls.unlink(name, dir_fd=staging)
    return is_there


def _names_in(staging: int) -> list[bytes]:
    """By a handle of its own: some kernels' btrfs lists what was there when a handle was opened."""
    handle = calls.open(b".", FOLDER_FLAGS, dir_fd=staging)
    try:
        return [os.fsencode(name) for name in calls.listdir(handle)]
    finally:
        calls.close(handle)


def _has_links(staging: int) -> bool:
    name = _PROBE + b"-link"
    with suppress(FileNotFoundError):
        calls.unlink(name, dir_fd=staging)
    try:
        calls.symlink(b"nowhere", name, dir_fd=staging)
    except OSError:
        return False
    calls.unlink(name, dir_fd=staging)
    return True


def _tells_case(staging: int) -> bool:
    """Some tell case, but not how accents are composed (ZFS and APFS can be made so)."""
    others = _ACCENTED.upper(), normalize("NFD", _ACCENTED)
    name = _ACCENTED.encode()
    with suppress(FileExistsError):
        os.close(calls.open(name, _CREATE, 0o600, dir_fd=staging))
    tells = not any(
        calls.access(other.encode(), os.F_OK, dir_fd=staging, follow_symlinks=False) for other in others
    )
    calls.unlink(name, dir_fd=staging)
    return tells


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def folded(at: bytes) -> bytes:
    """A backup path as a file system has it that doesn't tell case."""
    text = _UNSEEN.sub("", normalize("NFD", at.decode("utf-8", "surrogateescape")))
    return normalize("NFD", text.casefold()).encode("utf-8", "surrogateescape")


def remembered(state: State) -> Limits:
    """What an earlier run has found: a dry run, which writes nothing, can't look."""
    kept = state.setting(_LIMITS)
    if kept is None:
        return Limits()
    has_links, tells_case, refused, refused_last, *more = orjson.loads(kept)
    return Limits(has_links, tells_case, bytes(refused), bytes(refused_last), *more)


def remember(limits: Limits, state: State) -> None:
    """On another file system, the names that were taken are known no more: nobody has kept them there."""
    if limits == remembered(state):
        return
    has_links, tells_case, refused, refused_last, *more = limits
    kept = orjson.dumps([has_links, tells_case, [*refused], [*refused_last], *more])
    state.set_setting(_LIMITS, kept.decode())
    state.put("DROP TABLE IF EXISTS taken")


class Fitting:
    """Makes new paths fit. The names that are taken are in a table of the state, made where the file system
    doesn't tell case: a name that was ever used stays taken, since something of it may be stored."""

    def __init__(self, limits: Limits, state: State) -> None:
        self._limits = limits
        self._state = state
        is_there = "SELECT 1 FROM sqlite_master WHERE name = 'taken'"
        if not limits.tells_case and state.execute(is_there).fetchone() is None:
            state.put(_TAKEN)
            self._take_all()

    def _take_all(self) -> None:
        """What was stored before this was looked at, or on another disk, from which the backup was copied."""
        places = self._state.places()
        for record in self._state.records(b"", treepath.HIGHEST):
            at = _at(places[treepath.source_name(record.path)], record.path)
            self._state.put("INSERT OR IGNORE INTO taken VALUES (?, ?)", (folded(at), record.path))

    def why_not(self, path: bytes, place: SourcePlace, kind: Kind, is_new: bool) -> str | None:
        """Why it can't be stored. place: the source's, which knows from now on if the path is respelled.
        is_new: nothing is known of it yet."""
        if kind == Kind.LINK and not self._limits.has_links:
            return _HAS_NO_LINKS
        if not is_new or not _at(place, path):
            return None
        name = path.rpartition(treepath.SEPARATOR)[2]
        if not spelling.looks_spelled(name) and self._why_not_at(_at(place, path), path) is None:
            return None
        self._state.respell(path)
        why_not = self._why_not_at(_at(place, path), path)
        if why_not is not None:
            self._state.dont_respell(path)
        return why_not

    def _why_not_at(self, at: bytes, path: bytes) -> str | None:
        if not all(map(self._limits.can_hold, at.split(b"/"))):
            return _CANT_HOLD
        other = self._same_name(at, path) if not self._limits.tells_case else None
        if other is None:
            return None
        return f"not backed up: the backup's file system can't tell its name from {other}"

    def _same_name(self, at: bytes, path: bytes) -> str | None:
        """What else has the same name there. If nothing has, the name is taken from now on."""
        name = folded(at)
        for own, theirs in zip(at.split(b"/"), name.split(b"/"), strict=True):
            if _is_own(theirs) and not _is_own(own):
                return "one of the backup's own"
        taken = "INSERT INTO taken VALUES (?1, ?2) ON CONFLICT DO UPDATE SET path = path RETURNING path"
        found: bytes = self._state.put(taken, (name, path)).fetchone()[0]
        return None if found == path else treepath.text(found)


def _at(place: SourcePlace, path: bytes) -> bytes:
    """A path's live place; empty for the source that lies at the root."""
    return layout.stored(place, treepath.relative(path), Area.LIVE)


def _is_own(component: bytes) -> bool:
    return component in layout.RESERVED_TOP or layout.is_version_name(component)
