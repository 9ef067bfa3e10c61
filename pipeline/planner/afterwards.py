"""What is decided from the state alone, after the whole scan or in recovery.

Deletions, promotions, retention, what stands in the way in `_deleted/`, and contents that are lost.
"""

from __future__ import annotations

from pipeline import layout
from pipeline.model import treepath
from pipeline.model.plan import Action, DeleteVersion, Move, Plan, RemoveFolder
from pipeline.model.record import Area, Kind, Record, Version, VersionStatus
from pipeline.planner.facts import Context, damage_warning, live_folder, retire, stored_at
from pipeline.planner.words import name_beside


def plan_delete(record: Record, damage: str | None, context: Context, reason: str) -> Plan:
    """The path is no longer in the source: its stored file moves to `_deleted/`, the state closes it."""
    gone = record._replace(area=Area.DELETED, original=None, linked_to=None, since_run=context.run)
    at = stored_at(record, context.place)
    if record.kind == Kind.FOLDER:
        steps = (RemoveFolder(at),) if at is not None else ()
        return Plan(None, record.path, reason, steps, gone, record, closes=True)
    if at is None:
        return Plan(None, record.path, reason, (), gone, record, closes=True)
    if damage is not None:
        lost, version, _ = retire(gone, context, damage)
        warning = damage_warning(damage, "its content is lost")
        lost = lost._replace(digest=None, target=None)
        return Plan(Action.DELETE, record.path, reason, (), lost, record, True, version, None, warning)
    to = stored_at(gone, context.place)
    assert to is not None, "a stored content has a place in _deleted/"
    return Plan(Action.DELETE, record.path, reason, (Move(at, to),), gone, record, True, None, to)


def plan_clear_folder(record: Record, context: Context) -> Plan:
    """A deleted folder that had stayed, because it wasn't empty, where another path belongs now."""
    step = RemoveFolder(live_folder(record, context.place))
    return Plan(None, record.path, "stood in the way", (step,), record, record)


def plan_make_way(record: Record, damage: str | None, context: Context) -> Plan:
    """A deleted path whose copy in `_deleted/` stands where another path belongs: it becomes a version."""
    at = stored_at(record, context.place)
    assert at is not None, "only what is stored can stand in the way"
    counted, version, version_at = retire(record, context, damage)
    steps = (Move(at, version_at),) if version_at is not None else ()
    new = counted._replace(digest=None, target=None)
    warning = damage_warning(damage, "an older content is lost")
    return Plan(None, record.path, "stood in the way", steps, new, record, False, version, None, warning)


def plan_promote(record: Record, damage: str | None, context: Context) -> Plan:
    """A duplicate whose original is gone, and whose content is live nowhere, takes its live place."""
    at = stored_at(record, context.place)
    assert at is not None, "a duplicate is stored"
    if damage is not None:
        return plan_forget(record, damage, context)
    new = record._replace(area=Area.LIVE, original=None)
    to = stored_at(new, context.place)
    assert to is not None, "a stored content has a live place"
    original = name_beside(record.path, record.original or b"")
    reason = f"its original {original} is gone"
    return Plan(Action.PROMOTE, record.path, reason, (Move(at, to),), new, record, stored_at=to)


def plan_new_original(record: Record, live_at: bytes) -> Plan:
    """A duplicate whose original is gone while another path holds the content live: nothing moves."""
    return Plan(None, record.path, "new original", (), record._replace(original=live_at), record)


def plan_names(record: Record, first: bytes | None, context: Context) -> Plan:
    """Which other path is a name of the same file has changed, or is known now. first: as `linked_to`.

    Nothing that is stored changes.
    """
    if record.since_run == context.run:
        return Plan(None, record.path, "hard links", (), record._replace(linked_to=first), record)
    new = record._replace(linked_to=first, since_run=context.run)
    at = stored_at(record, context.place)
    action = Action.METADATA if at is not None else None
    return Plan(action, record.path, "hard links differ", (), new, record, True, None, at)


def plan_forget(record: Record, damage: str, context: Context) -> Plan:
    """The stored content is lost: it is forgotten, so that a path that is present is stored again."""
    counted, version, _ = retire(record, context, damage)
    area = Area.LIVE if record.is_present else Area.DELETED
    new = counted._replace(digest=None, target=None, area=area, original=None, since_run=context.run)
    warning = damage_warning(damage, "the next run stores it again")
    return Plan(None, record.path, "forgotten", (), new, record, record.is_present, version, None, warning)


def plan_retention(record: Record, version: Version, why: str, context: Context) -> Plan:
    """A version that a rule takes goes; a mark stays where its number could be used again. why: the rule."""
    relative = treepath.relative(record.path)
    at = layout.version(context.place, relative, version.number)
    is_highest = version.number == record.number - 1
    mark = layout.version(context.place, relative, version.number, b"pruned") if is_highest else None
    pruned = version._replace(status=VersionStatus.PRUNED, ended_run=context.run, ended_why=why)
    new = record._replace(kept_versions=record.kept_versions - 1)
    reason = f"version {version.number}: {why}"
    step = DeleteVersion(at, mark)
    return Plan(Action.RETENTION, record.path, reason, (step,), new, record, False, pruned, at)


def plan_drop_deleted(record: Record, why: str, context: Context) -> Plan:
    """What lies in `_deleted/` goes. Its content keeps its number, as a version that was taken, so that the
    path's history stays true; a mark beside the versions stays, since the number is the highest."""
    at = stored_at(record, context.place)
    assert at is not None, "only what is stored can go"
    mark = layout.version(context.place, treepath.relative(record.path), record.number, b"pruned")
    counted, version, _ = retire(record, context, None)
    pruned = version._replace(status=VersionStatus.PRUNED, ended_run=context.run, ended_why=why)
    new = record._replace(number=counted.number, digest=None, target=None)
    step = DeleteVersion(at, mark)
    return Plan(Action.RETENTION, record.path, why, (step,), new, record, False, pruned, at)
