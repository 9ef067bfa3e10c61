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
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

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
from pipeline.stages.lister import Lister
from pipeline.stages.restorer import (
    ALREADY,
    LINKS,
    RESTORED,
    SPECIALS,
    Restorer,
    metadata_of,
    place_in_target,
)
from pipeline.stages.setup import ListSetup, RestoreSetup
from pipeline.store import past
from pipeline.store.target import (
    Occupied,
    Root,
    Target,
    make_staging,
    remove_leftovers,
    remove_staging,
)
from pipeline.views.opening import HIGHEST, Opened, find_path, find_run, open_for_reading
from pipeline.views.pulse import Pulse


class Request(NamedTuple):
    """paths: as people write them; none for everything. at: a run or a time. version: a content's number.

    overwrite: `never`, `if-different` or `always`.
    """

    paths: tuple[str, ...]
    to: Path
    at: str | None = None
    version: int | None = None
    overwrite: str = "never"
    dry_run: bool = False


def restore(config: Config, request: Request, monitor: ReadMonitor, stop: Callable[[], bool]) -> ReadSummary:
    """Restore, and tell the monitor. stop: asked a few times a second whether to end early."""
    began_s = time.monotonic()
    server = start_fork_server(*RESTORING)
    with open_for_reading(config) as opened:
        run = find_run(opened, request.at)
        parts = _parts(opened, request)
        rows = _contents(opened, parts, request.version) if request.version is not None else ()
        if request.version is None:
            _refuse_unknown(opened, run, parts)
        expected = _expected(opened, run, parts) if not rows else (len(rows), 0)
        listing = ListSetup(str(opened.state_path), frozenset(opened.places), run, parts, rows)
        workers = Size.of(config.workers.count)
        with ExitStack() as cleanup:
            setup = _setup(opened, request, monitor, cleanup)
            line = cleanup.enter_context(
                Line(server, Station(Lister, listing), Station(Restorer, setup), workers)
            )
            restoring = _Restoring(setup, monitor, expected, parts == (b"",), began_s)
            # In the latest state, a run that is at work or was cut may have left folders half done.
            last = past.runs(opened.state)[-1:]
            restoring.has_pending_folders = run == past.NOW and not all(r.is_complete for r in last)
            try:
                all_came = restoring.follow(line, stop)
            except PipelineError:
                restoring.fail()
                raise
    return restoring.finish(None if run == past.NOW else run, all_came)


# -- what is meant ----------------------------------------------------------------------------------------


def _parts(opened: Opened, request: Request) -> tuple[bytes, ...]:
    """The paths that are wanted, in scan order; none that lies below another. Empty: everything."""
    if request.version is not None and (request.at is not None or not request.paths):
        raise ArgumentError("--version needs the path of a file, and can't be used together with --at")
    found = sorted(find_path(opened, text) or b"" for text in request.paths) or [b""]
    if found[0] == b"" or (len(opened.places) == 1 and found[0] in opened.places):
        return (b"",)
    parts: list[bytes] = []
    for path in found:
        if not parts or (path != parts[-1] and not treepath.is_below(path, parts[-1])):
            parts.append(path)
    return tuple(parts)


def _refuse_unknown(opened: Opened, run: int, parts: tuple[bytes, ...]) -> None:
    """Each path that was named was there at that time; otherwise it is said when it was."""
    for path in parts:
        if not path or next(past.read_held(opened.state, run, path, path + b"\0", with_low=True), None):
            continue
        states = past.held_of(opened.state, path)
        when = "; ".join(_interval_words(states[-3:]))
        shown = treepath.shown(path)
        moment = "is not in the source now" if run == past.NOW else f"was not there at the end of run {run}"
        advice = f"It was there {when}. `history` tells more." if states else ""
        deleted = past.deleted_content(opened.state, path)
        if not states and deleted is not None:
            advice = f"Its last content is still kept: --version {deleted.number} brings it back."
        raise ArgumentError(f"{shown} {moment}", advice)


def _interval_words(states: list[Held]) -> list[str]:
    words = []
    for held in states:
        last = "now" if held.to_run is None else f"run {held.to_run - 1}"
        words.append(f"from run {held.from_run} to {last}")
    return words


def _contents(opened: Opened, parts: tuple[bytes, ...], number: int) -> tuple[Held, ...]:
    """One content of each path, by its number, with the metadata that it had last; each folder once."""
    rows: dict[bytes, Held] = {}
    for path in parts:
        states = [held for held in past.held_of(opened.state, path) if held.number == number]
        files = [held for held in states if Kind(held.kind).has_content]
        unknown = [v for v in past.versions_of(opened.state, path) if v.number == number and not files]
        deleted = past.deleted_content(opened.state, path)
        if not files and deleted is not None and deleted.number == number:
            files = [deleted]  # no history knows it, as after a rebuild
        if files:
            rows |= {folder.path: folder for folder in _folders_above(opened, files[-1])}
            rows[path] = files[-1]
        elif unknown:
            rows[path] = Held.of_version(unknown[0])
        else:
            raise ArgumentError(
                f"{treepath.shown(path)} has no version {number}", "`history` lists those that it has."
            )
    return tuple(rows[path] for path in sorted(rows))


def _folders_above(opened: Opened, held: Held) -> Iterator[Held]:
    """The folders that a content lay in, as they were then."""
    for folder in treepath.parents(held.path):
        yield from past.read_held(opened.state, held.from_run, folder, folder + b"\0", with_low=True)


def _expected(opened: Opened, run: int, parts: tuple[bytes, ...]) -> tuple[int, int]:
    """Files and links that are to come, and their bytes."""
    found = [past.figures(opened.state, run, part, part + b"\1" if part else HIGHEST) for part in parts]
    return sum(files for files, _ in found), sum(size for _, size in found)


# -- where it goes ----------------------------------------------------------------------------------------


def _setup(opened: Opened, request: Request, monitor: ReadMonitor, cleanup: ExitStack) -> RestoreSetup:
    target = _target(opened, request)
    if target is not None and not request.dry_run:
        target, lock = _make_staging(target, request)
        cleanup.callback(os.close, lock)
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

    def _leave(self, path: bytes) -> None:
        """The folders that the walk has left get their metadata: nothing in them changes any more."""
        while self._open and not treepath.is_below(path, self._open[-1].path):
            held = self._open.pop()
            if self._target is None:
                continue
            try:
                place = place_in_target(held.path, self._setup.with_names)
                metadata = metadata_of(held)
                if held.mode == PENDING_MODE and self.has_pending_folders:
                    metadata = metadata._replace(mode=0o700)  # its own is not known yet
                self._target.describe_folder(place, metadata)
            except (OSError, Occupied) as error:
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
        done = "warnings" if self._figures["errors"] else "ok"
        return self._end(done if all_came else "interrupted", run)

    def _end(self, status: str, run: int | None) -> ReadSummary:
        names = {"files": RESTORED, "links": LINKS, "already_there": ALREADY, "folders": "folders"}
        names |= {"specials": SPECIALS, "errors": "errors", "bytes_read": "bytes_read"}
        figures = {name: self._figures[key] for name, key in names.items()}
        figures["bytes_written"] = self._figures["bytes_written"]
        elapsed_s = self._pulse.elapsed_s
        summary = ReadSummary("restore", run, status, figures, elapsed_s, self._setup.dry_run)
        self._monitor.finished(summary)
        return summary
