"""Everything that ends a run early, and the problems with single files that don't.

A problem with one file is a value (`Problem`) that is reported and counted. A problem with the run is a
`PipelineError`, raised once and turned into an exit code by the command line.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    WARNINGS = 3
    LOCKED = 11
    INTERRUPTED = 130


class Severity(StrEnum):
    WARNING = "warning"
    ERROR = "error"


class Problem(NamedTuple):
    """Something that people must know about. path: a tree path, None where it concerns the whole run.

    at: a backup path that it is about, where there is one.
    """

    severity: Severity
    path: bytes | None
    cause: str
    at: bytes | None = None


class PipelineError(Exception):
    """The run can't go on. `advice` says what to do next."""

    exit_code = ExitCode.FAILED

    def __init__(self, cause: str, advice: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.advice = advice

    @property
    def one_line(self) -> str:
        """Cause and advice together, for programs and logs."""
        return f"{self.cause}. {' '.join(self.advice.split())}" if self.advice else self.cause

    def __str__(self) -> str:
        return f"{self.cause}\n{self.advice}" if self.advice else self.cause


class ConfigError(PipelineError):
    """A mistake in the configuration: where it is, what is wrong, what would be right."""

    exit_code = ExitCode.USAGE

    def __init__(self, file: str, key: str, wrong: str, example: str) -> None:
        super().__init__(f"{file}: {key}: {wrong}", f"For example: {example}" if example else "")
        self.file = file
        self.key = key
        self.wrong = wrong
        self.example = example


class ArgumentError(PipelineError):
    """An argument that names nothing in this backup, or something that can't be done with it."""

    exit_code = ExitCode.USAGE


class SourceError(PipelineError):
    """A source that can't be what it was: missing, not a folder, or suddenly empty."""


class StateError(PipelineError):
    """The state database is missing, damaged, or not ours."""


class DamagedStateError(StateError):
    """The state database is there, but can't be used. `rebuild` makes a new one."""


class BackupSideError(PipelineError):
    """The backup side can't be written: no space, I/O error, read-only. Nothing committed is touched."""


class RestoreError(PipelineError):
    """The folder that is restored into can't be used, or can't be written any more."""


class LockedError(PipelineError):
    """Another run holds the lock."""

    exit_code = ExitCode.LOCKED

    def __init__(self, holder_pid: int | None, holder_start: str | None) -> None:
        who = f"process {holder_pid}, started {holder_start}" if holder_pid else "another process"
        super().__init__(f"another run holds the lock: {who}", "Wait until it has ended, then run again.")
        self.holder_pid = holder_pid
        self.holder_start = holder_start


class ObserverError(PipelineError):
    """The system can't tell of changes, and nothing else was allowed."""


class StationError(PipelineError):
    """A station of the line (the scanner, a worker) ended in a way that can't be mended by a new one."""
