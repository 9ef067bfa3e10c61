"""Several monitors as one, so that the core knows only one.

In and out: the calls of a run. Guarantees: monitors are called in the given order; the last is told only what
those before it took without an error, so a log that can't be written is never followed by "complete".
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.model.errors import Problem
from pipeline.model.plan import Plan
from pipeline.model.report import Excluded, Monitor, Progress, RunInfo, Summary


class Several:
    """Monitor that passes every call on, and remembers how far the run came.

    run: what `started` told. summary: what `finished` told. ended: everyone has heard that. last_cause: of
    the latest problem.
    """

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        self.wants_skips = any(monitor.wants_skips for monitor in monitors)
        self.wants_excluded = any(monitor.wants_excluded for monitor in monitors)
        self.run: RunInfo | None = None
        self.summary: Summary | None = None
        self.ended = False
        self.last_cause: str | None = None
        self._monitors = tuple(monitors)
        self._skip_monitors = tuple(monitor for monitor in monitors if monitor.wants_skips)

    def started(self, run: RunInfo) -> None:
        self.run = run
        for monitor in self._monitors:
            monitor.started(run)

    def progress(self, progress: Progress) -> None:
        for monitor in self._monitors:
            monitor.progress(progress)

    def acted(self, plan: Plan) -> None:
        for monitor in self._monitors:
            monitor.acted(plan)

    def skipped(self, path: bytes) -> None:
        for monitor in self._skip_monitors:
            monitor.skipped(path)

    def excluded(self, entry: Excluded) -> None:
        for monitor in self._monitors:
            if monitor.wants_excluded:
                monitor.excluded(entry)

    def problem(self, problem: Problem) -> None:
        self.last_cause = problem.cause
        for monitor in self._monitors:
            monitor.problem(problem)

    def finished(self, summary: Summary) -> None:
        self.summary = summary
        for monitor in self._monitors:
            monitor.finished(summary)
        self.ended = True
