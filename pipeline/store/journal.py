"""The journal: executes plans in groups, so that a cut at any instant leaves what recovery can finish.

In: plans, with the staged files of their contents. Out: stored files and state that agree.

The write order of a group, and why (promises 1, 2, 5):

1. *Stage.* Every input of an operation has a name in `staging/`: the workers wrote new contents there, old
   ones get a second name. So nothing that is renamed or unlinked later can be the only name of a content.
2. *Barrier* (`store.barrier`). The staged bytes, and the renames of the group before, are on the disk.
   Without it, a file system may write a rename before the bytes, and a power cut leaves an empty file under a
   good name.
3. *One transaction*: the group before is forgotten, this group's state and intents are written. Its commit is
   the instant at which the group counts.
4. *Apply*: the renames. A cut from here on is finished by `recover`, which does all intents again.

A group closes by count, bytes or age, and before a plan that touches a name that the open group touches.
With `durability = "fast"` step 2 is left out; the order of the rest is enough against killed processes.
Fails with BackupSideError where the backup side can't be written; then the open group is as if never begun.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pipeline.model.attributes import for_stored, pack
from pipeline.model.errors import Problem
from pipeline.model.plan import (
    Archive,
    DeleteVersion,
    MakeFolder,
    Move,
    OpenFolder,
    Pin,
    Plan,
    Remove,
    RemoveFolder,
    SetMetadata,
    Step,
    Store,
)
from pipeline.model.record import Kind, Record, Stat, Version
from pipeline.model.report import Excluded
from pipeline.store import system
from pipeline.store.files import StoredFiles
from pipeline.store.metadata import permissions
from pipeline.store.operation import (
    Describe,
    Identity,
    MakePrivate,
    Mark,
    OpenUp,
    Operation,
    Place,
    RemoveEmpty,
)
from pipeline.store.operation import Remove as RemoveName
from pipeline.store.sharing import Sharing
from pipeline.store.staging import Adopted, Damaged, Expected, Staged, Staging
from pipeline.store.state import State
from pipeline.store.system import backup_side_error, backup_side_errors

GROUP_OPERATIONS = 4096
GROUP_BYTES = 256 << 20
GROUP_AGE_S = 5.0
_GROUP_EVENTS = 16_384

Event = Plan | bytes | Problem | Excluded
"""What happened, in plan order: a plan, the path of something unchanged, a problem, or what is left out."""


class Journal:
    """barrier: called with the operations that are about to be recorded, and with those that were carried out
    since the last call (none where the system syncs all at once). emit: called with each event after its
    group was carried out. dry_run: plans change the (scratch) state and are emitted, nothing else happens.
    inspect: whether a dry run looks at stored files. sharing: how duplicates share what is stored, None where
    they don't."""

    def __init__(
        self,
        state: State,
        staging: Staging,
        files: StoredFiles,
        barrier: Callable[[Sequence[Operation], Sequence[Operation]], None],
        run: int,
        emit: Callable[[Event], None],
        dry_run: bool,
        inspect: bool,
        sharing: Sharing | None = None,
    ) -> None:
        self._state = state
        self._staging = staging
        self._files = files
        self._barrier = barrier
        self._run = run
        self._emit = emit
        self._dry_run = dry_run
        self._inspect = inspect
        self._sharing = sharing
        self._placed: dict[bytes, bytes] = {}  # names that the open group makes: what they are in staging
        self._events: list[tuple[Event, list[Operation]]] = []
        self._names: set[bytes] = set()
        self._operations = 0
        self._bytes = 0
        self._opened_s = 0.0
        self._pending = False  # whether the state has intents that are not known to be on the disk
        self._done: list[Operation] = []  # these, where the barrier has to know them
        self._lost: list[Place] = []

    # -- the open group -----------------------------------------------------------------------------------

    def execute(self, plan: Plan, new: Staged | None = None, original: bytes | None = None) -> None:
        """Put a plan into the group. Raises Damaged, before anything is changed, where a stored file that it
        needs isn't what the state says: then another plan is needed.

        original: the stored file that has the same content, for one that may share it.
        """
        if new is not None and plan.before is None and not self._dry_run:
            self._store_first(plan, new, original)
            return
        names = _names_of(plan)
        if not self._names.isdisjoint(names):
            self.close_group()
        try:
            operations = self._stage(plan, new, original)
        except OSError as error:
            raise backup_side_error(error) from error
        self._state.write(plan, self._run)
        if not self._events:
            self._opened_s = time.monotonic()
        self._events.append((plan, operations))
        self._names.update(names)
        self._placed |= {made.target: made.staged for made in operations if isinstance(made, Place)}
        self._operations += len(operations)
        self._bytes += new.identity.size if new is not None else 0
        self._bytes += sum(len(made.attributes) for made in operations if isinstance(made, Describe | OpenUp))
        self._close_if_full()

    def _store_first(self, plan: Plan, new: Staged, original: bytes | None) -> None:
        """The same for a file at a new path, whose only step is its `Store`: there are millions of them."""
        to = plan.stored_at
        assert to is not None, "a file that was staged is stored"
        if to in self._names:
            self.close_group()
        new = self._shared(new, original)
        self._state.write(plan, self._run)
        if not self._events:
            self._opened_s = time.monotonic()
        self._events.append((plan, [Place(new.name, to, new.identity, plan.path, 0, None)]))
        self._names.add(to)
        self._placed[to] = new.name
        self._operations += 1
        self._bytes += new.identity.size
        self._close_if_full()

    def _shared(self, new: Staged, original: bytes | None) -> Staged:
        """What is stored in its place if it may share the original."""
        if original is None or self._sharing is None:
            return new
        staged = self._placed.get(original)
        if staged is None and original in self._names:
            return new  # it is on its way somewhere else
        try:
            shared, problem = self._sharing.share(new, staged, original)
        except OSError as error:
            raise backup_side_error(error) from error
        if problem is not None:
            self.note(problem)
        return shared

    def note(self, event: Event) -> None:
        """Something that changes nothing, emitted in its turn."""
        if self._events:
            self._events.append((event, []))
            self._close_if_full()
        else:
            self._emit(event)

    def close_if_old(self) -> None:
        """Called now and then, so that no group stays open while the line is at something large."""
        if self._events:
            self._close_if_full()

    def _close_if_full(self) -> None:
        if (
            self._operations >= GROUP_OPERATIONS
            or self._bytes >= GROUP_BYTES
            or len(self._events) >= _GROUP_EVENTS
            or time.monotonic() - self._opened_s >= GROUP_AGE_S
        ):
            self.close_group()

    def close_group(self) -> None:
        """Steps 2 to 4."""
        events, self._events = self._events, []
        operations = [operation for _, group in events for operation in group]
        self._names, self._placed, self._operations, self._bytes = set(), {}, 0, 0
        if self._dry_run:
            self._state.commit()
            for event, _ in events:
                self._emit(event)
            return
        with backup_side_errors():
            if operations:
                self._barrier(operations, self._done)
                self._state.replace_intents(operations)
                self._pending = True
            self._state.commit()
            for event, group in events:
                if group:
                    self._lost += self._files.apply(group)
                self._emit(event)
                for problem in self._files.take_problems():
                    self._emit(problem)
            if operations:
                self._done = [] if system.syncs_at_once() else operations

    def take_lost(self) -> list[Place]:
        """The placements, since this was asked last, whose content was gone before it got its name."""
        lost, self._lost = self._lost, []
        return lost

    def settle(self) -> None:
        """After the last group: its renames are on the disk too, and no intent is left. Not yet committed."""
        if self._pending:
            with backup_side_errors():
                self._barrier((), self._done)
            self._state.replace_intents([])
            self._pending, self._done = False, []

    # -- step 1: from a plan's steps to operations --------------------------------------------------------

    def _stage(self, plan: Plan, new: Staged | None, original: bytes | None) -> list[Operation]:
        operations: list[Operation] = []
        names: list[bytes] = []
        old: Adopted | None = None
        try:
            for step in plan.steps:
                if isinstance(step, Archive | Move):
                    old = self._adopt(step.at, plan)
                    names.append(old.name)
                    number = plan.archived.number if plan.archived is not None else 0
                    operations.append(
                        Place(old.name, step.to, old.identity, plan.path, number, None, step.at)
                    )
                    if isinstance(step, Move):
                        operations.append(RemoveName(step.at, old.origin))
                elif not self._dry_run:
                    operations += self._operations_of(step, plan, new, old, original)
        except Damaged:
            if not self._dry_run:
                for name in names:
                    self._staging.discard(name)
            raise
        return operations if not self._dry_run else []

    def _adopt(self, at: bytes, plan: Plan) -> Adopted:
        assert plan.before is not None, "only what is stored is archived or moved"
        expected = _expected(plan.before)
        if not self._dry_run:
            return self._staging.adopt(at, expected)
        # What this dry run "has done" itself isn't there to be looked at.
        if self._inspect and plan.before.since_run != self._run:
            self._staging.inspect(at, expected)
        nothing = Identity(0, expected.size, expected.digest, expected.target)
        return Adopted(b"", nothing, nothing)

    def _operations_of(
        self, step: Step, plan: Plan, new: Staged | None, old: Adopted | None, original: bytes | None
    ) -> list[Operation]:
        record = plan.record
        match step:
            case Store(to, replaces):
                staged = self._shared(new, original) if new is not None else self._new_link(plan)
                replaced = old.origin if replaces and old is not None else None
                return [Place(staged.name, to, staged.identity, plan.path, 0, replaced)]
            case Remove(at):
                assert old is not None, "an Archive of the same plan comes first"
                return [RemoveName(at, old.origin)]
            case MakeFolder(at):
                return [MakePrivate(at)]
            case OpenFolder(at, mode, uid, gid):
                return [OpenUp(at, mode, uid, gid, self._stored_attributes(record))]
            case RemoveFolder(at):
                return [RemoveEmpty(at)]
            case SetMetadata(at):
                inode = old.identity.inode if old is not None else self._staging.inode(at)
                if old is None and (own := self._own(at, plan)) is not None:
                    return [own]
                return [
                    Describe(
                        at, inode, record.kind == Kind.LINK, permissions(record.mode),
                        record.uid, record.gid, record.mtime_ns, self._stored_attributes(record),
                    )
                ]  # fmt: skip
            case DeleteVersion(at, mark):
                assert plan.archived is not None, "retention names the version that goes"
                gone = RemoveName(at, self._staging.identify(at, _expected(plan.archived)))
                return [gone] if mark is None else [Mark(mark), gone]
            case Pin(at):
                return [Mark(at)]
            case _:
                raise AssertionError(f"{step} is handled where contents are adopted")

    def _stored_attributes(self, record: Record) -> bytes:
        """The group, and its intents, hold no others."""
        return pack(for_stored(self._state.attributes(record.attributes)))

    def _own(self, at: bytes, plan: Plan) -> Place | None:
        """A stored file that has names elsewhere, too, becomes one of its own with its new metadata. It is
        made before the group counts, so that a full disk is met by then."""
        record = plan.record
        found = Stat(record.mode, record.uid, record.gid, record.mtime_ns, 0, 0, record.size)
        wanted = for_stored(self._state.attributes(record.attributes))
        separated = self._staging.separate(at, _expected(record), found, wanted)
        if separated is None:
            return None
        staged, shared = separated
        return Place(staged.name, at, staged.identity, plan.path, 0, shared, at)

    def _new_link(self, plan: Plan) -> Staged:
        record = plan.record
        assert record.target is not None, "a file's content comes staged from a worker"
        found = Stat(
            record.mode, record.uid, record.gid, record.mtime_ns, record.ctime_ns, record.inode, record.size
        )
        return self._staging.new_link(record.target, found)


def _expected(known: Record | Version) -> Expected:
    return Expected(known.kind, known.size, known.digest, known.target, known.mtime_ns)


def _names_of(plan: Plan) -> list[bytes]:
    """The stored names that a plan makes, frees or looks at. Opening a folder up needs none."""
    names: list[bytes] = []
    for step in plan.steps:
        if isinstance(step, Store):
            names.append(step.to)
        elif isinstance(step, Archive | Move):
            names += (step.at, step.to)
        elif not isinstance(step, OpenFolder):
            names.append(step.at)
    return names
