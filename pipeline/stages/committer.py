"""The committer: takes the results in scan order, has each decided, and puts the plans into the journal.

In: batches of results. Out: plans in the journal. Guarantees: it alone decides and writes, in one order
(promise 4); deletions, promotions and retention come after the whole scan, from the state (promise 1); a
change that would clear too much, or whose new entry can't be read, is held back with all that lies below it.
Problems with single files are noted in their turn; what ends the run is raised.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pipeline import planner
from pipeline.model import message, treepath
from pipeline.model.errors import BackupSideError, Problem, Severity
from pipeline.model.message import Results
from pipeline.model.plan import Action, Plan, Store
from pipeline.model.record import HAVE_CONTENT, KIND_NAMES, KINDS, Area, Entry, Kind, Record, Stat
from pipeline.model.report import Counts, Excluded
from pipeline.planner import Context, Facts
from pipeline.retention import Rules as RetentionRules
from pipeline.stages.guard import Guard
from pipeline.stages.hard_links import find_names
from pipeline.stages.pruner import Pruner
from pipeline.store.journal import Journal
from pipeline.store.limits import Fitting
from pipeline.store.operation import Identity, Place
from pipeline.store.prospects import Prospects
from pipeline.store.spool import PathSpool
from pipeline.store.staging import Damaged, Staged, Staging
from pipeline.store.state import State
from pipeline.store.system import backup_side_errors

MOST_ABSENT = 20_000
_NAMES_DUE = "names_due"


class Retention(NamedTuple):
    """What the pruner goes by (`stages.pruner`)."""

    rules: RetentionRules
    prospects: Prospects | None
    now_ns: int | None


class Rules(NamedTuple):
    """What decisions depend on besides what was found. min_duplicate_size: smaller files are never
    duplicates. duplicates_share: whether they may share what is stored."""

    min_duplicate_size: int
    duplicates_share: bool
    retention: Retention


class Committer:
    """promotions_due: the run before was cut. finds_names: this one looks at everything. fitting: None where
    the backup's file system holds all."""

    def __init__(
        self,
        journal: Journal,
        state: State,
        staging: Staging | None,
        run: int,
        rules: Rules,
        counts: Counts,
        missing: PathSpool,
        excluded: PathSpool,
        guard: Guard,
        promotions_due: bool,
        finds_names: bool,
        fitting: Fitting | None = None,
    ) -> None:
        self._journal = journal
        self._state = state
        self._staging = staging
        # Of all sources ever configured: promotions and retention go by the state.
        self._contexts = {name: Context(place, run) for name, place in state.places().items()}
        self._rules = rules
        by, prospects, now_ns = rules.retention
        self._pruner = Pruner(
            state, prospects, by, self._contexts, now_ns, self._execute, journal.close_group
        )
        self._counts = counts
        self._missing = missing
        self._excluded = excluded
        self._missing_count = 0  # of both
        self._guard = guard
        self._promotions_due = promotions_due
        # Whether which paths are names of one file may have changed. Only a look at all of them tells.
        self._names_due = promotions_due or bool(state.setting(_NAMES_DUE))
        self._finds_names = finds_names
        self._fitting = fitting
        self._held: bytes | None = None
        self._open_folders: list[tuple[Record, Entry]] = []
        self._inside = b""  # what the paths below the innermost of them begin with
        self.absent: set[bytes] = set()  # missing, but not to count as deleted
        self.present_files = 0  # the change of the state's figures by this run
        self.present_bytes = 0

    # -- during the scan ----------------------------------------------------------------------------------

    def take(self, results: Results) -> None:
        """A batch's results, the next in scan order."""
        counts = self._counts
        counts.files += results.files
        counts.specials += results.specials
        counts.bytes_read += results.bytes_read
        counts.bytes_stored += results.bytes_stored
        counts.by_action[Action.SKIP] += results.unchanged
        self._state.look_ahead([item[4] for item in results.items if item[0] == message.FOUND and item[9]])
        for item in results.items:
            tag = item[0]
            if tag == message.FATAL:
                raise BackupSideError(
                    item[1],
                    "What was committed stays valid. Mend the cause, then run again: it goes on from there.",
                )
            if not item[1].startswith(self._inside):
                self._leave_folders(item[1])
            if self._is_held(item[1]):
                self._drop(item)
            elif tag == message.FOUND:
                self._found(item)
            elif tag == message.UNCHANGED:
                self._journal.note(item[1])
            elif tag in (message.MISSING, message.EXCLUDED):
                with backup_side_errors():
                    (self._missing if tag == message.MISSING else self._excluded).add(item[1])
                self._missing_count += Kind(item[2]).has_content and self._guard.counts(item[1])
            elif tag == message.ABSENT:
                self._hand_back(item[1])
            elif tag == message.LEFT_OUT:
                self._journal.note(Excluded(item[1], item[2] == Kind.FOLDER, item[3]))
            elif tag == message.GONE:
                counts.vanished += 1
                self._held = item[1]
            else:
                self._note(Severity(item[3]), item[1], item[2])
                self._held = item[1]

    def _hand_back(self, path: bytes) -> None:
        """Too many to be kept: their sources stand for them."""
        if treepath.source_name(path) in self.absent:
            return
        self.absent.add(path)
        if len(self.absent) > MOST_ABSENT:
            self.absent = set(map(treepath.source_name, self.absent))

    def _is_held(self, path: bytes) -> bool:
        """Whether a folder above was held back, or couldn't be read: nothing below it is decided."""
        return self._held is not None and treepath.is_below(path, self._held)

    def _drop(self, item: list[Any]) -> None:
        if item[0] == message.FOUND and item[9] is not None:
            self._discard(item[9])

    def _discard(self, staged: bytes) -> None:
        if self._staging is not None:
            with backup_side_errors():
                self._staging.discard(staged)

    def _note(self, severity: Severity, path: bytes | None, cause: str) -> None:
        self._journal.note(Problem(severity, path, cause))

    def _found(self, item: list[Any]) -> None:
        _, path, kind, found, digest, target, unsettled, known, damage, staged, inode, warning, packed = item
        attributes = self._state.keep_attributes(packed) if packed else None
        entry = Entry(path, KINDS[kind], Stat._make(found), digest, target, unsettled, attributes)
        if self._fitting is not None and self._is_refused(entry, not known):
            self._drop(item)
            return
        new = Staged(staged, Identity(inode, entry.stat.size, digest, None)) if staged is not None else None
        if not known and new is not None:
            self._store_first(entry, new)
            if warning is not None:
                self._note(Severity.WARNING, path, warning)
            return
        record = self._state.record(path) if known else None
        if record is not None and not self._clear_the_way(entry, record):
            self._drop(item)
            return
        facts = Facts(record, self._live_at(entry), damage)
        self._decide(entry, facts, new)
        if warning is not None:
            self._note(Severity.WARNING, path, warning)

    def _is_refused(self, entry: Entry, is_new: bool) -> bool:
        """Whether the backup's file system can't hold it, or what lies below it then."""
        assert self._fitting is not None, "the caller has looked"
        place = self._context(entry.path).place
        why = self._fitting.why_not(entry.path, place, entry.kind, is_new)
        if why is None:
            return False
        self._note(Severity.WARNING, entry.path, why)
        self._held = entry.path
        return True

    def _store_first(self, entry: Entry, new: Staged) -> None:
        """A file at a path of which nothing is known: most of a first run, and therefore straight on."""
        facts = Facts(None, self._live_at(entry))
        plan = planner.plan_entry(entry, facts, self._context(entry.path))
        self._journal.execute(plan, new, self._original_of(plan.record))
        self.present_files += 1
        self.present_bytes += entry.stat.size
        self._names_due |= entry.stat.links > 1

    def _live_at(self, entry: Entry) -> bytes | None:
        """Another path that holds the content live. Empty files are never duplicates."""
        if entry.digest is None or entry.stat.size < max(1, self._rules.min_duplicate_size):
            return None
        return self._state.live_at(entry.digest, entry.stat.size, entry.path)

    def _original_of(self, record: Record) -> bytes | None:
        """Where the content of a duplicate is stored live, if that is to be shared."""
        if not self._rules.duplicates_share or record.original is None:
            return None
        original = self._state.record(record.original)
        if original is None or (original.digest, original.area) != (record.digest, Area.LIVE):
            return None
        return planner.stored_at(original, self._context(original.path).place)

    def _decide(self, entry: Entry, facts: Facts, new: Staged | None) -> None:
        context = self._context(entry.path)
        plan = planner.plan_entry(entry, facts, context)
        try:
            self._execute(plan, new)
        except Damaged as damaged:
            plan = planner.plan_entry(entry, facts._replace(damage=damaged.how), context)
            unstaged = new is None and entry.kind == Kind.FILE and self._staging is not None
            if unstaged and _stores(plan) and facts.record is not None:
                # It was still there when the worker looked, so nothing was staged.
                plan = planner.plan_forget(facts.record, damaged.how, context)
            self._execute(plan, new)
        if entry.kind == Kind.FOLDER and plan.record.mode != entry.stat.mode:
            self._open_folders.append((plan.record, entry))
            self._inside = entry.path + treepath.SEPARATOR

    def _execute(self, plan: Plan, new: Staged | None = None) -> None:
        if new is not None and not _stores(plan):
            self._discard(new.name)
            new = None
        if plan.action is Action.SKIP and plan.record == plan.before:
            self._counts.by_action[Action.SKIP] += 1
            self._journal.note(plan.path)
            return
        self._journal.execute(plan, new, self._original_of(plan.record))
        self._keep_figures(plan)
        if plan.warning is not None:
            self._note(Severity.WARNING, plan.path, plan.warning)

    def _keep_figures(self, plan: Plan) -> None:
        before, after = plan.before, plan.record
        self._names_due |= after.links > 1 or (before is not None and before.links > 1)
        if after.kind in HAVE_CONTENT and after.is_present:
            self.present_files += 1
            self.present_bytes += after.size
        if before is None or not before.is_present or before.kind not in HAVE_CONTENT:
            return
        self.present_files -= 1
        self.present_bytes -= before.size
        if before.kind == Kind.FILE:
            self._promotions_due |= not after.is_present or after.kind != Kind.FILE

    def _context(self, path: bytes) -> Context:
        return self._contexts[treepath.source_name(path)]

    # -- folders and changes of type ----------------------------------------------------------------------

    def _leave_folders(self, path: bytes) -> None:
        """The folders that the walk has left get their own modes."""
        while self._open_folders and not path.startswith(self._inside):
            pending, entry = self._open_folders.pop()
            self._inside = self._open_folders[-1][1].path + treepath.SEPARATOR if self._open_folders else b""
            self._execute(planner.plan_open_folder(pending, entry, self._context(pending.path)))

    def _clear_the_way(self, entry: Entry, record: Record) -> bool:
        """Where a path has changed its type, clear what its old type held. False: the change is held back."""
        below = treepath.below(entry.path)
        # A deleted folder may still hold what was excluded after it was backed up.
        was_folder = record.kind == Kind.FOLDER and (record.is_present or self._state.has_present(*below))
        if was_folder and entry.kind != Kind.FOLDER:
            doomed = self._state.count_present(*below)
        elif record.is_present and Kind(record.kind).has_content and not entry.kind.has_content:
            doomed = 1
        else:
            return True
        change = f"{KIND_NAMES[Kind(record.kind)]} became a {KIND_NAMES[entry.kind]}"
        if (held_back := self._guard.ask(doomed)) is not None:
            self._note(Severity.WARNING, entry.path, f"{change}: {held_back}")
            self._held = entry.path
            return False
        if was_folder:
            for inner in _content_first(self._state.records(*below)):
                if inner.is_present:
                    self._delete(inner, change)
                elif inner.kind == Kind.FOLDER:
                    self._execute(planner.plan_clear_folder(inner, self._context(inner.path)))
            self._journal.close_group()
            self._held = entry.path  # what is missing below it was just deleted, and counted
        return True

    # -- after the scan -----------------------------------------------------------------------------------

    def conclude(self) -> Iterator[None]:
        """Deletions, promotions and retention: from the state, so that what a cut run left is done now.

        Yields after each decision, so that the caller can look around, and stop.
        """
        self._leave_folders(b"")
        self._journal.close_group()
        yield from self._delete_missing()
        self._journal.close_group()
        if self._promotions_due:
            yield from self._promote()
            self._journal.close_group()
        if self._names_due and self._finds_names:
            yield from find_names(self._state, self._execute, self._context)
            self._journal.close_group()
        self._state.set_setting(_NAMES_DUE, int(self._names_due and not self._finds_names))
        yield from self._pruner.apply()
        self._journal.close_group()

    def _delete_missing(self) -> Iterator[None]:
        if self._missing_count and (held_back := self._guard.ask(self._missing_count)) is not None:
            self._note(Severity.WARNING, None, held_back)
            return
        for paths, reason in ((self._missing, "no longer in the source"), (self._excluded, "excluded now")):
            with backup_side_errors():
                paths.finish()
            for record in _content_first(self._present(paths)):
                self._delete(record, reason)
                yield

    def _present(self, paths: Iterable[bytes]) -> Iterator[Record]:
        """Their records as they are now: a change of type may have cleared some of them meanwhile."""
        for path in paths:
            record = self._state.record(path)
            if record is not None and record.is_present:
                yield record

    def _delete(self, record: Record, reason: str) -> None:
        context = self._context(record.path)
        if Kind(record.kind).has_content:
            while in_the_way := self._state.deleted_in(*treepath.below(record.path)):
                for other in in_the_way:
                    self._execute_or(other, lambda r, damage: planner.plan_make_way(r, damage, context))
        self._execute_or(record, lambda r, damage: planner.plan_delete(r, damage, context, reason))

    def _execute_or(self, record: Record, plan: Any) -> None:
        """Execute the plan of a record, or the one for a damaged stored file."""
        try:
            self._execute(plan(record, None))
        except Damaged as damaged:
            self._execute(plan(record, damaged.how))

    def _promote(self) -> Iterator[None]:
        after = b""
        while orphans := self._state.orphaned_duplicates(after):
            for record in orphans:
                assert record.digest is not None, "a duplicate has a content"
                live_at = self._state.live_at(record.digest, record.size, record.path)
                if live_at is not None:
                    self._execute(planner.plan_new_original(record, live_at))
                else:
                    context = self._context(record.path)
                    self._execute_or(record, lambda r, damage, c=context: planner.plan_promote(r, damage, c))
                yield
            after = orphans[-1].path

    def forget(self, lost: Iterable[Place]) -> None:
        """Contents that were to get a name and are nowhere: forgotten, so that the next run stores them."""
        for operation in lost:
            record = self._state.record(operation.owner)
            if operation.number:
                context = self._context(operation.owner)
                self._state.lose_version(operation.owner, operation.number, context.run)
                self._note(Severity.WARNING, operation.owner, f"its version {operation.number} is lost")
            elif record is not None and planner.is_stored(record):
                self._execute(planner.plan_forget(record, "lost", self._context(operation.owner)))


def _stores(plan: Plan) -> bool:
    return Store in map(type, plan.steps)


def _content_first(records: Iterable[Record]) -> Iterator[Record]:
    """Records in scan order, but each folder after what lies below it."""
    folders: list[Record] = []
    for record in records:
        while folders and not treepath.is_below(record.path, folders[-1].path):
            yield folders.pop()
        if record.kind == Kind.FOLDER:
            folders.append(record)
        else:
            yield record
    yield from reversed(folders)
