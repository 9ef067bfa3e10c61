"""What restore, verify and rebuild tell while they work: bars, plain lines or JSON lines.

In: the calls of a `ReadMonitor`. Out: deeds, findings and the summary on standard output, progress and
problems on standard error; with `--json` all of it as JSON lines on standard output, the summary last.
Guarantees: no name reaches the terminal unescaped or is taken for markup; without a terminal rich is never
imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from pipeline.model import treepath
from pipeline.model.errors import Problem, Severity
from pipeline.model.report import Deed, Finding, Progress, ReadSummary
from pipeline.model.treepath import json_fields
from pipeline.ui.figures import Pace, amount, duration_text, size_text
from pipeline.ui.jsonlines import action_line, lossy, problem_fields, status_line
from pipeline.ui.lines import one_line, problem_line
from pipeline.ui.output import Output
from pipeline.ui.terminal import Detail, new_bars, print_above, print_rows

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_LINE_INTERVAL_S = 20.0
_BARS_AFTER_S = 0.5
_STATUS_INTERVAL_S = 0.25
_HEADLINES = {
    ("restore", "ok"): "Restored.",
    ("restore", "warnings"): "Restored, but for what is named above.",
    ("verify", "ok"): "Everything that was read is as it was stored.",
    ("verify", "warnings"): "The backup is not as it was stored: see above.",
    ("rebuild", "ok"): "The state is made anew.",
    ("rebuild", "warnings"): "The state is made anew, but for what is named above.",
}


class ReadLines:
    """For people: a line of progress now and then, or one bar where standard error is a terminal."""

    def __init__(self, out: Output, err: Output, detail: Detail) -> None:
        self.wants_deeds = detail.plans
        self._out = out
        self._err = err
        self._detail = detail
        self._pace = Pace()
        self._draws_bar = err.is_terminal and not detail.quiet and not (detail.plans and out.is_terminal)
        self._due_s = _BARS_AFTER_S if self._draws_bar else _LINE_INTERVAL_S
        self._bar: Bars | None = None

    def progress(self, progress: Progress) -> None:
        rate = self._pace.rate(progress)
        if self._detail.quiet or progress.elapsed_s < self._due_s:
            return
        if not self._draws_bar:
            self._due_s = progress.elapsed_s + _LINE_INTERVAL_S
            self._err.line(f"{progress.phase}: {_words(progress, rate)}")
            return
        if self._bar is None:
            self._bar = new_bars(progress.phase.capitalize())
        task = self._bar.tasks[0].id
        total = None if progress.bytes_total is None else max(progress.bytes_total, progress.bytes_done)
        self._bar.update(task, completed=progress.bytes_done, total=total, detail=_words(progress, rate))
        self._bar.refresh()

    def did(self, deed: Deed) -> None:
        self._say(self._out, deed_line(deed))

    def note(self, text: str) -> None:
        if not self._detail.quiet:
            self._say(self._out, f"Note: {one_line(text)}")

    def found(self, finding: Finding) -> None:
        self._say(self._out, finding_line(finding))

    def problem(self, problem: Problem) -> None:
        self._out.flush()
        self._say(self._err, problem_line(problem))

    def finished(self, summary: ReadSummary) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if not self._detail.quiet:
            print_rows(headline(summary), summary_rows(summary), self._out, self._detail.table)
        self._out.flush()

    def _say(self, stream: Output, line: str) -> None:
        if self._bar is None:
            stream.line(line) if stream is self._err else stream.write(f"{line}\n".encode())
            return
        print_above(self._bar.console, line)


class ReadJson:
    """For programs. The summary is printed by `close`, after which nothing comes."""

    def __init__(self, out: Output, deeds: bool) -> None:
        self.wants_deeds = deeds
        self._out = out
        self._due_s = 0.0
        self._errors = 0
        self.summary: ReadSummary | None = None

    def progress(self, progress: Progress) -> None:
        if progress.elapsed_s < self._due_s:
            return
        self._due_s = progress.elapsed_s + _STATUS_INTERVAL_S
        self._print(status_line(progress))
        self._out.flush()

    def did(self, deed: Deed) -> None:
        self._print(action_line(*deed))

    def note(self, text: str) -> None:
        self._print({"type": "note", "text": lossy(text)})

    def found(self, finding: Finding) -> None:
        self._errors += 1
        problem = Problem(Severity.ERROR, finding.path, finding.cause, finding.at)
        belongs = {} if finding.belongs_at is None else json_fields("belongs_at", finding.belongs_at)
        self._print(problem_fields(problem) | {"what": finding.what} | belongs)

    def problem(self, problem: Problem) -> None:
        self._errors += problem.severity is Severity.ERROR
        self._print(problem_fields(problem))

    def finished(self, summary: ReadSummary) -> None:
        """Kept back until `close`: the error that ended the command may still have to be told."""
        self.summary = summary

    def close(self) -> None:
        if self.summary is not None:
            errors = max(self._errors, self.summary.figures.get("errors", 0))
            line: dict[str, Any] = {"type": "summary", "run": self.summary.run, "status": self.summary.status}
            line |= {**self.summary.figures, "errors": errors, "seconds": round(self.summary.seconds, 3)}
            self._print(line)
        self._out.flush()

    def _print(self, line: dict[str, Any]) -> None:
        self._out.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def deed_line(deed: Deed) -> str:
    where = f" ← {treepath.escaped(deed.at)}" if deed.at is not None else ""
    why = f" ({treepath.escaped(deed.reason.encode('utf-8', 'surrogateescape'))})" if deed.reason else ""
    return f"{deed.action}: {treepath.shown(deed.path)}{where}{why}"


def finding_line(finding: Finding) -> str:
    whose = f"{treepath.shown(finding.path)}: " if finding.path is not None else ""
    cause = treepath.escaped(finding.cause.encode("utf-8", "surrogateescape"))
    return f"{finding.what.upper()}: {treepath.escaped(finding.at)} ({whose}{cause})"


def headline(summary: ReadSummary) -> str:
    """How it ended, in one sentence or two."""
    if summary.status == "interrupted":
        return "Interrupted. What was done until then is whole."
    if summary.status == "failed":
        return "Failed."
    findings = ("rotten", "missing", "foreign", "misplaced", "errors")
    if summary.command == "verify" and not any(summary.figures.get(name) for name in findings):
        return _HEADLINES["verify", "ok"]  # warnings are about something else than what is stored
    if summary.dry_run:
        but = ", but for what is named above" if summary.status == "warnings" else ""
        done = {"restore": "restored", "rebuild": "known"}[summary.command]
        return f"Dry run, nothing was written. This is what would be {done}{but}."
    return _HEADLINES[summary.command, summary.status]


def summary_rows(summary: ReadSummary) -> list[tuple[str, str]]:
    """Label and figure, without those that are 0."""
    rows = []
    for name, figure in summary.figures.items():
        if figure:
            text = size_text(figure) if name.startswith("bytes_") else f"{figure:,}"
            rows.append((name.removeprefix("bytes_").replace("_", " "), text))
    return [*rows, ("time", duration_text(summary.seconds))]


def _words(progress: Progress, rate: float) -> str:
    of_files = f" of {amount(progress.files_total, 'file')}" if progress.files_total is not None else " files"
    text = f"{progress.files_done:,}{of_files}, {size_text(progress.bytes_done)}, {size_text(rate)}/s"
    if progress.bytes_total is None or rate <= 0:
        return text
    return f"{text}, {duration_text(max(0, progress.bytes_total - progress.bytes_done) / rate)} left"
