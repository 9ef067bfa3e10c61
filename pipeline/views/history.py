"""`history`: every content that a path had, and every entry state in which it had it.

In: an opened backup and a tree path. Out: `Past` values, oldest first; versions that no history knows
(after a rebuild) come before all others, by number. Guarantees: only the rows of this path are read. Fails
with SQLite's errors, which `open_for_reading` translates.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from pipeline import planner, retention
from pipeline.model import treepath
from pipeline.model.record import Held, Kind, Record, Version, VersionStatus
from pipeline.store.past import first_runs, held_of, runs, start_of, stored_in, versions_of
from pipeline.store.reading import read_range
from pipeline.views.opening import Opened
from pipeline.views.where import held_at, version_at


class Past(NamedTuple):
    """An entry state of a path, or a content of which only the content is known.

    number: of the content, None for what has none (folders, special files).
    mode, uid, gid: None where they aren't known. from_run, to_run: to_run excluded, None where it still is
    current; both None where they aren't known. from_ns: when from_run began.
    pruned_by: the run that took the content, pruned_why: the rule, in words. is_deleted: the path left the
    source when this ended. why: what keeps the content, or will take it; only where that was asked for.
    """

    number: int | None
    kind: Kind
    size: int
    digest: bytes | None
    target: bytes | None
    mode: int | None
    mtime_ns: int
    uid: int | None
    gid: int | None
    from_run: int | None
    to_run: int | None
    from_ns: int | None
    stored_at: bytes | None
    is_pinned: bool
    pruned_by: int | None
    is_lost: bool
    is_current: bool
    is_deleted: bool
    pruned_why: str | None = None
    why: str | None = None

    @property
    def content(self) -> tuple[object, ...]:
        """What is equal in two states that differ in metadata only."""
        return self.number, self.kind, self.digest, self.target


def history(opened: Opened, path: bytes, judged_ns: int | None = None) -> Iterator[Past]:
    """The past of one path. judged_ns: when retention is to judge it, if it is to say why."""
    record, versions = _record(opened, path), versions_of(opened.state, path)
    taken = {version.number: version.ended_why for version in versions}
    why = {} if judged_ns is None else _reasons(opened, record, versions, judged_ns)
    for past in _past(opened, record, versions):
        if past.number is None:
            yield past
        elif past.pruned_by is not None:
            yield past._replace(pruned_why=taken.get(past.number))
        else:
            yield past._replace(why=why.get(past.number))


def _past(opened: Opened, record: Record, versions: list[Version]) -> Iterator[Past]:
    states = held_of(opened.state, record.path)
    known = {held.number for held in states if Kind(held.kind).has_content}
    for version in versions:
        if version.number not in known:
            yield _of_version(opened, version)
    if not record.is_present and planner.is_stored(record) and record.number not in known:
        yield _of_deleted(opened, record)
    started = {run.number: run.started_ns for run in runs(opened.state)}
    for held, later in pairwise([*states, None]):
        assert held is not None
        yield _of_state(opened, held, started.get(held.from_run), _is_deleted(held, later))


def _reasons(opened: Opened, record: Record, versions: list[Version], now_ns: int) -> dict[int, str]:
    """By the numbers of the path's contents, what keeps each on the disk, or why the next run takes it."""
    state, policy = opened.state, opened.config.retention.rules.of_path(record.path, record.kind)
    times = partial(start_of, state), partial(stored_in, state)
    dated = retention.dated(versions, first_runs(state, record), *times)
    deleted_ns = None if record.is_present else start_of(state, record.since_run)
    judged = retention.judge(dated, deleted_ns, now_ns, policy)
    reasons = {
        verdict.version.number: f"goes: {verdict.taken}" if verdict.taken else ", ".join(verdict.kept)
        for verdict in judged.verdicts
    }
    if planner.is_stored(record):
        latest = "latest content" if record.is_present else "in _deleted/"
        reasons[record.number] = f"goes: {judged.deleted}" if judged.deleted else latest
    return reasons


def _record(opened: Opened, path: bytes) -> Record:
    """The path's row: `find_path` has seen to it that there is one."""
    (row,) = read_range(opened.state, path, path + treepath.SEPARATOR, with_low=True)
    return Record._make(row)


def _is_deleted(held: Held, later: Held | None) -> bool:
    """Whether the path left the source when this state ended. A content that was lost leaves a gap, too,
    until it is stored again."""
    if later is None or held.to_run is None:
        return held.to_run is not None
    was_lost = held.status == VersionStatus.LOST and held.ended_run == held.to_run
    return held.to_run != later.from_run and not was_lost


def _of_state(opened: Opened, held: Held, from_ns: int | None, is_deleted: bool) -> Past:
    kind = Kind(held.kind)
    is_known = held.mode >= 0
    is_pruned = held.area is None and held.status == VersionStatus.PRUNED
    return Past(
        number=held.number if kind.has_content else None,
        kind=kind,
        size=held.size,
        digest=held.digest,
        target=held.target,
        mode=held.mode if is_known else None,
        mtime_ns=held.mtime_ns,
        uid=held.uid if is_known else None,
        gid=held.gid if is_known else None,
        from_run=held.from_run,
        to_run=held.to_run,
        from_ns=from_ns,
        stored_at=held_at(opened, held),
        is_pinned=bool(held.pinned),
        pruned_by=held.ended_run if is_pruned else None,
        is_lost=not held.is_within_reach and not is_pruned,
        is_current=held.to_run is None,
        is_deleted=is_deleted,
    )


def _of_version(opened: Opened, version: Version) -> Past:
    """A version whose runs nobody knows."""
    return Past(
        version.number, Kind(version.kind), version.size, version.digest, version.target,
        None, version.mtime_ns, None, None, None, None, None, version_at(opened, version),
        is_pinned=bool(version.pinned),
        pruned_by=version.ended_run if version.status == VersionStatus.PRUNED else None,
        is_lost=version.status == VersionStatus.LOST,
        is_current=False,
        is_deleted=False,
    )  # fmt: skip


def _of_deleted(opened: Opened, record: Record) -> Past:
    """What lies in `_deleted/` for a path of which no earlier state is known."""
    place = opened.places[treepath.source_name(record.path)]
    return Past(
        record.number, Kind(record.kind), record.size, record.digest, record.target,
        None, record.mtime_ns, None, None, None, record.since_run, None, planner.stored_at(record, place),
        is_pinned=False, pruned_by=None, is_lost=False, is_current=False, is_deleted=True,
    )  # fmt: skip
