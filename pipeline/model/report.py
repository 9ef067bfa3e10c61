"""What a run tells about itself while it works, and to whom.

The core never prints. It calls one `Monitor`; the terminal, the JSON lines and the run log are monitors.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pipeline.model.errors import Problem
from pipeline.model.plan import Action, Plan


class RunInfo(NamedTuple):
    """number: the run's number. started_ns: nanoseconds since 1970, UTC."""

    number: int
    started_ns: int
    dry_run: bool


class WorkerRate(NamedTuple):
    """What one worker has done lately. name: its number, or its address in a cluster."""

    name: str
    files_per_s: float
    bytes_per_s: float


class Progress(NamedTuple):
    """How far the run is. Totals come from the state of the run before, or are None until the scan ends.

    files_found: regular files listed. files_done, bytes_done: hashed (or found unchanged by their stat).
    actions: decisions committed, without SKIP. phase: `scanning`, `hashing`, `finishing`; `waiting`, where a
    cluster has no workers for now; or what a command that reads a backup is at, in one word.
    workers: who is at work.
    """

    files_found: int
    files_done: int
    files_total: int | None
    bytes_done: int
    bytes_total: int | None
    actions: int
    elapsed_s: float
    phase: str
    workers: tuple[WorkerRate, ...] = ()


@dataclass
class Counts:
    """The figures of a run. `by_action` counts files and links, not folders."""

    files: int = 0
    by_action: Counter[Action] = field(default_factory=Counter)
    specials: int = 0
    vanished: int = 0
    warnings: int = 0
    errors: int = 0
    bytes_read: int = 0
    bytes_stored: int = 0

    @property
    def actions(self) -> int:
        return sum(n for action, n in self.by_action.items() if action is not Action.SKIP)


class Summary(NamedTuple):
    """status: `ok`, `warnings`, `failed` or `interrupted`. run: None where none was begun, or where there was
    nothing to do for one that leaves no trace then.

    absent: paths that are missing, but are not to count as deleted yet (`model.scope`).
    only_prunes: no source was looked at.
    """

    run: int | None
    status: str
    counts: Counts
    seconds: float
    dry_run: bool = False
    absent: tuple[bytes, ...] = ()
    only_prunes: bool = False


class Excluded(NamedTuple):
    """An entry that a rule leaves out with all that lies below it. why: the rule, and where it stands."""

    path: bytes
    is_folder: bool
    why: str


class Deed(NamedTuple):
    """What a command that reads a backup did with one path, or in a dry run would do.

    at: the backup path that it is about.
    """

    action: str
    path: bytes
    reason: str
    at: bytes | None


class Finding(NamedTuple):
    """A stored file that isn't as the state says. what: `rotten`, `missing`, `foreign` or `misplaced`.

    at: its backup path. path: whose content it is or should be, None for a foreign file. belongs_at: for a
    misplaced one, the backup path where it is missing.
    """

    what: str
    at: bytes
    path: bytes | None
    cause: str
    belongs_at: bytes | None = None


class ReadSummary(NamedTuple):
    """How a command that reads a backup ended. figures: in the order in which people want to see them.

    run: the one that was looked at, None for the latest state.
    """

    command: str
    run: int | None
    status: str
    figures: dict[str, int]
    seconds: float
    dry_run: bool = False


class ReadMonitor(Protocol):
    """Who watches a command that reads a backup. Calls come from one thread; `finished` is the last one.

    `wants_deeds` asks for a call per path.
    """

    wants_deeds: bool

    def progress(self, progress: Progress) -> None:
        """Called a few times a second."""

    def did(self, deed: Deed) -> None: ...

    def note(self, text: str) -> None:
        """Something to know that is no problem."""

    def found(self, finding: Finding) -> None: ...

    def problem(self, problem: Problem) -> None: ...

    def finished(self, summary: ReadSummary) -> None: ...


class Monitor(Protocol):
    """Who watches a run. Calls come from one thread, in this order: started, then any of the middle ones,
    then finished; only progress may come before. A run that finds nothing to do, and is to leave no trace
    then, calls neither. `wants_skips` asks for a call per unchanged file, which costs time; `wants_excluded`
    for one per entry that is left out."""

    wants_skips: bool
    wants_excluded: bool

    def started(self, run: RunInfo) -> None: ...

    def progress(self, progress: Progress) -> None:
        """Called a few times a second."""

    def acted(self, plan: Plan) -> None:
        """A plan was committed and carried out (in a dry run: was made), in plan order."""

    def skipped(self, path: bytes) -> None:
        """A file or link was unchanged. Only for monitors that want it."""

    def excluded(self, entry: Excluded) -> None:
        """Only for monitors that want it."""

    def problem(self, problem: Problem) -> None: ...

    def finished(self, summary: Summary) -> None: ...
