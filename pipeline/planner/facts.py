"""What the decisions are made from: facts about a path, and the small questions that all of them ask.

In: entries, records, places. Out: answers and values. Pure; guarantees that a content's number is given once.
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline import layout
from pipeline.layout import SourcePlace
from pipeline.model import treepath
from pipeline.model.record import Area, Entry, Kind, Record, Version, VersionStatus


class Context(NamedTuple):
    """What is the same for all paths of a source in one run."""

    place: SourcePlace
    run: int


class Facts(NamedTuple):
    """What is known about one path besides its entry.

    live_at: another path that holds the entry's content live, if one does.
    damage: None, or what is wrong with the stored file of the record (`gone`, `changed`).
    """

    record: Record | None
    live_at: bytes | None = None
    damage: str | None = None


def is_stored(record: Record) -> bool:
    """Whether a stored file belongs to the record (a lost one has neither digest nor target)."""
    return record.digest is not None or record.target is not None


def stored_at(record: Record, place: SourcePlace) -> bytes | None:
    """Where the record's stored file or folder lies; None where nothing is stored for it."""
    relative = treepath.relative(record.path)
    if record.kind == Kind.FOLDER:
        return live_folder(record, place) if record.is_present else None
    return layout.stored(place, relative, Area(record.area)) if is_stored(record) else None


def live_folder(record: Record, place: SourcePlace) -> bytes:
    """Where a folder lies, or has lain, in the backup."""
    return layout.stored(place, treepath.relative(record.path), Area.LIVE)


def same_content(entry: Entry, record: Record) -> bool:
    if entry.kind != record.kind:
        return False
    if entry.kind == Kind.FILE:
        return entry.digest == record.digest and entry.stat.size == record.size
    return entry.target == record.target


def metadata_difference(entry: Entry, record: Record) -> str:
    """Which metadata differ, as the reason of a METADATA action; empty where none do."""
    found = entry.stat
    names = []
    if found.mode != record.mode:
        names.append("mode")
    if (found.uid, found.gid) != (record.uid, record.gid):
        names.append("owner")
    if found.mtime_ns != record.mtime_ns:
        names.append("mtime")
    if entry.attributes != record.attributes:
        names.append("attributes")
    if entry.kind == Kind.SPECIAL and found.size != record.size:
        names.append("device")
    if record.linked_to is not None and found.links == 1:
        names.append("hard links")
    if not names:
        return ""
    is_one = len(names) == 1 and not names[0].endswith("s")
    return f"{' and '.join(names)} {'differs' if is_one else 'differ'}"


def record_of(
    entry: Entry, old: Record | None, run: int, area: Area = Area.LIVE, original: bytes | None = None
) -> Record:
    """The new record of an entry; the numbering goes on from the old one."""
    number, kept = (old.number, old.kept_versions) if old is not None else (1, 0)
    path, kind, found, digest, target, unsettled, attributes = entry
    mode, uid, gid, mtime_ns, ctime_ns, inode, size, links = found
    # Which names belong together is known after a look at all; until then it is as it was, if all else is.
    linked_to = None
    if old is not None and old.linked_to is not None and old.is_present and same_content(entry, old):
        linked_to = old.linked_to if not metadata_difference(entry, old) else None
    return Record(
        path, kind, mode, uid, gid, mtime_ns, ctime_ns, inode, size, digest, target, area, original, number,
        kept, run, int(unsettled), links, attributes, linked_to,
    )  # fmt: skip


def retire(
    record: Record, context: Context, damage: str | None, pinned: bool = False
) -> tuple[Record, Version, bytes | None]:
    """The record after its content has got a number of its own, that version, and its backup path.

    The path is None, and the version LOST, where the stored file is not what it should be.
    """
    relative = treepath.relative(record.path)
    status = VersionStatus.KEPT if damage is None else VersionStatus.LOST
    version = Version(
        record.path, record.number, record.kind, record.size, record.digest, record.target,
        record.mtime_ns, int(pinned), status, context.run if damage is not None else None,
    )  # fmt: skip
    counted = int(damage is None and not pinned)
    after = record._replace(number=record.number + 1, kept_versions=record.kept_versions + counted)
    at = layout.version(context.place, relative, record.number) if damage is None else None
    return after, version, at


def damage_warning(damage: str | None, action: str) -> str | None:
    return f"its stored file was {damage} behind our back; {action}" if damage is not None else None
