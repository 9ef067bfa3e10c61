"""What a watch shows: a live view in a terminal, plain lines elsewhere, or JSON lines.

In: the calls of a `WatchMonitor`. Out: a line for each run that did something, notes, problems; each run's
log; what a service manager wants to hear. Guarantees: no name reaches the terminal unescaped or is taken for
markup; where nothing happens nothing is written, but for the live view, which is drawn anew now and then.
"""

from __future__ import annotations

import math
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from pipeline.model import treepath
from pipeline.model.errors import PipelineError, Problem, Severity
from pipeline.model.plan import Plan
from pipeline.model.report import Counts, Excluded, Monitor, Progress, RunInfo, Summary
from pipeline.model.scope import Scope
from pipeline.ui.figures import Pace, amount, counts_text, duration_text, size_text
from pipeline.ui.jsonlines import JsonLines, lossy, problem_fields, summary_line
from pipeline.ui.lines import one_line, plan_lines, problem_line
from pipeline.ui.monitors import Several
from pipeline.ui.output import Output
from pipeline.ui.runlog import RunLog
from pipeline.ui.service import ServiceManager
from pipeline.ui.terminal import STATIONS, Detail, PlainLines, bars_on, move_bars, new_console, print_above
from pipeline.watching.watch import Watching

if TYPE_CHECKING:
    from rich.live import Live

_VIEW_S = 10.0
_BARS_AFTER_S = 0.5
_BARS_INTERVAL_S = 0.1


class WatchShown:
    """What all ways to show a watch have in common: the log of each run, and the service manager.

    log_dir: where the logs go, None where there are none (a dry run).
    """

    refresh_s = math.inf

    def __init__(self) -> None:
        self.log_dir: Path | None = None
        self._service = ServiceManager()
        self._run: Several | None = None

    def ready(self, watching: Watching) -> None:
        self._service.ready()
        self._service.status(where_text(watching))

    def begin_run(self, scope: Scope) -> Monitor:
        log = [] if self.log_dir is None else [RunLog(self.log_dir, skips=False)]
        self._run = Several([*log, self.run_monitor(scope)])
        return self._run

    def run_monitor(self, scope: Scope) -> Monitor:
        """Whom the next run reports to, beside its log."""
        raise NotImplementedError

    def end_run(self, summary: Summary) -> None:
        if summary.run is not None:
            self._service.status(run_text(summary))

    def waits(self, watching: Watching) -> None:
        """Nothing is due."""

    def note(self, text: str) -> None:
        raise NotImplementedError

    def failed(self, error: PipelineError, retry_s: float) -> None:
        self._service.status(f"failed: {one_line(error.cause)}")

    def has_told(self, error: PipelineError) -> bool:
        """Whether the run that it has ended told of it."""
        return self._run is not None and self._run.last_cause == error.one_line

    def ended_by(self, error: PipelineError) -> bool:
        """What has ended the watch. Out: whether people were told of it here."""
        return False

    def finished(self, status: str) -> None:
        """The end of the watch. status: as in a run's summary."""
        self._service.stopping()


class WatchLines(WatchShown):
    """For people and journals: a line for each run."""

    def __init__(self, out: Output, err: Output, detail: Detail) -> None:
        super().__init__()
        self._out = out
        self._err = err
        self._detail = detail

    def ready(self, watching: Watching) -> None:
        super().ready(watching)
        self.say(f"Watching {where_text(watching)}")

    def run_monitor(self, scope: Scope) -> Monitor:
        return _RunInLines(self._out, self._err, self._detail)

    def end_run(self, summary: Summary) -> None:
        super().end_run(summary)
        if summary.run is not None:
            self.say(run_text(summary))

    def note(self, text: str) -> None:
        self.say(f"Note: {one_line(text)}")

    def failed(self, error: PipelineError, retry_s: float) -> None:
        super().failed(error, retry_s)
        again = f"tried again in {duration_text(retry_s)}"
        if self.has_told(error):
            self.say(f"Note: {again}")
        else:
            self.warn(f"{one_line(error.one_line)} ({again})")

    def finished(self, status: str) -> None:
        super().finished(status)
        if status != "failed":
            self.say("Stopped. What was committed is valid, and the next watch or run goes on from there.")

    def say(self, text: str) -> None:
        if not self._detail.quiet:
            self._out.line(f"{_now_text()} {text}")

    def warn(self, text: str) -> None:
        self._out.flush()
        self._err.line(f"{_now_text()} error: {text}")


class _RunInLines(PlainLines):
    """A run among the lines of a watch: its progress where it takes long, and what it is told to tell."""

    def finished(self, summary: Summary) -> None:
        """The watch has a line for it."""
        self._out.flush()


class WatchView(WatchLines):
    """For a terminal: what has happened scrolls by, above what the watch is at."""

    refresh_s = _VIEW_S

    def __init__(self, out: Output, err: Output, detail: Detail) -> None:
        super().__init__(out, err, detail)
        self._live: Live | None = None
        self._console = new_console()

    def run_monitor(self, scope: Scope) -> Monitor:
        return _RunInView(self, self._detail)

    def waits(self, watching: Watching) -> None:
        from rich.text import Text

        paths = f"{amount(watching.paths, 'path')} waiting" if watching.paths else "nothing waiting"
        until = duration_text(watching.everything_in_s)
        text = f"Watching {where_text(watching)}; {paths}; everything is looked at in {until}"
        self.draw(Text(text, style="dim"))

    def say(self, text: str) -> None:
        if not self._detail.quiet:
            self.above(f"{_now_text()} {text}")

    def warn(self, text: str) -> None:
        self.above(f"{_now_text()} error: {text}")

    def above(self, line: str) -> None:
        print_above(self._console, line)

    def draw(self, renderable: Any) -> None:
        """Put something into the live part."""
        if self._live is None:
            from rich.live import Live

            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False
            )
            self._live.start()
        self._live.update(renderable, refresh=True)

    def finished(self, status: str) -> None:
        if self._live is not None:
            self._live.stop()
        super().finished(status)


