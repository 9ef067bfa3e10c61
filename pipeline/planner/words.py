"""How decisions are called: actions, reasons and warnings in words that people read in the log. Pure."""

from __future__ import annotations

from pipeline.model import treepath
from pipeline.model.plan import Action
from pipeline.model.record import KIND_NAMES, Entry, Kind, Record
from pipeline.planner.facts import Facts, damage_warning


def name_beside(path: bytes, other: bytes) -> str:
    """How another path is named in the reason for this one: inside the same source, without its name."""
    if treepath.source_name(path) == treepath.source_name(other):
        return treepath.text(other)
    return treepath.with_slashes(other).decode("utf-8", "surrogateescape")


def new_action(path: bytes, original: bytes | None, why: str) -> tuple[Action, str]:
    if original is None:
        return Action.BACKUP, why
    same = f"same content as {name_beside(path, original)}"
    return Action.DUPLICATE, same if why == "new path" else f"{why}, {same}"


def is_suspect(entry: Entry, record: Record) -> bool:
    """Whether the bytes changed although everything that a write changes did not."""
    found = entry.stat
    return (
        entry.kind == record.kind == Kind.FILE
        and not record.unsettled
        and found.size == record.size
        and found.mtime_ns == record.mtime_ns
        and found.ctime_ns == record.ctime_ns
        and found.inode == record.inode
    )


def change_words(
    entry: Entry, record: Record, facts: Facts, suspect: bool, original: bytes | None
) -> tuple[Action | None, str, str | None]:
    """How a change is called: its action, its reason, and the warning where one is due."""
    damage = damage_warning(facts.damage, "an older content is lost")
    if suspect:
        warning = "other content, but size, times and inode are unchanged: it looks like bit rot"
        warning = f"{warning}; {damage}" if damage is not None else warning
        return Action.SUSPECT, "content differs, metadata unchanged", warning
    if entry.kind != record.kind:
        reason = f"{KIND_NAMES[Kind(record.kind)]} became a {KIND_NAMES[entry.kind]}"
        if Kind(record.kind).has_content:
            return Action.MODIFIED, reason, damage
        if not entry.kind.has_content:
            return None, reason, damage
        action, reason = new_action(entry.path, original, reason)
        return action, reason, damage
    return Action.MODIFIED, "target differs" if entry.kind == Kind.LINK else "content differs", damage
