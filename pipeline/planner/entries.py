"""The plan for an entry that was found in the source.

The cases of `plan_entry`, in the order in which they are tried:

1. the path is new, or was deleted and nothing of it is stored: BACKUP or DUPLICATE
2. the path was deleted and comes back with the same content: its stored file moves back
3. the path was deleted and comes back as something else: what was kept becomes a version, then as 1
4. same content, but the stored file is gone or changed: stored again
5. same content: METADATA, or nothing but a silent refresh (SKIP)
6. other content or another kind: MODIFIED, or SUSPECT where nothing but the bytes changed
"""

from __future__ import annotations

from pipeline import layout
from pipeline.model import treepath
from pipeline.model.plan import (
    Action,
    Archive,
    Move,
    Pin,
    Plan,
    Remove,
    RemoveFolder,
    SetMetadata,
    Step,
    Store,
)
from pipeline.model.record import Area, Entry, Kind, Record, VersionStatus
from pipeline.planner.facts import (
    Context,
    Facts,
    damage_warning,
    is_stored,
    live_folder,
    metadata_difference,
    record_of,
    retire,
    same_content,
    stored_at,
)
from pipeline.planner.folders import plan_folder
from pipeline.planner.words import change_words, is_suspect, new_action


def plan_entry(entry: Entry, facts: Facts, context: Context) -> Plan:
    """The plan for an entry of any kind that was found in the source."""
    if entry.kind == Kind.FOLDER:
        return plan_folder(entry, facts, context)
    record = facts.record
    # 1. nothing of the path is known, or nothing of it is stored
    if record is None:
        return _new_path(entry, facts, context)
    if not record.is_present:
        if not is_stored(record):
            return _store_new(entry, facts, context, "came back")
        # 2. and 3. the path was deleted, and its last content is kept in _deleted/
        if same_content(entry, record) and facts.damage is None:
            return _come_back(entry, record, facts, context)
        return _store_new(entry, facts, context, "came back with other content")
    if same_content(entry, record) and (is_stored(record) or entry.kind == Kind.SPECIAL):
        if facts.damage is not None:
            return _store_again(entry, record, facts, context)
        return _same_content(entry, record, context)
    if not is_stored(record) and record.kind == entry.kind:
        return _store_new(entry, facts, context, "its stored content was lost")
    return _other_content(entry, record, facts, context)


def _area_of_new(entry: Entry, facts: Facts) -> tuple[Area, bytes | None]:
    if entry.kind == Kind.FILE and facts.live_at is not None:
        return Area.DUPLICATE, facts.live_at
    return Area.LIVE, None


def _new_path(entry: Entry, facts: Facts, context: Context) -> Plan:
    """Case 1 where nothing at all is known, straight on: it is most of a first run."""
    area, original = _area_of_new(entry, facts)
    new = record_of(entry, None, context.run, area, original)
    if not is_stored(new):  # a special file
        return Plan(None, entry.path, "new path", (), new)
    at = layout.stored(context.place, treepath.relative(entry.path), area)
    action, reason = new_action(entry.path, original, "new path")
    return Plan(action, entry.path, reason, (Store(at, False),), new, None, False, None, at)


def _store_new(entry: Entry, facts: Facts, context: Context, why: str) -> Plan:
    """Cases 1 and 3 where there was something: as if the path were new; what was kept becomes a version."""
    record, version, warning = facts.record, None, None
    steps: list[Step] = []
    if record is not None and not record.is_present and is_stored(record):
        kept_at = stored_at(record, context.place)
        warning = damage_warning(facts.damage, "an older content is lost")
        record, version, version_at = retire(record, context, facts.damage)
        if kept_at is not None and version_at is not None:
            steps.append(Move(kept_at, version_at))
    elif record is not None and record.kind == Kind.FOLDER:
        # What was excluded after it was backed up may have kept the deleted folder.
        steps.append(RemoveFolder(live_folder(record, context.place)))
    area, original = _area_of_new(entry, facts)
    new = record_of(entry, record, context.run, area, original)
    at = stored_at(new, context.place)
    if at is None:
        return Plan(None, entry.path, why, tuple(steps), new, facts.record, False, version, None, warning)
    steps.append(Store(at, replaces=False))
    action, reason = new_action(entry.path, original, why)
    return Plan(action, entry.path, reason, tuple(steps), new, facts.record, False, version, at, warning)


