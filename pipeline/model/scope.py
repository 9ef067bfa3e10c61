"""What a run looks at: all of the sources, or only the paths at which something may have happened.

A scope is a question, not an answer: the scanner looks at the tree and finds out what is there. In: paths
that somebody names. Out: parts in scan order, none inside another. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.model import treepath


class Part(NamedTuple):
    """path: a tree path. whole: with all that lies below it; otherwise a folder that is known is looked at
    without its content. What isn't known yet, or has become something else, is looked at as a whole anyway.
    """

    path: bytes
    whole: bool


class Scope(NamedTuple):
    """parts: in scan order, none inside a whole one; None for everything.

    gone: what is missing at these paths, or below them, counts as deleted; None: wherever it is. What is
    missing elsewhere, a folder in whose place something else stands included, is handed back
    (`Summary.absent`), since it may be about to come back.
    waiting: paths that change at the moment. Files and links among them are left for a later run, and so is
    what is missing there, even below a path that is gone. waiting_whole: those that will be looked at with
    all that lies below them.
    """

    parts: tuple[Part, ...] | None = None
    gone: frozenset[bytes] | None = None
    waiting: frozenset[bytes] = frozenset()
    waiting_whole: frozenset[bytes] = frozenset()

    @property
    def is_everything(self) -> bool:
        return self.parts is None

    def is_gone(self, path: bytes) -> bool:
        """Whether a path that is missing counts as deleted."""
        return self.gone is None or _is_at_or_below(path, self.gone)

    def is_waiting(self, path: bytes) -> bool:
        """Whether a later run will look at the path."""
        return path in self.waiting or _is_at_or_below(path, self.waiting_whole)


EVERYTHING = Scope()
"""What `run` does: all of it, and what is missing is deleted."""


def _is_at_or_below(path: bytes, places: frozenset[bytes]) -> bool:
    return bool(places) and (path in places or any(parent in places for parent in treepath.parents(path)))


def in_scan_order(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Sorted, each path once, without what lies inside a whole part."""
    out: list[Part] = []
    cover: bytes | None = None
    for part in sorted(parts):
        if cover is not None and (part.path == cover or treepath.is_below(part.path, cover)):
            continue
        if out and out[-1].path == part.path:  # the second one is whole
            out.pop()
        out.append(part)
        if part.whole:
            cover = part.path
    return tuple(out)
