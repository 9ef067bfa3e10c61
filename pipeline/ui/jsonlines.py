"""JSON lines for scripts: what `--json` prints.

In: the calls of a run. Out: one JSON object per line on a byte stream, the summary always last.
Guarantees: every line is valid UTF-8; a name that isn't has its exact bytes beside it in base64.
"""

from __future__ import annotations

from typing import Any, Protocol

import orjson

from pipeline.model import treepath
from pipeline.model.errors import Problem, Severity
from pipeline.model.plan import Action, Plan
from pipeline.model.report import Excluded, Progress, RunInfo, Summary

_STATUS_INTERVAL_S = 0.25


class ByteSink(Protocol):
    def write(self, data: bytes, /) -> object: ...

    def flush(self) -> object: ...


class JsonLines:
    """Monitor that prints JSON lines. actions: also one for every decision. excluded: and for every entry
    that is left out."""

    wants_skips = False

    def __init__(self, out: ByteSink, actions: bool, excluded: bool = False) -> None:
        self.wants_excluded = excluded
        self._out = out
        self._actions = actions
        self._status_due_s = 0.0
        self._errors = 0
        self._summary: Summary | None = None

    def started(self, run: RunInfo) -> None:
        """The summary names the run; nothing to say before."""

    def progress(self, progress: Progress) -> None:
        if progress.elapsed_s < self._status_due_s:
            return
        self._status_due_s = progress.elapsed_s + _STATUS_INTERVAL_S
        self._print(status_line(progress))
        self._out.flush()

    def acted(self, plan: Plan) -> None:
        if not self._actions or plan.action is None:
            return
        self._print(action_line(plan.action.value, plan.path, plan.reason, plan.stored_at))

    def skipped(self, path: bytes) -> None:
        """Unchanged files are only counted."""

    def excluded(self, entry: Excluded) -> None:
        path = treepath.json_fields("path", treepath.with_slashes(entry.path))
        self._print({"type": "excluded", **path, "reason": lossy(entry.why)})

    def problem(self, problem: Problem) -> None:
        self._errors += problem.severity is Severity.ERROR
        self._print(problem_fields(problem))
        self._out.flush()

    def finished(self, summary: Summary) -> None:
        """Kept back until `close`: the error that ended the run may still have to be told."""
        self._summary = summary

    def close(self) -> None:
        """Print the summary, after which nothing comes."""
        if self._summary is not None:
            self._print(summary_line(self._summary, self._errors))
            self._out.flush()

    def _print(self, line: dict[str, Any]) -> None:
        self._out.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def status_line(progress: Progress) -> dict[str, Any]:
    workers = [
        {"name": one.name, "files_per_s": round(one.files_per_s, 1), "bytes_per_s": round(one.bytes_per_s)}
        for one in progress.workers
    ]
    elapsed_s = round(progress.elapsed_s, 3)
    return {"type": "status", **progress._asdict(), "elapsed_s": elapsed_s, "workers": workers}


def action_line(action: str, path: bytes, reason: str, stored_at: bytes | None) -> dict[str, Any]:
    line: dict[str, Any] = {"type": "action", "action": action}
    line |= treepath.json_fields("path", treepath.with_slashes(path))
    return line | {"reason": lossy(reason)} | treepath.json_fields("stored_at", stored_at)


def problem_fields(problem: Problem) -> dict[str, Any]:
    """A warning or an error. `stored_at` only where it is about something in the backup."""
    path = None if problem.path is None else treepath.with_slashes(problem.path)
    line: dict[str, Any] = {"type": problem.severity.value, **treepath.json_fields("path", path)}
    line["cause"] = lossy(problem.cause)
    return line if problem.at is None else line | treepath.json_fields("stored_at", problem.at)


def summary_line(summary: Summary, errors_told: int) -> dict[str, Any]:
    """The last line. errors_told: how many were printed, also such as ended the run before it could count."""
    counts = summary.counts
    return {
        "type": "summary",
        "run": summary.run,
        "status": summary.status,
        "files": counts.files,
        **{action.value.lower(): counts.by_action[action] for action in Action},
        "warnings": counts.warnings,
        "errors": max(counts.errors, errors_told),
        "bytes_read": counts.bytes_read,
        "bytes_stored": counts.bytes_stored,
        "seconds": round(summary.seconds, 3),
    }


def lossy(text: str) -> str:
    """Causes may quote names; half characters (surrogates) have no place in JSON."""
    return text.encode("utf-8", "replace").decode()