def _come_back(entry: Entry, record: Record, facts: Facts, context: Context) -> Plan:
    """Case 2: the copy in `_deleted/` moves back."""
    area, original = _area_of_new(entry, facts)
    new = record_of(entry, record, context.run, area, original)
    kept_at, at = stored_at(record, context.place), stored_at(new, context.place)
    assert kept_at is not None and at is not None, "a stored content has a place"
    steps: list[Step] = [Move(kept_at, at)]
    if metadata_difference(entry, record):
        steps.append(SetMetadata(at))
    action, reason = new_action(entry.path, original, "came back")
    return Plan(action, entry.path, reason, tuple(steps), new, record, stored_at=at)


def _store_again(entry: Entry, record: Record, facts: Facts, context: Context) -> Plan:
    """Case 4: the same content, from the source, to the place where it should have been."""
    differs = bool(metadata_difference(entry, record))
    since = context.run if differs else record.since_run
    new = record_of(entry, record, since, Area(record.area), record.original)
    at = stored_at(new, context.place)
    assert at is not None, "a content that is stored again has a place"
    action = Action.DUPLICATE if record.area == Area.DUPLICATE else Action.BACKUP
    reason = f"stored file was {facts.damage}"
    warning = damage_warning(facts.damage, "stored again from the source")
    steps = (Store(at, replaces=False),)
    return Plan(action, entry.path, reason, steps, new, record, differs, None, at, warning)


def _same_content(entry: Entry, record: Record, context: Context) -> Plan:
    """Case 5: the stored bytes are right; only what is known about them may be renewed."""
    at = stored_at(record, context.place)
    difference = metadata_difference(entry, record)
    since = context.run if difference else record.since_run
    new = record_of(entry, record, since, Area(record.area), record.original)
    if not difference:
        return Plan(Action.SKIP, entry.path, "unchanged", (), new, record, stored_at=at)
    if at is None:  # a special file: known, but nothing is stored for it
        return Plan(None, entry.path, difference, (), new, record, closes=True)
    return Plan(Action.METADATA, entry.path, difference, (SetMetadata(at),), new, record, True, None, at)


def _other_content(entry: Entry, record: Record, facts: Facts, context: Context) -> Plan:
    """Case 6: the old content becomes the next version, the new one takes its place."""
    suspect = is_suspect(entry, record)
    old_at, steps, version, counted = stored_at(record, context.place), list[Step](), None, record
    if old_at is not None and record.kind != Kind.FOLDER:
        pinned = suspect and facts.damage is None
        counted, version, version_at = retire(record, context, facts.damage, pinned)
        if version_at is not None:
            steps.append(Archive(old_at, version_at))
            if suspect:
                relative = treepath.relative(record.path)
                steps.append(Pin(layout.version(context.place, relative, version.number, b"pinned")))
    elif old_at is not None:
        steps.append(RemoveFolder(old_at))
    area, original = _area_of_new(entry, facts)
    new = record_of(entry, counted, context.run, area, original)
    new_at = stored_at(new, context.place)
    archived = version is not None and version.status == VersionStatus.KEPT
    if new_at is not None:
        steps.append(Store(new_at, replaces=archived and new_at == old_at))
    if archived and old_at is not None and old_at != new_at:
        steps.append(Remove(old_at))
    action, reason, warning = change_words(entry, record, facts, suspect, original)
    return Plan(action, entry.path, reason, tuple(steps), new, record, True, version, new_at, warning)
