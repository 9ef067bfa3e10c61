"""`rebuild`: a new state from the files of a backup alone.

    backup → tree walk → tree readers → (order) → here: records and versions → new state

In: a configuration, a monitor, and a way to be asked to stop. Out: a summary. Guarantees: nothing that is
stored is renamed or overwritten; a damaged state is kept aside; what staging still holds goes to quarantine,
since nothing can tell any more what it was for; a cut leaves everything as it was. What files alone can't
tell is said. Fails with StateError where the state is sound, LockedError, BackupSideError.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack

import orjson

from pipeline import layout
from pipeline.config import Config
from pipeline.layout import Parsed, SourcePlace
from pipeline.model import message, treepath
from pipeline.model.errors import Problem, Severity, StateError
from pipeline.model.plan import Action
from pipeline.model.record import Area, Kind, Record, Stat, Version, VersionStatus
from pipeline.model.report import Deed, Progress, ReadMonitor, ReadSummary
from pipeline.pool.children import Station
from pipeline.pool.crew import Size
from pipeline.pool.forkserver import REBUILDING, start_fork_server
from pipeline.pool.line import Line
from pipeline.pool.local import Local
from pipeline.stages.setup import TreeSetup
from pipeline.stages.stored_tree import TreeReader, TreeWalk
from pipeline.store import calls, extended
from pipeline.store.backup import Tree, open_tree
from pipeline.store.clocks import first_setting, read_clocks
from pipeline.store.limits import Limits, probe
from pipeline.store.rebuilding import NewState, is_sound
from pipeline.store.state import source_places, translated_errors
from pipeline.store.system import backup_side_errors, boot_id, rename_new
from pipeline.views.places import places_of
from pipeline.views.pulse import Pulse

UNKNOWN = (
    "files alone can't tell: earlier runs and their times, set-id bits, hard links, owners and attributes"
    " that the backup's files don't have, and what was rotten before"
)


def rebuild(config: Config, monitor: ReadMonitor, stop: Callable[[], bool], dry_run: bool) -> ReadSummary:
    """Make the new state, and tell the monitor. stop: asked a few times a second whether to end early."""
    began_s, started_ns = time.monotonic(), time.time_ns()
    server = start_fork_server(*REBUILDING)
    if not config.backup_root.is_dir():
        raise StateError(f"there is no backup in {config.backup_root}", "Is its disk mounted?")
    with open_tree(config.backup_root, started_ns, dry_run) as tree, ExitStack() as cleanup:
        if is_sound(tree.own):
            raise StateError(
                "state.db is sound; nothing was rebuilt",
                "If a new one is wanted all the same, move .pipeline/state.db away first.",
            )
        with backup_side_errors(), translated_errors():
            state = NewState(tree.new_state_in)
        cleanup.callback(state.close)
        rebuilding = _Rebuilding(config, tree, state, monitor, began_s)
        run = rebuilding.begin(started_ns)
        setup = TreeSetup(os.fspath(tree.root), config.hash_algorithm)
        hands = Local(server, Station(TreeReader, setup), Size.of(config.workers.count))
        with Line(server, Station(TreeWalk, setup), hands) as line:
            for results in line.results():
                if results is not None:
                    rebuilding.take(results.items, results.bytes_read)
                rebuilding.show_progress(line)
                if stop():
                    return rebuilding.finish(None, "interrupted")
        with backup_side_errors(), translated_errors():
            return rebuilding.finish(run, rebuilding.conclude(run, started_ns))


class _Rebuilding:
    """From what lies in the backup to the rows of a state."""

    def __init__(
        self, config: Config, tree: Tree, state: NewState, monitor: ReadMonitor, began_s: float
    ) -> None:
        self._config = config
        self._tree = tree
        self._state = state
        self._monitor = monitor
        self._pulse = Pulse(began_s)
        self._run = 0
        self._figures: Counter[str] = Counter()
        self._places: tuple[SourcePlace, ...] = ()
        self._respelled: dict[bytes, set[bytes]] = {}

    def begin(self, started_ns: int) -> int:
        """The sources and their places, and the number of this run."""
        staging = self._tree.staging_handle
        with backup_side_errors():
            holds_all = staging is None or probe(staging) == Limits()
        found, self._respells = places_of(self._config, self._tree.root, self._tree.own, holds_all)
        self._respelled = {name: set() for name in found}
        self._places = tuple(source_places(found.items(), self._respelled).values())
        self._state.add_sources(found)
        self._run = self._state.begin_run(started_ns, boot_id())
        for place in self._places:
            if place.at_root:
                stat, packed = Stat.of(os.stat(self._tree.root)), extended.read(os.fsencode(self._tree.root))
                record = self._record(place.name, Kind.FOLDER, Area.LIVE, stat, None, None, packed)
                self._state.add_record(record)
        return self._run

    def take(self, items: Iterable[list[object]], bytes_read: int) -> None:
        self._figures["bytes_read"] += bytes_read
        with translated_errors():
            for item in items:
                if item[0] == message.STORED:
                    self._stored(*item[1:])  # type: ignore[arg-type]
                else:
                    self._tell(Severity.ERROR, str(item[2]), item[1])  # type: ignore[arg-type]

    def _stored(
        self,
        at: bytes,
        kind: int,
        found: list[int],
        content: bytes | None,
        target: bytes | None,
        packed: bytes,
    ) -> None:
        parsed = layout.parse(at, self._places, learns=self._respells)
        if kind == Kind.FOLDER and (parsed is None or parsed.area is not Area.LIVE):
            return  # the folders of the areas are only ways to what they hold
        if parsed is None or kind == Kind.SPECIAL:
            self._tell(Severity.WARNING, "it has no place in a backup; left alone", at)
            return
        path = treepath.inside(parsed.source, parsed.relative)
        for respelled in parsed.respelled - self._respelled[parsed.source]:
            self._respelled[parsed.source].add(respelled)
            self._state.respell(treepath.inside(parsed.source, respelled))
        stat = Stat(*found)
        if parsed.area is None:
            self._version(at, path, parsed, Kind(kind), stat, content, target)
        else:
            record = self._record(path, Kind(kind), parsed.area, stat, content, target, packed)
            self._file(at, record, parsed)

    def _file(self, at: bytes, record: Record, parsed: Parsed) -> None:
        twice = self._state.add_record(record)
        if twice is None:
            self._figures["folders" if record.kind == Kind.FOLDER else "files"] += 1
        else:
            place = next(place for place in self._places if place.name == parsed.source)
            copy = layout.stored(place, parsed.relative, twice)
            self._tell(Severity.WARNING, "its path is stored elsewhere, too; this copy is left alone", copy)
        if twice != record.area:
            self._did(record.path, at)

    def _record(
        self,
        path: bytes,
        kind: Kind,
        area: Area,
        stat: Stat,
        content: bytes | None,
        target: bytes | None,
        packed: bytes,
    ) -> Record:
        """What the source's file was is not known (its inode and ctime): the next run reads it again."""
        size = 0 if kind == Kind.FOLDER else stat.size
        return Record(
            path, kind, stat.mode, stat.uid, stat.gid, stat.mtime_ns, 0, 0, size, content, target, area, None,
            1, 0, self._run, 1, -1, self._state.keep_attributes(packed),
        )  # fmt: skip

    def _version(
        self,
        at: bytes,
        path: bytes,
        parsed: Parsed,
        kind: Kind,
        stat: Stat,
        content: bytes | None,
        target: bytes | None,
    ) -> None:
        number = parsed.number
        if parsed.marker == b"pinned":
            self._state.pin(path, number)
        elif parsed.marker == b"pruned":
            gone = VersionStatus.PRUNED
            self._state.add_version(Version(path, number, Kind.FILE, 0, None, None, 0, 0, gone, self._run))
        else:
            self._figures["versions"] += 1
            kept = VersionStatus.KEPT
            self._state.add_version(
                Version(path, number, kind, stat.size, content, target, stat.mtime_ns, 0, kept, None)
            )
            self._did(path, at)

    def _did(self, path: bytes, at: bytes) -> None:
        if self._monitor.wants_deeds:
            self._monitor.did(Deed("REBUILD", path, "", at))

    def conclude(self, run: int, started_ns: int) -> str:
        """The rest of the state, and then the exchange. Returns the status."""
        files, size_bytes = self._state.conclude(run)
        if self._tree.staging_handle is not None and self._tree.quarantine_handle is not None:
            self._quarantine_staging(self._tree.staging_handle, self._tree.quarantine_handle)
        status = "warnings" if self._figures["warnings"] or self._figures["errors"] else "ok"
        counts = {action.lower(): 0 for action in Action} | {"files": self._figures["files"]}
        counts |= {name: self._figures[name] for name in ("warnings", "errors", "bytes_read")}
        settings: dict[str, int | str] = {"hash_algorithm": self._config.hash_algorithm}
        settings |= {"present_files": files, "present_bytes": size_bytes, "guard_files": files}
        settings |= [first_setting(read_clocks())]
        self._state.end(run, time.time_ns(), status, orjson.dumps(counts | {"rebuilt": 1}).decode(), settings)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(started_ns // 10**9))
        aside = f"state.db.damaged-{stamp}"
        if self._tree.staging_handle is not None and self._state.finish(aside):
            self._say(f"the damaged state is kept as .pipeline/{aside}")
        for place in self._places:
            name = treepath.escaped(place.name)
            self._say(f"source {name} lies " + ("at the root" if place.at_root else f"in {name}/"))
        self._say(UNKNOWN)
        return status

    def _quarantine_staging(self, staging: int, quarantine: int) -> None:
        """What a lost state had begun: never swept, because it might be the only copy of something."""
        for name in sorted(map(os.fsencode, calls.listdir(staging))):
            aside = b"staging-%d-%s" % (self._run, name)
            rename_new(name, aside, from_folder=staging, to_folder=quarantine)
            cause = f"what it was for is not known; moved to .pipeline/quarantine/{os.fsdecode(aside)}"
            self._tell(Severity.WARNING, cause, b".pipeline/staging/" + name)

    def _say(self, text: str) -> None:
        """Something to know that is no problem."""
        self._monitor.note(text)

    def _tell(self, severity: Severity, cause: str, at: bytes | None) -> None:
        self._figures["warnings" if severity is Severity.WARNING else "errors"] += 1
        self._monitor.problem(Problem(severity, None, cause, at))

    def show_progress(self, line: Line) -> None:
        if (elapsed_s := self._pulse.due_s()) is None:
            return
        done = self._figures["files"] + self._figures["versions"]
        total = line.files_found if line.walk_has_ended else None
        size_bytes = self._figures["bytes_read"] + line.bytes_in_progress
        self._monitor.progress(Progress(done, done, total, size_bytes, None, done, elapsed_s, "rebuilding"))

    def finish(self, run: int | None, status: str) -> ReadSummary:
        names = ("files", "versions", "folders", "warnings", "errors", "bytes_read")
        figures = {name: self._figures[name] for name in names}
        dry_run = self._tree.staging_handle is None
        summary = ReadSummary("rebuild", run, status, figures, self._pulse.elapsed_s, dry_run)
        self._monitor.finished(summary)
        return summary
