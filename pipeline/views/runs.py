"""`runs`: the executions of a backup, and whether one of them is at work.

In: an opened backup. Out: `Run` values, oldest first. Guarantees: takes no lock and writes nothing. Fails
with SQLite's errors, which `open_for_reading` translates.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from pipeline.store import lock
from pipeline.store.lock import Holder
from pipeline.store.past import RunRow, runs
from pipeline.views.opening import Opened

RUNNING = "running"


class Run(NamedTuple):
    """A run. Times in nanoseconds since 1970. status: `ok`, `warnings`, `interrupted`, or RUNNING.

    ended_ns: None where it was cut or is at work. counts: its figures by name, None where it has none.
    """

    number: int
    started_ns: int
    ended_ns: int | None
    status: str
    counts: dict[str, Any] | None

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return (self.ended_ns - self.started_ns) / 10**9 if self.ended_ns is not None else None


def list_runs(opened: Opened) -> list[Run]:
    """All runs. The state calls a run that is at work interrupted: that is what a kill would make it."""
    holder = lock_holder(opened)
    return [_run(row, holder) for row in runs(opened.state)]


def lock_holder(opened: Opened) -> Holder | None:
    return lock.holder(opened.state_path.parent)


def _run(row: RunRow, holder: Holder | None) -> Run:
    is_at_work = row.ended_ns is None and holder is not None
    if is_at_work and holder is not None and holder.start == lock.start_text(row.started_ns):
        return Run(row.number, row.started_ns, None, RUNNING, None)
    return Run(row.number, row.started_ns, row.ended_ns, row.status, _counts(row.counts))


def _counts(text: str | None) -> dict[str, Any] | None:
    try:
        counts = orjson.loads(text) if text is not None else None
    except ValueError:
        return None
    return counts if isinstance(counts, dict) else None
