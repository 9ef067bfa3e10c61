"""Folders: made (or closed) before their content, opened up after it.

So nothing that a folder's mode keeps private is readable in between, and a run that was cut knows, by the
pending mode in the record, which folders are still to be opened.
"""

from __future__ import annotations

import stat

from pipeline.model.plan import Archive, MakeFolder, OpenFolder, Plan, Remove, Step
from pipeline.model.record import PENDING_MODE, Entry, Kind, Record
from pipeline.planner.afterwards import plan_make_way
from pipeline.planner.facts import (
    Context,
    Facts,
    is_stored,
    metadata_difference,
    record_of,
    retire,
    stored_at,
)
from pipeline.planner.words import change_words


def plan_folder(entry: Entry, facts: Facts, context: Context) -> Plan:
    """A folder that was found: new, changed, come back, in place of something else, or as it was.

    Where its own mode is still to be applied, the plan's record has PENDING_MODE.
    """
    record = facts.record
    pending = entry._replace(stat=entry.stat._replace(mode=PENDING_MODE, size=0))
    if record is None or (not record.is_present and not is_stored(record)):
        return _make_folder(record_of(pending, record, context.run), record, context)
    if not record.is_present:
        version_plan = plan_make_way(record, facts.damage, context)
        made = _make_folder(record_of(pending, version_plan.record, context.run), record, context)
        return made._replace(
            steps=version_plan.steps + made.steps,
            archived=version_plan.archived,
            warning=version_plan.warning,
        )
    if record.kind != Kind.FOLDER:
        return _folder_instead(pending, record, facts, context)
    difference = metadata_difference(entry, record)
    if facts.damage is None and difference in ("", "mtime differs"):
        since = context.run if difference else record.since_run
        new = record_of(entry, record, since)
        return Plan(None, entry.path, difference, (), new, record, closes=bool(difference))
    # A folder that a cut run left pending keeps its run: no state of it has ended.
    unfinished = record.mode == PENDING_MODE
    new = record_of(pending, record, record.since_run if unfinished or not difference else context.run)
    return _make_folder(new, record, context, closes=bool(difference) and not unfinished)


def _make_folder(new: Record, before: Record | None, context: Context, closes: bool = False) -> Plan:
    at = stored_at(new, context.place)
    assert at is not None, "a present folder has a place"
    return Plan(None, new.path, "folder", (MakeFolder(at),), new, before, closes)


def _folder_instead(pending: Entry, record: Record, facts: Facts, context: Context) -> Plan:
    """Something that is not a folder has become one."""
    old_at, counted, version, version_at = stored_at(record, context.place), record, None, None
    if old_at is not None:
        counted, version, version_at = retire(record, context, facts.damage)
    made = _make_folder(record_of(pending, counted, context.run), record, context, closes=True)
    steps: tuple[Step, ...] = ()
    if old_at is not None and version_at is not None:
        steps = (Archive(old_at, version_at), Remove(old_at))
    action, reason, warning = change_words(pending, record, facts, False, None)
    return made._replace(
        action=action, reason=reason, steps=steps + made.steps, archived=version, warning=warning
    )


def plan_open_folder(pending: Record, entry: Entry, context: Context) -> Plan:
    """After a folder's content: its own mode, without set-id bits, never closed to its owner."""
    at = stored_at(pending, context.place)
    assert at is not None, "a present folder has a place"
    mode = stat.S_IMODE(entry.stat.mode) & 0o1777 | 0o700
    step = OpenFolder(at, mode, entry.stat.uid, entry.stat.gid)
    return Plan(None, pending.path, "folder", (step,), pending._replace(mode=entry.stat.mode), pending)
