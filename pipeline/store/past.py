"""What the state knows of earlier runs: entry states as runs left them, and what differs between two.

In: a reading connection, runs, ranges of paths. Out: `Held` rows in scan order, a bounded piece at a time.
Guarantees: `read_held` answers "what was there at the end of run R" by the primary keys of `files` and
`history` alone: both keep, for every entry state, from which run to which run it was current, so one indexed
query serves at any size (`test_past.py` reads it from SQLite's own query plan). Fails with SQLite's errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from pipeline.model.record import Area, Held, Kind, Record, Version, VersionStatus
from pipeline.store.reading import RANGE_ROWS, RECORD_COLUMNS, Readable, read_range, read_versions

NOW = (1 << 63) - 1
"""As a run: the state as it is, whatever run is or was at work."""

# A record whose stored content was lost has neither digest nor target, but its kind has content.
_LOST = f"f.kind IN ({Kind.FILE:d}, {Kind.LINK:d}) AND f.digest IS NULL AND f.target IS NULL"
_CURRENT = f"""
    SELECT f.path, f.kind, f.mode, f.uid, f.gid, f.mtime_ns, f.size, f.digest, f.target, f.number,
        f.since_run AS from_run, NULL AS to_run, CASE WHEN {_LOST} THEN NULL ELSE f.area END,
        CASE WHEN {_LOST} THEN {VersionStatus.LOST:d} END, 0, f.since_run, f.attributes, f.linked_to, f.links
    FROM files AS f WHERE f.area != {Area.DELETED:d}"""
_CLOSED = f"""
    SELECT h.path, h.kind, h.mode, h.uid, h.gid, h.mtime_ns, h.size, h.digest, h.target, h.number,
        h.from_run, h.to_run, CASE WHEN h.number = f.number AND NOT ({_LOST}) THEN f.area END,
        v.status, coalesce(v.pinned, 0), v.ended_run, h.attributes, h.linked_to, h.links
    FROM history AS h JOIN files AS f ON f.path = h.path
        LEFT JOIN versions AS v ON v.path = h.path AND v.number = h.number"""


def _in_order(current: str, closed: str) -> str:
    """Both tables as one stream; SQLite merges two walks along their primary keys."""
    return f"{_CURRENT} AND {current} UNION ALL {_CLOSED} WHERE {closed} ORDER BY 1"


HELD = _in_order(
    "f.path >= :low AND f.path < :high AND f.since_run <= :run",
    "h.path >= :low AND h.path < :high AND h.from_run <= :run AND h.to_run > :run",
)
BEGUN = _in_order(
    "f.path >= :low AND f.path < :high AND f.since_run > :old AND f.since_run <= :new",
    "h.path >= :low AND h.path < :high AND h.from_run > :old AND h.from_run <= :new AND h.to_run > :new",
)
ENDED = (
    f"{_CLOSED} WHERE h.path >= :low AND h.path < :high"
    f" AND h.from_run <= :old AND h.to_run > :old AND h.to_run <= :new ORDER BY h.path"
)


_NEXT = (
    f"SELECT path FROM files WHERE path >= :low AND path < :high ORDER BY path LIMIT 1 OFFSET {RANGE_ROWS}"
)
"""Where the next piece begins. A piece is a range of keys and not a number of rows: where one table has
little to give, each piece would walk along the rest of it. A path of the history has its row in `files`."""


class RunRow(NamedTuple):
    """A run as the state has it. Times in nanoseconds since 1970. status: `ok`, `warnings`, `interrupted`.

    ended_ns: None where it was cut. counts: its figures as JSON, None where it was cut.
    """

    number: int
    started_ns: int
    ended_ns: int | None
    status: str
    counts: str | None

    @property
    def is_complete(self) -> bool:
        return self.status in ("ok", "warnings")


def read_held(state: Readable, run: int, low: bytes, high: bytes, with_low: bool = False) -> Iterator[Held]:
    """The entry states with low < path < high at the end of a run, in scan order. run: NOW for the latest."""
    return _pieces(state, HELD, low if with_low else _after(low), high, run=run)


def read_begun(state: Readable, old: int, new: int, low: bytes, high: bytes) -> Iterator[Held]:
    """What was current at the end of run `new`, but not yet at the end of `old`."""
    return _pieces(state, BEGUN, _after(low), high, old=old, new=new)


def read_ended(state: Readable, old: int, new: int, low: bytes, high: bytes) -> Iterator[Held]:
    """What was current at the end of run `old`, but no longer at the end of `new`."""
    return _pieces(state, ENDED, _after(low), high, old=old, new=new)


def _after(path: bytes) -> bytes:
    """The smallest key above a path."""
    return path + b"\0"


def _pieces(state: Readable, query: str, low: bytes, high: bytes, **values: int) -> Iterator[Held]:
    """The rows with low <= path < high. Each piece is read by one statement, so a row that a writer moves
    from one table to the other is met exactly once."""
    while True:
        found = state.execute(_NEXT, {"low": low, "high": high}).fetchall()
        end = found[0][0] if found else high
        yield from map(Held._make, state.execute(query, {**values, "low": low, "high": end}).fetchall())
        if not found:
            return
        low = end


def figures(state: Readable, run: int, low: bytes, high: bytes) -> tuple[int, int]:
    """How many files and links a run held with low <= path < high, and their bytes.

    `total` and not `sum`, which fails where a state says what can't be.
    """
    kinds = f"kind IN ({Kind.FILE:d}, {Kind.LINK:d})"
    query = (
        f"SELECT count(*), total(max(0, min(size, {1 << 60}))) FROM"
        " (SELECT size FROM files WHERE path >= :low"
        f" AND path < :high AND since_run <= :run AND area != {Area.DELETED:d} AND {kinds}"
        " UNION ALL SELECT size FROM history WHERE path >= :low AND path < :high"
        f" AND from_run <= :run AND to_run > :run AND {kinds})"
    )
    row = state.execute(query, {"run": run, "low": low, "high": high}).fetchall()[0]
    return int(row[0]), int(row[1])


def held_of(state: Readable, path: bytes) -> list[Held]:
    """All entry states of one path, oldest first; the last one is its latest while it is in the source."""
    closed = state.execute(f"{_CLOSED} WHERE h.path = ? ORDER BY h.from_run", (path,)).fetchall()
    current = state.execute(f"{_CURRENT} AND f.path = ?", (path,)).fetchall()
    return [Held._make(row) for row in (*closed, *current)]


def deleted_content(state: Readable, path: bytes) -> Held | None:
    """What lies in `_deleted/` for a path."""
    query = f"SELECT {RECORD_COLUMNS} FROM files WHERE path = ? AND area = {Area.DELETED:d}"
    for row in state.execute(query, (path,)).fetchall():
        record = Record._make(row)
        if record.digest is not None or record.target is not None:
            return _held_of_record(record)
    return None


def versions_of(state: Readable, path: bytes) -> list[Version]:
    rows = state.execute("SELECT * FROM versions WHERE path = ? ORDER BY number", (path,)).fetchall()
    return [Version._make(row) for row in rows]


def runs(state: Readable) -> list[RunRow]:
    """All runs, oldest first."""
    query = "SELECT number, started_ns, ended_ns, status, counts FROM runs ORDER BY number"
    return [RunRow._make(row) for row in state.execute(query).fetchall()]


def first_runs(state: Readable, record: Record) -> dict[int, int]:
    """By the numbers of a path's contents, the first run that had each, as far as the history knows it. Its
    latest one is always there: since the run that made it, or that deleted it."""
    query = "SELECT number, min(from_run) FROM history WHERE path = ? GROUP BY number"
    found: dict[int, int] = dict(state.execute(query, (record.path,)).fetchall())
    found.setdefault(record.number, record.since_run)
    return found


def start_of(state: Readable, run: int) -> int:
    """When a run began, in nanoseconds since 1970. One that left no trace, or whose clock was in doubt,
    counts as the next one that did, and was not."""
    query = "SELECT started_ns FROM runs WHERE number >= ? AND NOT has_doubted_clock ORDER BY number LIMIT 1"
    found = state.execute(query, (run,)).fetchall()
    return int(found[0][0]) if found else NOW


def stored_in(state: Readable, run: int) -> int | None:
    """When what a run stored was stored; None where its clock was in doubt, so that nobody knows the day."""
    query = "SELECT has_doubted_clock FROM runs WHERE number = ?"
    found = state.execute(query, (run,)).fetchall()
    return None if found and found[0][0] else start_of(state, run)


def read_stored(state: Readable, low: bytes, high: bytes) -> Iterator[tuple[Held | None, list[Version]]]:
    """Each path with low < path < high: its latest state if anything of it is stored, and its kept versions.

    A deleted path whose content lies in `_deleted/` is there too; its state is the one that it had last.
    """
    versions = groupby(read_versions(state, low, high), key=lambda version: version.path)
    group = next(versions, None)
    for row in read_range(state, low, high):
        record = Record._make(row)
        kept: list[Version] = []
        while group is not None and group[0] < record.path:
            group = next(versions, None)
        if group is not None and group[0] == record.path:
            kept = [version for version in group[1] if version.status == VersionStatus.KEPT]
            group = next(versions, None)
        is_stored = record.digest is not None or record.target is not None
        if is_stored or (record.kind == Kind.FOLDER and record.is_present):
            yield _held_of_record(record), kept
        elif kept:
            yield None, kept


def _held_of_record(record: Record) -> Held:
    return Held(
        record.path, record.kind, record.mode, record.uid, record.gid, record.mtime_ns, record.size,
        record.digest, record.target, record.number, record.since_run, None, record.area, None, 0, None,
        record.attributes, record.linked_to, record.links,
    )  # fmt: skip


def count_stored(state: Readable) -> tuple[int, int]:
    """How many stored contents there are (files and links, wherever they lie, and kept versions), and their
    bytes."""
    figures = "SELECT count(*), coalesce(sum(size), 0) FROM"
    files = f"{figures} files WHERE digest IS NOT NULL OR target IS NOT NULL"
    versions = f"{figures} versions WHERE status = {VersionStatus.KEPT:d}"
    found = [state.execute(query).fetchall()[0] for query in (files, versions)]
    return sum(int(row[0]) for row in found), sum(int(row[1]) for row in found)
