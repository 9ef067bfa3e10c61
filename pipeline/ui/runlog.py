"""The run log: one file per run, one line for every action, in commit order.

In: the calls of a run. Out: `<log_dir>/run-<UTC time>-<run number>.log`, readable by its owner only.
Guarantees: an existing file is never written to; without their time stamps, the logs of two equal runs are
equal. Fails with `PipelineError` when the file can't be made or written; after that it stays silent, so that
the run can end.
"""

from __future__ import annotations

import os
import time
from itertools import count
from pathlib import Path

from pipeline.model.errors import PipelineError, Problem
from pipeline.model.plan import Plan
from pipeline.model.report import Excluded, Progress, RunInfo, Summary
from pipeline.ui.lines import plan_lines, problem_line, skip_line

_BUFFER_CHARACTERS = 64 * 1024
_FLUSH_S = 2
_LAST_LINE = {
    "ok": "Run complete",
    "warnings": "Run complete",
    "failed": "Run failed",
    "interrupted": "Run interrupted",
}


class RunLog:
    """Monitor that writes the log file of a run. A dry run has none."""

    wants_excluded = False

    def __init__(self, log_dir: Path, skips: bool) -> None:
        self.wants_skips = skips
        self._log_dir = log_dir
        self._handle: int | None = None
        self._lines: list[str] = []
        self._characters = 0
        self._second = 0
        self._stamp = ""
        self._flushed_second = 0

    def started(self, run: RunInfo) -> None:
        if run.dry_run:
            return
        name = f"run-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(run.started_ns // 10**9))}-{run.number}"
        try:
            self._log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._handle = _create(self._log_dir, name)
        except OSError as error:
            raise self._failure(error) from error

    def progress(self, progress: Progress) -> None:
        """Lines don't wait in memory for long, also when no new ones come."""
        if self._lines and time.time() - self._flushed_second >= _FLUSH_S:
            self._flush()

    def acted(self, plan: Plan) -> None:
        for line in plan_lines(plan):
            self._write(line)

    def skipped(self, path: bytes) -> None:
        self._write(skip_line(path))

    def excluded(self, entry: Excluded) -> None:
        """A log has what was done."""

    def problem(self, problem: Problem) -> None:
        self._write(problem_line(problem))

    def finished(self, summary: Summary) -> None:
        self._write(_LAST_LINE[summary.status])
        self._flush()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _write(self, line: str) -> None:
        if self._handle is None:
            return
        now_s = time.time()
        if not 0 <= now_s - self._second < 1:
            self._second = int(now_s)
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime(now_s))
        self._lines.append(f"{self._stamp}{line}\n")
        self._characters += len(line)
        if self._characters >= _BUFFER_CHARACTERS or now_s - self._flushed_second >= _FLUSH_S:
            self._flush()

    def _flush(self) -> None:
        if self._handle is None:
            return
        data = memoryview("".join(self._lines).encode())
        self._lines.clear()
        self._characters = 0
        try:
            while data:
                data = data[os.write(self._handle, data) :]
        except OSError as error:
            os.close(self._handle)
            self._handle = None
            raise self._failure(error) from error
        self._flushed_second = int(time.time())

    def _failure(self, error: OSError) -> PipelineError:
        cause = f"the run log in {self._log_dir} can't be written: {error.strerror}"
        return PipelineError(cause, "Make room or mend its permissions, or set log_dir to another folder.")


def _create(folder: Path, name: str) -> int:
    """A new file. Two backups that share a log folder may begin runs of one number in the same second."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    for attempt in count(1):
        suffix = f"-{attempt}" if attempt > 1 else ""
        try:
            return os.open(folder / f"{name}{suffix}.log", flags, 0o600)
        except FileExistsError:
            continue
    raise AssertionError("count never ends")
