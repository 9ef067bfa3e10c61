"""How much a backup holds, by its state.

In: a reading connection. Out: counts and bytes. Guarantees: memory stays flat; each question reads its
table once, in one statement that gives a few rows. Fails with SQLite's errors.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from pipeline.model.record import Area, Kind, VersionStatus
from pipeline.store.reading import Readable


class Amount(NamedTuple):
    """Regular files and their bytes."""

    files: int = 0
    size_bytes: int = 0


class Totals(NamedTuple):
    """files, links, folders, specials: in the source. The others: stored files, by where they lie."""

    files: int
    links: int
    folders: int
    specials: int
    live: Amount
    duplicates: Amount
    deleted: Amount
    versions: Amount


def totals(state: Readable) -> Totals:
    """Counts of what is in the source, and of what is stored. Lost contents are in the source, not stored."""
    query = (
        "SELECT kind, area, digest IS NOT NULL, count(*), sum(size) FROM files"
        " GROUP BY kind, area, digest IS NOT NULL"
    )
    present: Counter[int] = Counter()
    stored: dict[int, Amount] = {}
    for kind, area, is_stored, count, size_bytes in state.execute(query).fetchall():
        if area != Area.DELETED:
            present[kind] += count
        if kind == Kind.FILE and is_stored:
            stored[area] = Amount(count, size_bytes)
    query = (
        "SELECT count(*), coalesce(sum(size), 0) FROM versions"
        f" WHERE status = {VersionStatus.KEPT:d} AND kind = {Kind.FILE:d}"
    )
    versions = Amount(*state.execute(query).fetchall()[0])
    return Totals(
        files=present[Kind.FILE],
        links=present[Kind.LINK],
        folders=present[Kind.FOLDER],
        specials=present[Kind.SPECIAL],
        live=stored.get(Area.LIVE, Amount()),
        duplicates=stored.get(Area.DUPLICATE, Amount()),
        deleted=stored.get(Area.DELETED, Amount()),
        versions=versions,
    )


def has_intents(state: Readable) -> bool:
    """Whether file operations are recorded that may not have been done."""
    return bool(state.execute("SELECT 1 FROM intents LIMIT 1").fetchall())
