"""Those who take the line's batches, as the line sees them: processes of its own, or a cluster.

In: frames. Out: their answers, given to the `Desk` that the line is. What an engine owes: each frame that
it takes is answered once, or handed back, or told of as deadly; it takes no more than it has room for;
nothing of it ever blocks the line, which waits on one selector for everybody.
"""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Iterable, Iterator
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

    def have_given(self) -> None:
        """For now, nothing more comes."""

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
        self._seen: deque[tuple[float, dict[str, Tally]]] = deque(maxlen=_RATE_WINDOW_LOOKS + 1)

    def now(self, tallies: Iterable[Tally], now_s: float) -> tuple[WorkerRate, ...]:
        latest = {tally.name: tally for tally in tallies}
        if not self._seen or now_s - self._seen[-1][0] >= _RATE_LOOK_S:
            self._seen.append((now_s, latest))
        return tuple(self._rates(latest, now_s))

    def _rates(self, latest: dict[str, Tally], now_s: float) -> Iterator[WorkerRate]:
        for name, tally in latest.items():
            then_s, then = next((seen for seen in self._seen if name in seen[1]), (now_s, latest))
            span_s, before = max(now_s - then_s, _RATE_LOOK_S / 10), then[name]
            files, size_bytes = tally.files - before.files, tally.size_bytes - before.size_bytes
            yield WorkerRate(name, files / span_s, size_bytes / span_s)
