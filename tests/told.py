"""What a run tells, made up: values for the tests of those who listen."""

from __future__ import annotations

from typing import Any

from pipeline.model.errors import Problem, Severity
from pipeline.model.plan import Action, Plan, Store
from pipeline.model.record import Record
from pipeline.model.report import Counts, Progress, RunInfo, Summary

START_S = 1795535322  # 2026-11-24T15:48:42Z
RUN = RunInfo(7, START_S * 10**9 + 999, dry_run=False)
RECORD = Record(b"docs\0a", 0, 0o100644, 0, 0, 0, 0, 1, 3, b"d", None, 0, None, 1, 0, 1, 0)
PLAN = Plan(Action.BACKUP, b"docs\0a", "new path", (Store(b"a", False),), RECORD, stored_at=b"a")
WARNING = Problem(Severity.WARNING, b"docs\0b\n", "no [bold]access[/bold]")


def summary(status: str = "ok", dry_run: bool = False, **figures_: Any) -> Summary:
    by_action = {Action[name]: figures_.pop(name) for name in list(figures_) if name.isupper()}
    counts = Counts(**figures_)
    counts.by_action.update(by_action)
    return Summary(7, status, counts, 1.23456, dry_run)


def progress(elapsed_s: float, phase: str = "hashing") -> Progress:
    return Progress(200, 50, 100, 1_000_000, 4_000_000, 5, elapsed_s, phase)
