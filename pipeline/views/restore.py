"""`restore`: bring back what a run held, into a folder.

    state → lister → restoring workers → (order) → here: folders get their metadata, problems are told

In: a configuration, a request, a monitor, and a way to be asked to stop. Out: a summary. Guarantees: the
backup is only read; a content that isn't what was stored is never given a name; nothing outside of the target
is written (`store.target`). Fails with ArgumentError before anything is written, with RestoreError where the
target can't be used, and as the state and the line do.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from pipeline.config import Config
from pipeline.model import message, treepath
from pipeline.model.errors import ArgumentError, PipelineError, Problem, RestoreError, Severity
from pipeline.model.message import Results
from pipeline.model.record import PENDING_MODE, Held, Kind
from pipeline.model.report import Deed, Progress, ReadMonitor, ReadSummary
from pipeline.pool.children import Station
from pipeline.pool.crew import Size
from pipeline.pool.forkserver import RESTORING, start_fork_server
from pipeline.pool.line import Line
from pipeline.pool.local import Local
from pipeline.stages import digest
from pipeline.stages.descriptions import Descriptions, NotKnown
from pipeline.stages.lister import Lister
from pipeline.stages.names import Given, Names, words
from pipeline.stages.restorer import (
    ALREADY,
    LINKS,
    MADE,
    NOT_HELD,
    RESTORED,
    SPECIALS,
    Restorer,
)
from pipeline.stages.setup import ListSetup, RestoreSetup
from pipeline.store import calls, past
from pipeline.store.target import (
    Occupied,
    Root,
    Target,
    make_staging,
    place_in_target,
    remove_leftovers,
    remove_staging,
)
from pipeline.views.opening import Opened, find_run, open_for_reading
from pipeline.views.pulse import Pulse
from pipeline.views.wanted import Request, contents, expected, parts_of, refuse_unknown

_TAGS = {Kind.FILE: message.FILE, Kind.LINK: message.LINK, Kind.SPECIAL: message.SPECIAL}
_PARENT = -1
"""As the number of a worker, which no worker has."""
_NOT_HELD_WHY = "the folder's file system can't hold them, or only root may set them"


def restore(config: Config, request: Request, monitor: ReadMonitor, stop: Callable[[], bool]) -> ReadSummary:
    """Restore, and tell the monitor. stop: asked a few times a second whether to end early."""
    began_s = time.monotonic()
    server = start_fork_server(*RESTORING)
    with open_for_reading(config) as opened:
        run = find_run(opened, request.at)
        parts = parts_of(opened, request)
        rows = contents(opened, parts, request.version) if request.version is not None else ()
        if request.version is None:
            refuse_unknown(opened, run, parts)
        coming = expected(opened, run, parts) if not rows else (len(rows), 0)
        listing = ListSetup(str(opened.state_path), frozenset(opened.places), run, parts, rows)
        with ExitStack() as cleanup:
            setup = _setup(opened, request, monitor, cleanup)
            hands = Local(server, Station(Restorer, setup), Size.of(config.workers.count))
            line = cleanup.enter_context(Line(server, Station(Lister, listing), hands))
            restoring = _Restoring(setup, monitor, coming, parts == (b"",), began_s)
            # In the latest state, a run that is at work or was cut may have left folders half done.
            last = past.runs(opened.state)[-1:]
            restoring.has_pending_folders = run == past.NOW and not all(r.is_complete for r in last)
            try:
                all_came = restoring.follow(line, stop)
            except PipelineError:
                restoring.fail()
                raise
    return restoring.finish(None if run == past.NOW else run, all_came)


# -- where it goes ----------------------------------------------------------------------------------------


def _setup(opened: Opened, request: Request, monitor: ReadMonitor, cleanup: ExitStack) -> RestoreSetup:
    target = _target(opened, request)
    if target is not None and not request.dry_run:
        target, lock = _make_staging(target, request)
        cleanup.callback(calls.close, lock)
        cleanup.callback(_remove_staging, target, monitor)
    return RestoreSetup(
        places=opened.places,
        algorithm=opened.algorithm,
        backup_root=str(opened.root),
        state=str(opened.state_path),
        target=target,
        with_names=len(opened.places) > 1,
        overwrite=request.overwrite,
        dry_run=request.dry_run,
        report=monitor.wants_deeds,
        specials=request.specials,
        numeric_ids=request.numeric_ids,
    )


def _target(opened: Opened, request: Request) -> Root | None:
    """The folder to restore into, resolved once, made where it is missing; None in a dry run without it."""
    try:
        resolved = request.to.resolve()
        if _is_inside(resolved, opened.root):
            raise ArgumentError(
                f"{request.to} lies inside the backup", "Restore into a folder outside of it."
            )
        if not resolved.exists():
            if request.dry_run:
                return None
            resolved.mkdir(mode=0o700, parents=True)
        found = resolved.stat()
        with os.scandir(resolved) as entries:
            is_empty = next(entries, None) is None
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        cause = error.strerror if isinstance(error, OSError) else "its links go round in a circle"
        raise RestoreError(f"can't restore into {request.to}: {cause}") from error
    if not is_empty and request.overwrite == "never":
        raise RestoreError(
            f"{request.to} is not empty",
            "Nothing was touched. Name a new or empty folder, or say --overwrite if-different (or always).",
        )
    return Root(str(resolved), found.st_dev, found.st_ino)


def _is_inside(path: Path, root: Path) -> bool:
    """By identity, not by name."""
    identity = root.stat().st_dev, root.stat().st_ino
    existing = (folder for folder in (path, *path.parents) if folder.exists())
    return any((found.st_dev, found.st_ino) == identity for found in map(os.stat, existing))


def _make_staging(target: Root, request: Request) -> tuple[Root, int]:
    try:
        if request.overwrite != "never":
            remove_leftovers(target)
        return make_staging(target)
    except OSError as error:
        raise RestoreError(f"can't write into {target.path}: {error.strerror}") from error


def _remove_staging(target: Root, monitor: ReadMonitor) -> None:
    try:
        remove_staging(target)
    except (OSError, RestoreError) as error:
        cause = f"{os.fsdecode(target.staging)} in {target.path} is left over and can't be removed: {error}"
        monitor.problem(Problem(Severity.WARNING, None, cause))


# -- at work ----------------------------------------------------------------------------------------------


class _Restoring:
    """Takes the results in order. whole: nothing but everything was asked for."""

    def __init__(
        self,
        setup: RestoreSetup,
        monitor: ReadMonitor,
        expected: tuple[int, int],
        whole: bool,
        began_s: float,
    ) -> None:
        self._setup = setup
        self._monitor = monitor
        self._expected = expected
        self._whole = whole
        self._pulse = Pulse(began_s)
        self._figures: Counter[str] = Counter()
        self.has_pending_folders = False
        self._tried = 0
        self._open: list[Held] = []  # the folders on the way, whose content isn't all there yet
        self._target: Target | None = None
        if setup.target is not None and not setup.dry_run:
            self._target = Target(setup.target, b"parent", setup.overwrite != "never", setup.backup_root)
        self._descriptions = Descriptions(setup.state, setup.numeric_ids)
        self._names = Names(self._target, setup.with_names, digest.hasher(setup.algorithm))
        self._substitute: Restorer | None = None  # for what can't be another name of a file

    def follow(self, line: Line, stop: Callable[[], bool]) -> bool:
        """Take the results. Whether all came."""
        for results in line.results():
            if results is not None:
                self._take(results)
            self._show_progress(line)
            if stop():
                return False
        return True

    def _take(self, results: Results) -> None:
        self._tried += results.files
        self._figures["bytes_read"] += results.bytes_read
        self._figures["bytes_written"] += results.bytes_stored
        for item in results.items:
            tag = item[0]
            if tag == message.FOLDER:
                self._folder(Held(item[1], *item[2]))
            elif tag == message.NAME:
                self._name(Held(item[1], *item[2]))
            elif tag == message.TALLY:
                self._figures[item[1]] += item[2]
            elif tag == message.DONE:
                self._monitor.did(Deed(item[2], item[1], item[3], item[4]))
            elif tag == message.FATAL:
                raise RestoreError(item[1], "What is there is whole. Make room, then restore the rest.")
            else:
                self._problem(item[1], item[2])

    def _problem(self, path: bytes, cause: str) -> None:
        self._figures["errors"] += 1
        self._monitor.problem(Problem(Severity.ERROR, path, cause))

    def _folder(self, held: Held) -> None:
        self._leave(held.path)
        self._figures["folders"] += 1
        is_target_itself = not place_in_target(held.path, self._setup.with_names)
        if self._whole or not is_target_itself:
            self._open.append(held)

    def _name(self, held: Held) -> None:
        """Another name of a file that came before; where it can't be, a file of its own."""
        given = self._names.give(held)
        if given is Given.NOTHING:
            folder, _, name = held.path.rpartition(treepath.SEPARATOR)
            row = held._replace(linked_to=None)[1:]
            alone = [(message.INSIDE, folder), (_TAGS[Kind(held.kind)], name, row)]
            if self._substitute is None:
                self._substitute = Restorer(self._setup, _PARENT, lambda size_bytes: None)
            payload, _, _ = self._substitute.process(message.encode(alone))
            results = message.decode_results(payload)._replace(files=0)
            if not any(item[0] == message.PROBLEM for item in results.items):
                self._names.restored(held)
            self._take(results)
            return
        restored = {Kind.FILE: RESTORED, Kind.LINK: LINKS}.get(Kind(held.kind), MADE)
        self._figures[ALREADY if given is Given.ALREADY else restored] += 1
        if self._setup.report:
            action = "SKIP" if given is Given.ALREADY else "RESTORE"
            self._monitor.did(Deed(action, held.path, words(held), None))

    def _leave(self, path: bytes) -> None:
        """The folders that the walk has left get their metadata: nothing in them changes any more."""
        while self._open and not treepath.is_below(path, self._open[-1].path):
            held = self._open.pop()
            if self._target is None:
                continue
            try:
                place = place_in_target(held.path, self._setup.with_names)
                metadata = self._descriptions.of(held)
                if held.mode == PENDING_MODE and self.has_pending_folders:
                    metadata = metadata._replace(mode=0o700)  # its own is not known yet
                self._target.describe_folder(place, metadata)
            except (OSError, Occupied, NotKnown) as error:
                self._problem(held.path, f"its metadata can't be restored: {error}")

    def _show_progress(self, line: Line) -> None:
        if (elapsed_s := self._pulse.due_s()) is None:
            return
        files, size_bytes = self._expected
        bytes_done = self._figures["bytes_read"] + line.bytes_in_progress
        done = self._figures[RESTORED] + self._figures[LINKS]
        self._monitor.progress(
            Progress(files, self._tried, files, bytes_done, size_bytes, done, elapsed_s, "restoring")
        )

    def fail(self) -> None:
        """What was done until then is told all the same."""
        self._end("failed", None)

    def finish(self, run: int | None, all_came: bool) -> ReadSummary:
        """After staging was removed, which still changed the time of the folder that was restored into."""
        if all_came:
            self._leave(b"")
            self._tell_not_held()
        done = "warnings" if self._figures["errors"] or self._figures["warnings"] else "ok"
        return self._end(done if all_came else "interrupted", run)

    def _tell_not_held(self) -> None:
        """What couldn't be restored as it was, once for each kind of metadata."""
        if self._target is not None:
            own = self._target.take_not_held()
            self._figures.update({NOT_HELD + kind: number for kind, number in own.items()})
        for kind in sorted(name for name in self._figures if name.startswith(NOT_HELD)):
            number = self._figures[kind]
            cause = f"{kind.removeprefix(NOT_HELD)} not restored, of {number:,} entries: {_NOT_HELD_WHY}"
            self._figures["warnings"] += 1
            self._monitor.problem(Problem(Severity.WARNING, None, cause))

    def _end(self, status: str, run: int | None) -> ReadSummary:
        names = {"files": RESTORED, "links": LINKS, "already_there": ALREADY, "folders": "folders"}
        names |= {"specials": SPECIALS, "specials_restored": MADE, "warnings": "warnings"}
        names |= {"errors": "errors", "bytes_read": "bytes_read"}
        figures = {name: self._figures[key] for name, key in names.items()}
        figures["bytes_written"] = self._figures["bytes_written"]
        elapsed_s = self._pulse.elapsed_s
        summary = ReadSummary("restore", run, status, figures, elapsed_s, self._setup.dry_run)
        self._monitor.finished(summary)
        return summary
