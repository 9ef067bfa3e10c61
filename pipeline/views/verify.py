"""`verify`: read what is stored, and compare it with what the state says.

    backup → foreign walk → verifying workers ┐
    state → stored lister → verifying workers ┴→ (order) → here: findings, and repairs if asked for

In: a configuration, a request, a monitor, and a way to be asked to stop. Out: a summary. Guarantees: nothing
in the backup is written, unless `--repair` is asked for, and then only as a run would. Repeated partial calls
go round everything: each begins where the last one ended. Fails as the state and the line do.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import msgspec

from pipeline.config import Config
from pipeline.model import message
from pipeline.model.errors import PipelineError, Problem, Severity
from pipeline.model.message import Results
from pipeline.model.report import Deed, Finding, Progress, ReadMonitor, ReadSummary
from pipeline.pool.children import Station
from pipeline.pool.crew import Size
from pipeline.pool.forkserver import VERIFYING, ForkServer, start_fork_server
from pipeline.pool.line import Line
from pipeline.pool.local import Local
from pipeline.stages.foreign import ForeignWalk
from pipeline.stages.lister import StoredLister
from pipeline.stages.setup import StoredSetup, VerifySetup
from pipeline.stages.verifier import FOREIGN, MISPLACED, MISSING, ROTTEN, Verifier
from pipeline.store import past
from pipeline.store.scratch import Moves, ScratchError
from pipeline.store.spool import PathSpool
from pipeline.views.mending import mend
from pipeline.views.opening import HIGHEST, LOWEST, Opened, open_for_reading
from pipeline.views.position import read_position, write_position
from pipeline.views.pulse import Pulse

_FOREIGN_WORDS = "nothing in the state names it"


class Request(NamedTuple):
    """sample: a share of the stored contents, 0 to 1, None for all. at_most_s: seconds, None for no limit."""

    sample: float | None = None
    at_most_s: float | None = None
    repair: bool = False

    @property
    def is_partial(self) -> bool:
        return self.sample is not None or self.at_most_s is not None


def verify(config: Config, request: Request, monitor: ReadMonitor, stop: Callable[[], bool]) -> ReadSummary:
    """Verify, and tell the monitor. stop: asked a few times a second whether to end early."""
    began_s = time.monotonic()
    server = start_fork_server(*VERIFYING)
    with open_for_reading(config, whole=not request.is_partial) as opened, ExitStack() as cleanup:
        verifying = _Verifying(opened, request, monitor, stop, began_s, cleanup)
        status = verifying.execute(server)
    if request.repair and verifying.has_repairable and status != "interrupted":
        try:
            mend(config, verifying.repairable, monitor, verifying.figures)
        except PipelineError:
            verifying.finish("failed")  # what was found is told all the same
            raise
    return verifying.finish(status)


class _Verifying:
    """Both lines one after the other, and what they find."""

    def __init__(
        self,
        opened: Opened,
        request: Request,
        monitor: ReadMonitor,
        stop: Callable[[], bool],
        began_s: float,
        cleanup: ExitStack,
    ) -> None:
        self._opened = opened
        self._request = request
        self._monitor = monitor
        self._stop = stop
        self._pulse = Pulse(began_s)
        self._total, size_bytes = past.count_stored(opened.state)
        self._total_bytes = round(size_bytes * (request.sample or 1))
        self._limit = None if request.sample is None else math.ceil(self._total * request.sample)
        self._position = read_position(opened.config.log_dir, opened.root) if request.is_partial else LOWEST
        self.figures: Counter[str] = Counter()
        # What is missing and what is foreign may be one and the same, so both wait for the end.
        self._pairs = Moves()
        self._missing, self._foreign, self.repairable = _spool(), _spool(), _spool()
        self.has_repairable, self._not_repairable = False, 0
        for closing in (self._pairs, self._missing, self._foreign):
            cleanup.callback(closing.close)

    def execute(self, server: ForkServer) -> str:
        opened, config = self._opened, self._opened.config
        setup = VerifySetup(
            opened.places, opened.algorithm, str(opened.root), str(opened.state_path),
            self._monitor.wants_deeds,
        )  # fmt: skip
        ranges = ((self._position, HIGHEST), (LOWEST, self._position + b"\0"))
        listing = StoredSetup(
            str(opened.state_path), frozenset(opened.places), ranges if self._position else ranges[:1],
            self._limit,
        )  # fmt: skip
        workers = Size.of(config.workers.count)
        at_most_s = self._request.at_most_s or math.inf
        # Half of the time for the walk, which begins anew at each call: the rest has to get on.
        for walker, take, limit_s, when_cut in (
            (Station(ForeignWalk, setup), self._take_foreign, at_most_s / 2, "foreign files may be left"),
            (Station(StoredLister, listing), self._take_stored, at_most_s, "the next call goes on from here"),
        ):
            with Line(server, walker, Local(server, Station(Verifier, setup), workers)) as line:
                ending = self._follow(line, take, limit_s)
            if ending == "stopped":
                break
            if ending is not None:
                self._monitor.note(f"out of time: {when_cut}")
        self._tell_missing_and_foreign()
        if self._request.is_partial:
            self._keep_position()
        return "interrupted" if ending == "stopped" else self.status()

    def status(self) -> str:
        found = sum(
            self.figures[what] for what in (ROTTEN, MISSING, FOREIGN, MISPLACED, "errors", "warnings")
        )
        return "warnings" if found else "ok"

    def _follow(self, line: Line, take: Callable[[Results], None], limit_s: float) -> str | None:
        """Take all results. None: all came; else why not."""
        for results in line.results():
            if results is not None:
                take(results)
            self._show_progress(line)
            if self._stop():
                return "stopped"
            if self._pulse.elapsed_s >= limit_s:
                return "out of time"
        return None

    # -- what comes back ----------------------------------------------------------------------------------

    def _take_foreign(self, results: Results) -> None:
        self.figures["bytes_read"] += results.bytes_read
        for item in results.items:
            if item[0] == message.STRAY:
                _, at, size, content = item
                if content is not None:
                    self._pairs.came(content, size, at)
                self._foreign.add(at)
            elif item[0] == message.PROBLEM:
                self._problem(None, item[2], item[1])

    def _take_stored(self, results: Results) -> None:
        self.figures["bytes_read"] += results.bytes_read
        for item in results.items:
            if item[0] == message.WRONG:
                self._wrong(*item[1:])
            elif item[0] == message.TALLY:
                self.figures[item[1]] += item[2]
            elif item[0] == message.POSITION:
                self._position = item[1]
            elif item[0] == message.DONE:
                self._monitor.did(Deed(item[2], item[1], item[3], item[4]))
            elif item[0] == message.PROBLEM:
                self._problem(item[1], item[2])

    def _wrong(
        self, what: str, at: bytes, path: bytes, cause: str, size: int, content: bytes | None, mendable: bool
    ) -> None:
        if mendable:
            self.repairable.add(path)
            self.has_repairable = True
        else:
            self._not_repairable += 1
        if what == MISSING:
            if content is not None:
                self._pairs.went(content, size, at)
            self._missing.add(msgspec.msgpack.encode((at, path, cause)))
        else:
            self._found(Finding(what, at, path, cause))

    def _tell_missing_and_foreign(self) -> None:
        """A content that is missing at its place, and lies under a name that nothing names, is misplaced."""
        self._pairs.pair()
        for lost in self._missing:
            at, path, cause = msgspec.msgpack.decode(lost, type=tuple[bytes, bytes, str])
            if not self._pairs.has_moved(at):
                self._found(Finding(MISSING, at, path, cause))
        for at in self._foreign:
            origin = self._pairs.origin(at)
            if origin is None:
                self._found(Finding(FOREIGN, at, None, _FOREIGN_WORDS))
            else:
                cause = f"it belongs to {os.fsdecode(origin)}, where it is missing"
                self._found(Finding(MISPLACED, at, None, cause, origin))

    def _found(self, finding: Finding) -> None:
        self.figures[finding.what] += 1
        self._monitor.found(finding)

    def _problem(self, path: bytes | None, cause: str, at: bytes | None = None) -> None:
        self.figures["errors"] += 1
        self._monitor.problem(Problem(Severity.ERROR, path, cause, at))

    # -- where it ended -----------------------------------------------------------------------------------

    def _keep_position(self) -> None:
        why_not = write_position(self._opened.config.log_dir, self._opened.root, self._position)
        if why_not is not None:
            self.figures["warnings"] += 1
            cause = f"{why_not}; the next partial verification begins where this one began"
            self._monitor.problem(Problem(Severity.WARNING, None, cause))

    def _show_progress(self, line: Line) -> None:
        if (elapsed_s := self._pulse.due_s()) is None:
            return
        done = self.figures["files"] + self.figures["links"]
        total = self._limit if self._limit is not None else self._total
        size_bytes = self.figures["bytes_read"] + line.bytes_in_progress
        self._monitor.progress(
            Progress(total, done, total, size_bytes, self._total_bytes, 0, elapsed_s, "verifying")
        )

    def finish(self, status: str) -> ReadSummary:
        self.repairable.close()
        if self._request.repair and self._not_repairable:
            self._monitor.note(
                f"{self._not_repairable} more can't come from a source: versions, deleted files, links"
            )
        names = ("files", "links", ROTTEN, MISSING, FOREIGN, MISPLACED, "repaired", "warnings", "errors")
        figures = {name: self.figures[name] for name in (*names, "bytes_read")}
        figures["stored"] = self._total
        summary = ReadSummary("verify", None, status, figures, self._pulse.elapsed_s)
        self._monitor.finished(summary)
        return summary


def _spool() -> PathSpool:
    """In the system's temporary folder."""
    try:
        return PathSpool(None)
    except OSError as error:
        raise ScratchError(error) from error
