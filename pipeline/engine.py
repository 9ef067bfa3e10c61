"""A run, from top to bottom: the one page that wires the stations together.

    sources → scanner → hashing workers → (order) → committer: planner → journal → stored files, state

In: a configuration, a monitor, what to look at, and a way to be asked to stop. Out: a summary; everything
else goes to the monitor. Guarantees: those of `ARCHITECTURE.md`, each at home in the module that it names.
Fails with a `PipelineError`; what was committed until then stays valid, and the next run goes on from there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import NamedTuple

from pipeline import sources
from pipeline.clock import Clocks
from pipeline.config import Config
from pipeline.model.errors import BackupSideError, PipelineError, Problem, Severity, StationError
from pipeline.model.report import Monitor, RunInfo, Summary
from pipeline.model.scope import EVERYTHING, Scope
from pipeline.pool.children import Station
from pipeline.pool.collecting import collect_seldom
from pipeline.pool.crew import Size
from pipeline.pool.forkserver import BACKING_UP, ForkServer, start_fork_server
from pipeline.pool.hands import Hands
from pipeline.pool.line import Line
from pipeline.pool.local import Local
from pipeline.pool.reserve import Reserve
from pipeline.sources import Resolved
from pipeline.stages import digest
from pipeline.stages.committer import Committer, Retention, Rules
from pipeline.stages.guard import Guard
from pipeline.stages.hasher import Hasher
from pipeline.stages.recovery import recover
from pipeline.stages.scanner import Scanner
from pipeline.stages.setup import HashSetup, ScanSetup, SourceRoot
from pipeline.stages.space import shortage
from pipeline.store import calls, system
from pipeline.store.backup import Backup, open_backup, open_scratch, refuse_missing
from pipeline.store.barrier import Barrier
from pipeline.store.clocks import judge_clock, read_clocks
from pipeline.store.files import StoredFiles
from pipeline.store.journal import Journal
from pipeline.store.limits import Fitting, Limits, probe, remember, remembered
from pipeline.store.operation import Operation
from pipeline.store.places import Note, write_note
from pipeline.store.prospects import Prospects
from pipeline.store.sharing import Sharing
from pipeline.store.spool import PathSpool
from pipeline.store.staging import Staging
from pipeline.store.state import translated_errors
from pipeline.store.system import backup_side_errors
from pipeline.telling import Telling
from pipeline.workers import check_installed

COMPLETE = ("ok", "warnings")


class Task(NamedTuple):
    """What a run is to do. scope: what it looks at.

    only_if_needed: where there is nothing to do, the run leaves no trace: no number, no log.
    reserve: where the workers come from and go back to, if they are to be kept.
    only_prunes: no source is looked at; what the state alone decides is done.
    accepts_clock: a person says that the clock is right.
    """

    dry_run: bool = False
    scope: Scope = EVERYTHING
    only_if_needed: bool = False
    reserve: Reserve | None = None
    only_prunes: bool = False
    accepts_clock: bool = False


def run(config: Config, monitor: Monitor, task: Task, stop: Callable[[], bool]) -> Summary:
    """Back up what the configuration says. stop: asked a few times a second whether to end early.

    Raises PipelineError. `monitor.finished` has been called whenever `monitor.started` was.
    """
    clocks = read_clocks()
    if not task.only_prunes:
        check_installed(config.workers, config.file)
    server, resolved, root = None, [], config.backup_root
    if task.only_prunes:
        refuse_missing(root)
    else:
        # Before anything is opened: children inherit nothing.
        server = task.reserve.server if task.reserve is not None else start_fork_server(*BACKING_UP)
        resolved = sources.resolve(config)
    sources.check_places(config, resolved)
    opened = open_scratch(root) if task.dry_run else open_backup(root, clocks.wall_ns)
    with opened as backup, ExitStack() as cleanup:
        return _Run(config, backup, monitor, task, stop, clocks, cleanup).execute(server, resolved)


class _Run:
    """One run on an open backup. `cleanup` closes what the stations open."""

    def __init__(
        self,
        config: Config,
        backup: Backup,
        monitor: Monitor,
        task: Task,
        stop: Callable[[], bool],
        clocks: Clocks,
        cleanup: ExitStack,
    ) -> None:
        self._config = config
        self._backup = backup
        self._state = backup.state
        self._monitor = monitor
        self._task = task
        self._dry_run = task.dry_run
        self._stop = stop
        self._clocks = clocks
        self._rules = config.retention.rules
        self._cleanup = cleanup
        self._began_s = time.monotonic()
        self._wants_skips = monitor.wants_skips and not task.only_if_needed
        self._absent: tuple[bytes, ...] = ()

    def execute(self, server: ForkServer | None, resolved: list[Resolved]) -> Summary:
        """Refuse what can't be right, recover, begin, back up, end."""
        collect_seldom()
        sources.check_algorithm(self._config, self._state)
        roots = sources.place(self._config, resolved, self._state)
        problems = self._recover()
        last = self._state.last_run()
        was_cut = self._was_cut = last is not None and last[1] not in COMPLETE
        self._known = self._known_figures(was_cut)
        task = self._task
        percent, is_full = self._config.safety.max_delete_percent, task.scope.is_everything
        self._guard = Guard(self._state, percent, self._known[0], is_full)
        self._doubt = judge_clock(self._state, self._clocks, task.accepts_clock)
        number = self._state.begin_run(self._clocks.wall_ns, self._config.durability, self._clocks.boot_id)
        if self._doubt is not None:
            self._state.put("UPDATE runs SET has_doubted_clock = 1 WHERE number = ?", (number,))
        self._prospects = self._open_prospects(number)
        if not task.only_if_needed:
            self._state.commit()  # a cut run keeps its number
        self._fitting = self._look_at_limits()
        info = RunInfo(number, self._clocks.wall_ns, self._dry_run)
        self._telling = Telling(self._monitor, self._state, info, self._known, self._wants_skips)
        try:
            if was_cut or not task.only_if_needed:
                self._telling.begin()  # that a cut run is settled is to be seen, too
            for problem in problems:
                self._telling.event(problem)
            if self._doubt is not None and self._rules.asks_the_time and task.scope.is_everything:
                self._telling.event(Problem(Severity.WARNING, None, self._doubt))
            # Whoever is told of the end has to know why, so what SQLite says is put into our words before.
            with translated_errors():
                if server is None:
                    status = self._prune(number, was_cut)
                else:
                    status = self._back_up(server, self._scan_setup(roots, resolved), number, was_cut)
        except BaseException as error:
            self._state.rollback()
            self._give_back_space()
            self._tell_failure(number, error)
            raise
        summary = self._summary(number if self._telling.has_begun else None, status)
        if self._telling.has_begun:
            self._monitor.finished(summary)
        return summary

    def _give_back_space(self) -> None:
        """What a full disk was filled with is of no use to anybody. The first error is the one to tell.

        A commit that has failed may still turn out to have happened, and then its intents need what is
        staged.
        """
        if not self._dry_run and not self._state.is_in_doubt:
            with suppress(PipelineError), translated_errors(), backup_side_errors():
                self._staging.sweep(self._state.intents())

    def _tell_failure(self, number: int, error: BaseException) -> None:
        """The monitor hears of the end; if telling it fails too, the first error is the one to know."""
        if not self._telling.has_begun:
            return
        with suppress(PipelineError):
            if isinstance(error, PipelineError):
                self._telling.event(Problem(Severity.ERROR, None, error.one_line))
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self._monitor.finished(self._summary(number, status))

    # -- before -------------------------------------------------------------------------------------------

    def _recover(self) -> list[Problem]:
        """A dry run recovers nothing: in the state, what a cut run had recorded counts as done already."""
        new_hasher = digest.hasher(self._state.setting("hash_algorithm") or self._config.hash_algorithm)
        root, staging, quarantine = (
            -1 if handle is None else handle
            for handle in (
                self._backup.root_handle, self._backup.staging_handle, self._backup.quarantine_handle
            )
        )  # fmt: skip
        if self._dry_run and self._backup.root is not None:
            root = calls.open(self._backup.root, os.O_RDONLY | calls.O_DIRECTORY)
            self._cleanup.callback(calls.close, root)
        self._files = StoredFiles(root, staging, quarantine, partial(digest.of_file, new_hasher=new_hasher))
        self._cleanup.callback(self._files.close)
        self._staging = Staging(staging, self._files.folders)
        self._barrier = Barrier(root, self._files.folders)
        # Where a dry run finds intents, stored files are about to move: the state knows better.
        self._looks_at_stored = not (self._dry_run and self._state.intents())
        if self._dry_run:
            return []
        return recover(self._state, self._files, self._staging, self._barrier, self._clocks.boot_id)

    def _known_figures(self, was_cut: bool) -> tuple[int, int]:
        """Files and links, and their bytes, by the state. The figures of a cut run are counted anew."""
        kept = self._state.setting("present_files")
        if was_cut or kept is None:
            return self._state.figures()
        return int(kept), int(self._state.setting("present_bytes"))

    def _open_prospects(self, number: int) -> Prospects | None:
        if self._rules.only_counts:
            return None
        return Prospects(self._state, number, self._rules.text(), bool(self._rules.max_bytes))

    # -- the line -----------------------------------------------------------------------------------------

    def _back_up(self, server: ForkServer, scan: ScanSetup, number: int, was_cut: bool) -> str:
        """The line at work. Returns the run's status."""
        self._warn_of_shortage(scan)
        journal = self._journal(number)
        committer = self._committer(journal, number, was_cut)
        interrupted = False
        with self._line(server, scan, number) as line:
            for results in line.results():
                if results is not None:
                    committer.take(results)
                for problem in line.take_problems():
                    self._telling.event(problem)
                journal.close_if_old()
                self._telling.progress(line)
                if interrupted := self._stop():
                    break
        return self._conclude(journal, committer, number, interrupted)

    def _prune(self, number: int, was_cut: bool) -> str:
        """What comes after a scan that has found nothing missing."""
        journal = self._journal(number)
        return self._conclude(journal, self._committer(journal, number, was_cut), number, False)

    def _conclude(self, journal: Journal, committer: Committer, number: int, interrupted: bool) -> str:
        if not interrupted:
            for _ in committer.conclude():
                self._telling.progress(None)
                if interrupted := self._stop():
                    break
        journal.close_group()
        committer.forget(journal.take_lost())
        self._absent = tuple(sorted(committer.absent))
        return self._end(journal, committer, number, interrupted)

    def _scan_setup(self, roots: tuple[SourceRoot, ...], resolved: list[Resolved]) -> ScanSetup:
        """By now the log folder is there, too, which is not to be entered."""
        config, state = self._config, os.fspath(self._backup.state_path)
        return ScanSetup(
            sources=roots,
            excluded=sources.excluded(config, resolved),
            patterns=config.patterns,
            state=state,
            scope=self._task.scope,
            rules=sources.folder_rules(config),
            archives_excluded=config.filters.on_newly_excluded == "archive",
            report_excluded=self._monitor.wants_excluded,
        )

    def _warn_of_shortage(self, scan: ScanSetup) -> None:
        if self._dry_run or self._backup.root is None or not self._task.scope.is_everything:
            return
        has_completed = self._state.setting("present_files") is not None
        with backup_side_errors():
            known_bytes = self._known[1] if has_completed else None
            problem = shortage(scan, self._backup.root, known_bytes, self._stop)
        if problem is not None:
            self._telling.event(problem)

    def _line(self, server: ForkServer, scan: ScanSetup, number: int) -> Line:
        config, backup = self._config, self._backup
        hashing = HashSetup(
            sources=scan.sources,
            algorithm=config.hash_algorithm,
            trust=config.detect.trust,
            backup_root=os.fspath(backup.root) if backup.root is not None else None,
            run=number,
            stage=not self._dry_run,
            check_stored=self._looks_at_stored,
            report_unchanged=self._wants_skips,
        )
        return Line(server, Station(Scanner, scan), self._hands(server, hashing))

    def _hands(self, server: ForkServer, hashing: HashSetup) -> Hands:
        """Who hashes: processes of this machine, or a cluster."""
        workers = self._config.workers
        if workers.engine == "local":
            return Local(server, Station(Hasher, hashing), Size.of(workers.count), self._task.reserve)
        try:
            from pipeline.pool.cluster import Cluster  # a second's work to load
        except (ImportError, ValueError, OSError) as error:  # as Dask tells of its own settings
            raise StationError(
                f"dask can't be loaded: {error}", "Mend its installation, or its settings."
            ) from error

        enters_mounts = not self._config.filters.one_file_system
        return Cluster(workers.address, hashing, self._backup.staging_handle, enters_mounts)

    def _journal(self, number: int) -> Journal:
        return Journal(
            self._state,
            self._staging,
            self._files,
            self._before_commit,
            number,
            self._telling.event,
            self._dry_run,
            self._looks_at_stored,
            self._sharing(),
        )

    def _sharing(self) -> Sharing | None:
        action, staging = self._config.duplicates.action, self._backup.staging_handle
        if action == "copy" or self._dry_run or staging is None:
            return None
        return Sharing(action, staging, self._files.folders, self._staging.new_name)

    def _before_commit(self, coming: Sequence[Operation], done: Sequence[Operation]) -> None:
        """A group that changes something is about to count: there is a log by now, and its bytes are safe."""
        if not self._telling.has_begun:
            self._telling.begin()
        if not self._syncs_only_once:  # else the order is enough
            self._barrier(coming, done)

    @property
    def _syncs_only_once(self) -> bool:
        """At the end of the run, if the system can do that without a list of all that was done."""
        return self._config.durability == "fast" and system.syncs_at_once()

    def _committer(self, journal: Journal, number: int, was_cut: bool) -> Committer:
        config = self._config
        own_folder = None if self._dry_run else self._backup.state_path.parent / "staging"
        with backup_side_errors():
            missing, excluded = PathSpool(own_folder), PathSpool(own_folder)
        self._cleanup.callback(missing.close)
        self._cleanup.callback(excluded.close)
        now_ns = self._clocks.wall_ns if self._doubt is None else None
        retention = Retention(self._rules, self._prospects, now_ns)
        rules = Rules(config.duplicates.min_size, config.duplicates.action != "copy", retention)
        return Committer(
            journal,
            self._state,
            None if self._dry_run else self._staging,
            number,
            rules,
            self._telling.counts,
            missing,
            excluded,
            self._guard,
            promotions_due=was_cut,
            finds_names=self._task.scope.is_everything and not self._task.only_prunes,
            fitting=self._fitting,
        )

    def _look_at_limits(self) -> Fitting | None:
        """What the backup's file system can't hold. The note tells a rebuild."""
        limits = remembered(self._state)
        with backup_side_errors():
            if self._backup.staging_handle is not None:
                with suppress(OSError):  # a disk that is full: what was found before still holds
                    limits = probe(self._backup.staging_handle)
                remember(limits, self._state)
            holds_all = limits == Limits()
            respells = not holds_all or any(place.respelled for place in self._state.places().values())
            if not self._dry_run:
                note = Note(dict(self._state.sources()), respells)
                write_note(self._backup.state_path.parent, note)
        return Fitting(limits, self._state) if not holds_all else None

    # -- after --------------------------------------------------------------------------------------------

    def _end(self, journal: Journal, committer: Committer, number: int, interrupted: bool) -> str:
        """The last group's renames are made durable, then the run is written down as what it was."""
        journal.close_group()
        files, size_bytes = self._known
        self._state.set_setting("present_files", files + committer.present_files)
        self._state.set_setting("present_bytes", size_bytes + committer.present_bytes)
        last = number if self._telling.has_begun else number - 1
        if not self._task.only_prunes:  # it has looked at no source
            self._guard.keep(last, files + committer.present_files, interrupted)
        if self._prospects is not None:
            self._prospects.keep(last)
        status = "interrupted" if interrupted else self._telling.status()
        if not self._dry_run and self._syncs_only_once:
            self._only_barrier(number)
        journal.settle()
        if self._telling.has_begun:
            # What a cut run has left undone, a prune hasn't done either: the next run is to know that.
            kept = "interrupted" if self._task.only_prunes and self._was_cut else status
            self._state.end_run(number, time.time_ns(), kept, self._telling.counts_as_json())
        else:
            self._state.forget_run(number)
        self._state.commit()
        if not self._dry_run:
            with backup_side_errors():
                self._staging.sweep()
        return status

    def _only_barrier(self, number: int) -> None:
        """The one sync of a fast run. Where it fails, nothing that this run stored is trusted by the next."""
        try:
            with backup_side_errors():
                self._barrier.for_all()
        except BackupSideError:
            self._state.rollback()
            self._state.distrust_run(number)
            self._state.commit()
            raise

    def _summary(self, number: int | None, status: str) -> Summary:
        seconds = time.monotonic() - self._began_s
        only_prunes = self._task.only_prunes
        return Summary(
            number, status, self._telling.counts, seconds, self._dry_run, self._absent, only_prunes
        )
