"""What a run tells its monitor, in plan order, and the figures that come of it.

In: events that the journal has carried out, the line's progress. Out: calls of one `Monitor`, `Counts`.
Guarantees: a run that is to leave no trace where nothing is to be done begins to be told with the first thing
that is worth it, and no group is open then, so that log and state agree on its number; every problem counts
(promise 7). Fails as committing the state does.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import orjson

from pipeline.model.errors import Problem, Severity
from pipeline.model.plan import Action, Plan
from pipeline.model.report import Counts, Excluded, Monitor, Progress, RunInfo

if TYPE_CHECKING:
    from pipeline.pool.line import Line
    from pipeline.store.journal import Event
    from pipeline.store.state import State

PROGRESS_S = 0.2


class Telling:
    """known: files and links, and their bytes, by the state before this run."""

    def __init__(
        self, monitor: Monitor, state: State, info: RunInfo, known: tuple[int, int], wants_skips: bool
    ) -> None:
        self._monitor = monitor
        self._state = state
        self._info = info
        self._known = known
        self._wants_skips = wants_skips
        self._began_s = time.monotonic()
        self._shown_s = 0.0
        self.counts = Counts()
        self.has_begun = False

    def begin(self) -> None:
        self.has_begun = True
        self._monitor.started(self._info)

    def event(self, event: Event) -> None:
        """What the journal has carried out, in plan order."""
        if not self.has_begun and _is_worth_telling(event):
            self._state.commit()
            self.begin()
        counts = self.counts
        if isinstance(event, Plan):
            if event.action is Action.SKIP:
                counts.by_action[Action.SKIP] += 1
                self._skipped(event.path)
            else:
                if event.action is not None:
                    counts.by_action[event.action] += 1
                self._monitor.acted(event)
        elif isinstance(event, Problem):
            if event.severity is Severity.WARNING:
                counts.warnings += 1
            else:
                counts.errors += 1
            self._monitor.problem(event)
        elif isinstance(event, Excluded):
            self._monitor.excluded(event)
        else:
            self._skipped(event)

    def _skipped(self, path: bytes) -> None:
        if self._wants_skips:
            self._monitor.skipped(path)

    def progress(self, line: Line | None) -> None:
        """A few times a second. line: None after the scan."""
        now_s = time.monotonic()
        if now_s - self._shown_s < PROGRESS_S:
            return
        self._shown_s = now_s
        counts, (known_files, known_bytes) = self.counts, self._known
        scan_ended = line is None or line.walk_has_ended
        self._monitor.progress(
            Progress(
                files_found=line.files_found if line is not None else counts.files,
                files_done=counts.files,
                files_total=line.files_found if line is not None and scan_ended else known_files or None,
                bytes_done=counts.bytes_read + (line.bytes_in_progress if line is not None else 0),
                bytes_total=known_bytes or None,
                actions=counts.actions,
                elapsed_s=now_s - self._began_s,
                phase=_phase(line),
                workers=line.workers() if line is not None else (),
            )
        )

    def status(self) -> str:
        return "warnings" if self.counts.warnings or self.counts.errors else "ok"

    def counts_as_json(self) -> str:
        """The figures that `runs` shows."""
        counts = self.counts
        figures = {action.lower(): counts.by_action[action] for action in Action}
        figures |= {"files": counts.files, "warnings": counts.warnings, "errors": counts.errors}
        figures |= {"bytes_read": counts.bytes_read, "bytes_stored": counts.bytes_stored}
        return orjson.dumps(figures).decode()


def _phase(line: Line | None) -> str:
    if line is None:
        return "finishing"
    if line.is_waiting:
        return "waiting"
    return "hashing" if line.walk_has_ended else "scanning"


def _is_worth_telling(event: Event) -> bool:
    """Whether a run that has done no more than this leaves a trace."""
    return isinstance(event, Problem) or (isinstance(event, Plan) and not event.is_silent)
