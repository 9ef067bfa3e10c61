"""`diff`: what differs between the ends of two runs.

In: an opened backup and two completed runs, in either order: the answer is what one would have to do to the
first to get the second. Out: `Difference` values in scan order.
Guarantees: only entry states that began or ended between the two are read, in key ranges; memory stays
flat, also for pairing what was moved (`store.scratch`). Fails with ScratchError, and with SQLite's errors,
which `open_for_reading` translates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from pipeline.merge import lock_step
from pipeline.model.record import Held, Kind
from pipeline.store.past import read_begun, read_ended
from pipeline.store.scratch import Moves
from pipeline.views.opening import HIGHEST, LOWEST, Opened


class What(StrEnum):
    ADDED = "added"
    CHANGED = "changed"
    METADATA = "metadata"
    DELETED = "deleted"
    MOVED = "moved"


class Difference(NamedTuple):
    """One path that differs. old, new: its states; None where there is none.

    from_path: for what was moved, where its content was.
    """

    what: What
    path: bytes
    old: Held | None
    new: Held | None
    from_path: bytes | None = None


Pair = tuple[Held | None, Held | None]


def diff(opened: Opened, first: int, second: int) -> Iterator[Difference]:
    """The differences from the end of one run to the end of another."""
    with closing(Moves()) as moves:
        for old, new in _pairs(opened, first, second):
            if old is None and new is not None and _can_move(new) and new.digest is not None:
                moves.came(new.digest, new.size, new.path)
            elif new is None and old is not None and _can_move(old) and old.digest is not None:
                moves.went(old.digest, old.size, old.path)
        moves.pair()
        for old, new in _pairs(opened, first, second):
            if (difference := _difference(old, new, moves)) is not None:
                yield difference


def _pairs(opened: Opened, first: int, second: int) -> Iterator[Pair]:
    """Both sides of each path that has another state in one run than in the other."""
    low, high = min(first, second), max(first, second)
    begun = partial(read_begun, opened.state, low, high, LOWEST, HIGHEST)
    ended = partial(read_ended, opened.state, low, high, LOWEST, HIGHEST)
    left, right = (ended, begun) if first <= second else (begun, ended)
    return lock_step(left(), right(), lambda held: held.path)


def _can_move(held: Held) -> bool:
    """Empty files are all alike: which of them went where can't be told."""
    return held.kind == Kind.FILE and held.size > 0 and held.digest is not None


def _difference(old: Held | None, new: Held | None, moves: Moves) -> Difference | None:
    if old is None:
        assert new is not None
        origin = moves.origin(new.path) if _can_move(new) else None
        return Difference(What.ADDED if origin is None else What.MOVED, new.path, None, new, origin)
    if new is None:
        if _can_move(old) and moves.has_moved(old.path):
            return None
        return Difference(What.DELETED, old.path, old, None)
    if _content(old) != _content(new):
        return Difference(What.CHANGED, new.path, old, new)
    if _metadata_differ(old, new):
        return Difference(What.METADATA, new.path, old, new)
    return None


def _content(held: Held) -> tuple[object, ...]:
    size = held.size if held.kind == Kind.FILE else 0
    return held.kind, held.digest, held.target, size


def _metadata_differ(old: Held, new: Held) -> bool:
    """A folder's mtime follows from what is in it. What a rebuilt state doesn't know differs from nothing."""
    if new.kind != Kind.FOLDER and old.mtime_ns != new.mtime_ns:
        return True
    is_known = old.mode >= 0 and new.mode >= 0
    return is_known and _metadata(old) != _metadata(new)


def _metadata(held: Held) -> tuple[object, ...]:
    return held.mode, held.uid, held.gid, held.attributes, held.linked_to
