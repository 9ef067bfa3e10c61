"""How many workers a line has: more than processors where they wait for a disk rather than for a processor.

In: the workers that have something to do, and the time. Out: how many more to start. Guarantees: never more
than `most`; what is measured is time, not a guess: a worker that neither runs nor waits for a processor
waits for its reads. Linux only (`/proc/PID/schedstat`, proc(5)); elsewhere there are as many as at the
start. Nothing of what a run does depends on it: the line restores the order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from pipeline.stages.large import processors

LOOK_S = 0.1
_MOST_PER_PROCESSOR = 4
_MUCH_WAITING = 0.2
"""The share of the time. Measured: 0.35 to 0.5 on a cold virtual disk, 0 to 0.04 with warm caches."""
_BUSY = 0.7
"""The share of the time from which on this process is the bottleneck: results wait in the pipes for it."""
_STOOD_STILL_S = 5 * LOOK_S


class Size(NamedTuple):
    """least: how many workers there are from the start. most: how many at most."""

    least: int
    most: int

    @staticmethod
    def of(count: int) -> Size:
        """What `workers.count` means: so many; for 0 one for each processor, and more where they wait."""
        least = processors()
        return Size(count, count) if count else Size(least, _MOST_PER_PROCESSOR * least)


class Crew:
    """Looks at the workers now and then. busy_ns: the time that a process has run, or waited for a
    processor."""

    def __init__(self, most: int, now_s: float, busy_ns: Callable[[int], int | None]) -> None:
        self._most = most
        self._busy_ns = busy_ns
        self._looked_s = now_s
        self._own_s = 0.0
        self._last: dict[int, int] = {}

    def missing(self, pids: Collection[int], workers: int, has_work: bool, now_s: float, own_s: float) -> int:
        """How many workers to start now. pids: of those that have something to do; workers: of all.

        has_work: whether there is something for one more. own_s: processor time of this process until now.
        """
        elapsed_s = now_s - self._looked_s
        if workers >= self._most or elapsed_s < LOOK_S:
            return 0
        now = {pid: busy for pid in pids if (busy := self._busy_ns(pid)) is not None}
        both = now.keys() & self._last.keys()
        busy_s = sum(now[pid] - self._last[pid] for pid in both) / 1e9
        own_busy_s = own_s - self._own_s
        self._last, self._looked_s, self._own_s = now, now_s, own_s
        # 1. this process stood still, so that nobody had anything to do; 2. somebody is idle; 3. all is well
        # 4. this process is what they wait for
        if elapsed_s > _STOOD_STILL_S or not has_work or len(both) < workers:
            return 0
        if own_busy_s > _BUSY * elapsed_s:
            return 0
        if busy_s / (elapsed_s * len(both)) > 1 - _MUCH_WAITING:
            return 0
        return min(workers, self._most - workers)


def busy_ns(pid: int) -> int | None:
    """What schedstat says; None where there is none."""
    try:
        running, waiting, _ = Path(f"/proc/{pid}/schedstat").read_bytes().split()
    except (OSError, ValueError):
        return None
    return int(running) + int(waiting)