class _RunInView:
    """A run inside the live view: bars where it takes a while."""

    wants_skips = wants_excluded = False

    def __init__(self, view: WatchView, detail: Detail) -> None:
        self._view = view
        self._detail = detail
        self._pace = Pace()
        self._due_s = _BARS_AFTER_S
        self._bars: Any = None

    def started(self, run: RunInfo) -> None:
        """Nothing is to be seen of it yet."""

    def progress(self, progress: Progress) -> None:
        rate = self._pace.rate(progress)
        if progress.elapsed_s < self._due_s:
            return
        self._due_s = progress.elapsed_s + _BARS_INTERVAL_S
        if self._bars is None:
            self._bars = bars_on(new_console(), *STATIONS)
        move_bars(self._bars, progress, rate)
        self._view.draw(self._bars.get_renderable())

    def acted(self, plan: Plan) -> None:
        if self._detail.plans:
            for line in plan_lines(plan):
                self._view.above(line)

    def skipped(self, path: bytes) -> None:
        """Unchanged files are only counted."""

    def excluded(self, entry: Excluded) -> None:
        """What a watch leaves out is nothing that happens."""

    def problem(self, problem: Problem) -> None:
        self._view.above(problem_line(problem))

    def finished(self, summary: Summary) -> None:
        """The view tells."""


class WatchJson(WatchShown):
    """For programs: JSON lines, the summary of the whole watch last."""

    def __init__(self, out: Output, actions: bool) -> None:
        super().__init__()
        self._out = out
        self._actions = actions
        self._began_s = time.monotonic()
        self._total = Counts()
        self._last: int | None = None
        self._errors = 0

    def ready(self, watching: Watching) -> None:
        super().ready(watching)
        self._print(self._line("watching", watching))

    def run_monitor(self, scope: Scope) -> Monitor:
        parts = None if scope.parts is None else len(scope.parts)
        self._print({"type": "status", "phase": "looking", "everything": scope.is_everything, "paths": parts})
        return JsonLines(self._out, self._actions)

    def end_run(self, summary: Summary) -> None:
        super().end_run(summary)
        counts, total = summary.counts, self._total
        total.by_action += counts.by_action
        total.warnings += counts.warnings
        total.errors += counts.errors
        total.bytes_read += counts.bytes_read
        total.bytes_stored += counts.bytes_stored
        total.files = max(total.files, counts.files)
        if summary.run is not None:
            self._last = summary.run
            self._print(summary_line(summary, counts.errors) | {"type": "run"})

    def waits(self, watching: Watching) -> None:
        """A line for each time that it goes to sleep; while it sleeps there is none."""
        self._print(self._line("status", watching) | {"phase": "watching"})

    def note(self, text: str) -> None:
        self._print({"type": "note", "text": lossy(text)})

    def failed(self, error: PipelineError, retry_s: float) -> None:
        super().failed(error, retry_s)
        self._tell_error(error)
        self.note(f"tried again in {duration_text(retry_s)}")

    def finished(self, status: str) -> None:
        super().finished(status)
        if status == "ok" and self._total.warnings + self._total.errors + self._errors:
            status = "warnings"
        summary = Summary(self._last, status, self._total, time.monotonic() - self._began_s)
        self._print(summary_line(summary, self._total.errors + self._errors))

    def ended_by(self, error: PipelineError) -> bool:
        self._tell_error(error)
        return True

    def _tell_error(self, error: PipelineError) -> None:
        self._errors += 1
        if not self.has_told(error):
            self._print(problem_fields(Problem(Severity.ERROR, None, error.one_line)))

    def _line(self, what: str, watching: Watching) -> dict[str, Any]:
        sources = [
            {**treepath.json_fields("path", seen.path), "backend": seen.backend} for seen in watching.observed
        ]
        return {
            "type": what,
            "sources": sources,
            "folders": watching.folders,
            "paths": watching.paths,
            "everything_in_s": round(watching.everything_in_s, 3),
        }

    def _print(self, line: dict[str, Any]) -> None:
        self._out.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        self._out.flush()


def where_text(watching: Watching) -> str:
    """Which folders, and who tells of them."""
    seen = [f"{treepath.escaped(o.path)} ({o.backend})" for o in watching.observed]
    folders = f"; {amount(watching.folders, 'folder')}" if watching.folders else ""
    return ", ".join(seen) + folders


def run_text(summary: Summary) -> str:
    """A run in one line."""
    counts = summary.counts
    figures = {action.lower(): number for action, number in counts.by_action.items()}
    what = counts_text(figures | {"warnings": counts.warnings, "errors": counts.errors})
    stored = f"; {size_text(counts.bytes_stored)} stored" if counts.bytes_stored else ""
    name = "Dry run" if summary.dry_run else f"Run {summary.run}"
    return f"{name}: {what or 'folders only'}{stored}; {duration_text(summary.seconds)}"


def _now_text() -> str:
    return datetime.now().astimezone().isoformat(" ", timespec="seconds")
