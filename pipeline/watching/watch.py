"""The watch: keeps a backup current, by the very runs that `run` does, over just what may have changed.

    observers → hints → pending (pure: what is due) → engine.run over a scope → what it handed back → pending

In: a configuration, a monitor, a way to be asked to stop. Out: runs. Guarantees: it begins with a run over
everything, and has one every `watch.rescan_minutes` and whenever hints may have been lost; a run that finds
nothing to do leaves no trace; the lock is held by its runs only, so that others can work in between; what
fails later is told and tried again, since it runs for weeks. Fails with what ends its first run, and with
what trying again can't mend: a damaged state, a wrong configuration.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from pipeline import engine
from pipeline.config import Config
from pipeline.layout import OWN_FOLDER
from pipeline.model.errors import BackupSideError, ConfigError, LockedError, PipelineError, StateError
from pipeline.model.report import Monitor, Summary
from pipeline.model.scope import Scope
from pipeline.pool.forkserver import BACKING_UP, start_fork_server
from pipeline.pool.reserve import Reserve
from pipeline.store.trust import STATE_NAME
from pipeline.watching.hints import Hints
from pipeline.watching.observers import Observed, Observers
from pipeline.watching.pending import Delays, Pending

CHECK_S = 5.0
"""So often it is looked whether the sources are still where they were."""
LOCKED_RETRY_S = 0.5
FAILED_RETRY_S = 5.0
FAILED_RETRY_MOST_S = 300.0


class Watching(NamedTuple):
    """What a watch is at. paths: how many wait until they are quiet. everything_in_s: until the next look at
    everything. folders: how many the system tells of."""

    observed: tuple[Observed, ...]
    folders: int
    paths: int
    everything_in_s: float


class WatchMonitor(Protocol):
    """Who sees what a watch does. Calls come from one thread. refresh_s: how often it wants to hear that
    nothing happens."""

    refresh_s: float

    def ready(self, watching: Watching) -> None:
        """From now on, nothing that changes goes unnoticed."""

    def begin_run(self, scope: Scope) -> Monitor:
        """Whom the next run reports to."""

    def end_run(self, summary: Summary) -> None: ...

    def waits(self, watching: Watching) -> None:
        """Nothing is due."""

    def note(self, text: str) -> None:
        """Something to know that is no problem."""

    def failed(self, error: PipelineError, retry_s: float) -> None:
        """A run could not be done, and will be tried again."""


class Watch:
    """One watch. `wake` makes it look at whether to stop, and may be called by a signal handler."""

    def __init__(self, config: Config, monitor: WatchMonitor, dry_run: bool) -> None:
        watch = config.watch
        delays = Delays(
            watch.debounce_seconds,
            watch.max_delay_seconds,
            max(watch.delete_delay_seconds, watch.debounce_seconds),
            watch.rescan_minutes * 60,
        )
        self._config = config
        self._monitor = monitor
        self._dry_run = dry_run
        self._hints = Hints(Pending(delays, time.monotonic()))
        self._observers = Observers(config, self._hints, partial(self._tell, monitor.note))
        self._has_run = False
        self._is_observed_afresh = False  # since the last loss, and the last look at everything
        self._retry_s = FAILED_RETRY_S
        self._is_locked_out = False
        self._checked_s = self._told_s = time.monotonic()
        self._was_due = True  # or woken: there may be something new to tell

    def wake(self) -> None:
        self._hints.wake()

    def run(self, stop: Callable[[], bool]) -> None:
        """Until `stop` says so. Raises PipelineError."""
        reserve: Reserve | None = None
        try:
            reserve = Reserve(start_fork_server(*BACKING_UP))
            self._observe(stop)
            if not stop():
                self._tell(self._monitor.ready, self._watching())
            while not stop():
                self._check()
                self._tell_reasons()
                with self._hints.pending() as pending:
                    scope = pending.take(time.monotonic())
                if scope is not None:
                    self._look(scope, reserve, stop)
                else:
                    self._wait()
        finally:
            self._observers.close()
            if reserve is not None:
                reserve.close()
            self._hints.close()

    def _observe(self, stop: Callable[[], bool]) -> None:
        """So that what changes behind the next look at everything is heard of."""
        if not self._is_observed_afresh:
            self._observers.refresh(stop)
            self._is_observed_afresh = True

    def _wait(self) -> None:
        """Until something is due. The monitor hears of it once, and so often as it likes."""
        now_s = time.monotonic()
        if self._was_due or now_s >= self._told_s + self._monitor.refresh_s:
            self._tell(self._monitor.waits, self._watching())
            self._told_s = now_s
        self._was_due = self._hints.sleep(min(self._monitor.refresh_s, CHECK_S))

    def _check(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._checked_s + CHECK_S:
            self._observers.look_for_changes()
            self._checked_s = time.monotonic()

    # -- a run --------------------------------------------------------------------------------------------

    def _look(self, scope: Scope, reserve: Reserve, stop: Callable[[], bool]) -> None:
        """Have a run look at what is due. What becomes of it decides what is due next."""
        try:
            self._refuse_lost_backup()
            if self._hints.rules_have_changed:
                self._hints.rules_have_changed = self._is_observed_afresh = False
                if not scope.is_everything:
                    self._observers.refresh(stop)
            if scope.is_everything:
                self._observe(stop)
            task = engine.Task(self._dry_run, scope, only_if_needed=True, reserve=reserve)
            summary = engine.run(self._config, self._monitor.begin_run(scope), task, stop)
        except LockedError as error:
            self._locked_out(error)
        except (ConfigError, StateError):
            raise
        except OSError as error:  # where nobody expected it: a share that has died, anywhere
            if not self._has_run:
                raise
            self._failed(PipelineError(f"{error.filename or 'the system'}: {error.strerror}"))
        except PipelineError as error:
            if not self._has_run:
                raise
            self._failed(error)
        else:
            self._done(scope, summary)

    def _done(self, scope: Scope, summary: Summary) -> None:
        self._tell(self._monitor.end_run, summary)
        self._has_run, self._is_locked_out, self._retry_s = True, False, FAILED_RETRY_S
        self._is_observed_afresh &= not scope.is_everything
        with self._hints.pending() as pending:
            pending.done(time.monotonic(), summary.absent)

    def _locked_out(self, error: LockedError) -> None:
        """Somebody else's run: it may have done all of this already by the time that it ends."""
        if not self._is_locked_out:
            self._is_locked_out = True
            self._tell(self._monitor.note, f"{error.cause}; this watch goes on after it")
        with self._hints.pending() as pending:
            pending.put_back(time.monotonic(), LOCKED_RETRY_S)

    def _failed(self, error: PipelineError) -> None:
        self._tell(self._monitor.failed, error, self._retry_s)
        self._is_observed_afresh = False
        with self._hints.pending() as pending:
            pending.failed(time.monotonic(), self._retry_s)
        self._retry_s = min(2 * self._retry_s, FAILED_RETRY_MOST_S)

    def _refuse_lost_backup(self) -> None:
        """An unmounted backup leaves an empty folder in its place, in which a run would begin anew."""
        state = self._config.backup_root / os.fsdecode(OWN_FOLDER) / STATE_NAME
        if self._has_run and not self._dry_run and not state.exists():
            raise BackupSideError(
                f"the backup is not in {self._config.backup_root} any more",
                "Nothing was touched. Is its disk mounted?",
            )

    # -- telling ------------------------------------------------------------------------------------------

    def _tell_reasons(self) -> None:
        """Once each, however often it has happened since."""
        reasons = self._hints.reasons
        told: dict[str, None] = {}
        while reasons:
            told[reasons.popleft()] = None
        for reason in told:
            self._is_observed_afresh = False
            self._tell(self._monitor.note, f"{reason}; all that may be affected is looked at")

    def _tell(self, call: Callable[..., None], *what: object) -> None:
        """An output that fails is silent from then on; it is no reason to end."""
        try:
            call(*what)
        except PipelineError:
            call(*what)

    def _watching(self) -> Watching:
        with self._hints.pending() as pending:
            paths, everything_s = len(pending), pending.everything_due_s
        observers, now_s = self._observers, time.monotonic()
        return Watching(tuple(observers.observed), observers.folders, paths, max(0.0, everything_s - now_s))
