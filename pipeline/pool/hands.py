"""Those who take the line's batches, as the line sees them: processes of its own, or a cluster.

In: frames. Out: their answers, given to the `Desk` that the line is. What an engine owes: each frame that
it takes is answered once, or handed back, or told of as deadly; it takes no more than it has room for;
nothing of it ever blocks the line, which waits on one selector for everybody.
"""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from pipeline.model.errors import Problem
from pipeline.model.report import WorkerRate
from pipeline.pool.channel import Frame
from pipeline.pool.retry import GivenUp

SILENCE_S = 300.0
"""Who gives no sign of life for so long counts as dead."""
_RATE_LOOK_S = 1.0
_RATE_WINDOW_LOOKS = 5


class Desk(Protocol):
    """The line, as those who work for it see it."""

    @property
    def has_work(self) -> bool:
        """Whether a batch waits that may be given out."""

    def answered(self, frame: Frame, payload: bytes) -> None: ...

    def killed(self, frame: Frame) -> None:
        """Who was at it died: it is given out again file by file, or given up."""

    def take_back(self, frames: Iterable[Frame]) -> None:
        """What nobody has begun, to be given out before anything else."""


class Tally(NamedTuple):
    """What a worker has done until now."""

    name: str
    files: int
    size_bytes: int


class Hands(Protocol):
    """An engine. given_up: the result of an item at which it lost its workers."""

    given_up: GivenUp

    @property
    def window_batches(self) -> int:
        """How far answers may run ahead of the order."""

    @property
    def bytes_in_progress(self) -> int:
        """Bytes read of files that are not yet answered."""

    @property
    def is_waiting(self) -> bool:
        """Whether there is nobody who could do anything, for now."""

    def start(self, selector: selectors.BaseSelector, desk: Desk) -> None:
        """What is registered there has a function without arguments as its data."""

    def give(self, frame: Frame) -> bool:
        """Take it, if there is room."""

    def look_after(self, now_s: float, stood_still: bool) -> None:
        """A few times a second. stood_still: whether this process did, so that nobody could be heard."""

    def tallies(self) -> list[Tally]: ...

    def take_problems(self) -> list[Problem]:
        """What people must know of it, once."""

    def close(self, is_done: bool) -> None:
        """End what still runs. is_done: whether everything was answered."""


class Rates:
    """What each worker does in a second, over the latest seconds."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, Tally]]] = {}

    def now(self, tallies: Sequence[Tally], now_s: float) -> tuple[WorkerRate, ...]:
        seen = {}
        for tally in tallies:
            looks = seen[tally.name] = self._seen.get(tally.name) or deque(maxlen=_RATE_WINDOW_LOOKS + 1)
            if not looks or now_s - looks[-1][0] >= _RATE_LOOK_S:
                looks.append((now_s, tally))
        rates = [_rate(*seen[tally.name][0], tally, now_s) for tally in tallies]
        self._seen = seen  # who has gone is forgotten
        return tuple(rates)


def _rate(then_s: float, then: Tally, tally: Tally, now_s: float) -> WorkerRate:
    span_s = now_s - then_s
    if span_s <= 0:
        return WorkerRate(tally.name, 0.0, 0.0)
    size_bytes = tally.size_bytes - then.size_bytes
    return WorkerRate(tally.name, (tally.files - then.files) / span_s, max(0, size_bytes) / span_s)
