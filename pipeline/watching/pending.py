"""What a watch still has to look at, and when: the rules of debouncing, as plain state.

In: hints (a path, when, and what kind), and how runs ended. Out: the moment at which something is due, and by
then what to look at: a `Scope`. Pure: time is passed in, in seconds of any clock that only goes forward.

Guarantees:

1. A path is due when nothing has been heard of it for `debounce_s`, and at the latest `most_s` after the
   first hint. One that was said to be gone waits for `delete_s` instead.
2. What is due at about the same time is taken together; what isn't due yet is left alone by that run.
3. A path counts as deleted only where it, or a folder above it, was said to be missing `delete_s` ago, and
   nothing else since; but for the first look, which finds what has happened before.
4. Hints that were lost, whatever the reason, lead to a look at everything.
5. What is kept is bounded: with too many paths, folders stand for what lies in them, then whole sources.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pipeline.model import treepath
from pipeline.model.scope import Part, Scope, in_scan_order

GATHER_S = 0.1
"""So long the first path that is due waits for others: a burst becomes one run."""
MOST_PATHS = 20_000
_CROWDED = 100
"""A folder with so many paths stands for all of them where there are too many."""


class Delays(NamedTuple):
    """All in seconds. rescan_s: from the end of a look at everything to the next."""

    debounce_s: float
    most_s: float
    delete_s: float
    rescan_s: float


class _Wait(NamedTuple):
    """first_s, last_s: of the hints. whole: with all that lies below. is_missing: by the last hint; of a
    folder that stands for many paths, if one of them was."""

    first_s: float
    last_s: float
    whole: bool
    is_missing: bool


class Pending:
    """now_s: when the watch begins; everything is due at once."""

    def __init__(self, delays: Delays, now_s: float) -> None:
        self._delays = delays
        self._waits: dict[bytes, _Wait] = {}
        self._taken: dict[bytes, _Wait] = {}
        self._hold_s = -math.inf  # nothing is due before: a run has failed
        self._everything_s = now_s
        self._took_everything = False
        self._is_first = True
        self._began_s = self._ended_s = now_s  # of the last look at everything

    def __len__(self) -> int:
        """How many paths are waiting."""
        return len(self._waits)

    # -- hints --------------------------------------------------------------------------------------------

    def note(self, path: bytes, now_s: float, *, whole: bool = False, is_missing: bool = False) -> float:
        """Something has happened at a path. whole: also below it. Out: the moment at which it is due."""
        known = self._waits.get(path)
        if known is None:
            wait = _Wait(now_s, now_s, whole, is_missing)
        else:
            wait = _Wait(known.first_s, now_s, known.whole or whole, is_missing)
        self._waits[path] = wait
        if len(self._waits) > MOST_PATHS:
            self._fold(now_s)
        return max(self._hold_s, self._path_due_s(wait) + GATHER_S)

    def lose(self, now_s: float) -> None:
        """Hints were lost: everything is to be looked at. Not more than half of the time goes into that."""
        spared_s = self._ended_s + (self._ended_s - self._began_s)
        due_s = max(now_s + self._delays.debounce_s, spared_s)
        self._everything_s = min(self._everything_s, due_s)

    def _fold(self, now_s: float) -> None:
        """Too many: crowded folders stand for what lies in them; where that doesn't help, the sources do."""
        crowd = Counter(treepath.parent(path) for path in self._waits)
        crowded = {folder for folder, paths in crowd.items() if folder and paths >= _CROWDED}
        self._replace(treepath.parent, crowded, now_s)
        if len(self._waits) > MOST_PATHS // 2:
            sources = {treepath.source_name(path) for path in self._waits}
            self._replace(treepath.source_name, sources, now_s)

    def _replace(self, place: Callable[[bytes], bytes], places: set[bytes], now_s: float) -> None:
        waits, self._waits = self._waits, {}
        for path, wait in waits.items():
            folder = path if path in places else place(path)
            if folder in places:
                known = self._waits.get(folder, wait)
                first_s, is_missing = min(wait.first_s, known.first_s), wait.is_missing or known.is_missing
                self._waits[folder] = _Wait(first_s, now_s, True, is_missing)
            else:
                self._waits[path] = wait

    # -- when ---------------------------------------------------------------------------------------------

    @property
    def due_s(self) -> float:
        """The moment from which on `take` gives something."""
        paths_s = min(map(self._path_due_s, self._waits.values()), default=math.inf) + GATHER_S
        return max(self._hold_s, min(self._everything_s, paths_s))

    @property
    def everything_due_s(self) -> float:
        return max(self._hold_s, self._everything_s)

    def _path_due_s(self, wait: _Wait) -> float:
        delays = self._delays
        quiet_s = delays.delete_s if wait.is_missing else delays.debounce_s
        return min(wait.last_s + quiet_s, wait.first_s + max(delays.most_s, quiet_s))

    # -- what ---------------------------------------------------------------------------------------------

    def take(self, now_s: float) -> Scope | None:
        """What a run is to look at now, None where nothing is due. It ends with `done`, `failed` or
        `put_back`."""
        if now_s < self.due_s:
            return None
        self._took_everything = now_s >= self._everything_s
        self._taken = {path: wait for path, wait in self._waits.items() if self._path_due_s(wait) <= now_s}
        for path in self._taken:
            del self._waits[path]
        if self._took_everything:
            self._everything_s, self._began_s = math.inf, now_s
        ripe_s = now_s - self._delays.delete_s
        gone = (path for path, wait in self._taken.items() if wait.is_missing and wait.last_s <= ripe_s)
        whole = (path for path, wait in self._waits.items() if wait.whole)
        parts = in_scan_order(Part(path, wait.whole) for path, wait in self._taken.items())
        return Scope(
            None if self._took_everything else parts,
            None if self._is_first else frozenset(gone),
            frozenset(self._waits),
            frozenset(whole),
        )

    def done(self, now_s: float, absent: Iterable[bytes]) -> None:
        """The run has looked at it all. absent: what it found missing, though nobody had said so."""
        self._taken = {}
        self._hold_s = -math.inf
        if self._took_everything:
            self._is_first, self._ended_s = False, now_s
            spared_s = now_s + (now_s - self._began_s)  # where hints were lost meanwhile
            self._everything_s = min(max(self._everything_s, spared_s), now_s + self._delays.rescan_s)
        for path in absent:
            if path not in self._waits:
                self.note(path, now_s, whole=True, is_missing=True)

    def failed(self, now_s: float, retry_s: float) -> None:
        """Who knows what the run has looked at: everything is due again, in a while."""
        self._taken = {}
        self._hold_s = self._everything_s = now_s + retry_s

    def put_back(self, now_s: float, retry_s: float) -> None:
        """The run has not begun: the same again, in a while."""
        for path, wait in self._taken.items():
            since = self._waits.get(path)
            if since is not None:
                wait = _Wait(wait.first_s, since.last_s, wait.whole or since.whole, since.is_missing)
            self._waits[path] = wait
        self._taken = {}
        self._hold_s = now_s + retry_s
        if self._took_everything:
            self._everything_s = now_s
