"""A new state from what lies in a backup, written beside the old one and put in its place at the end.

In: records and versions as the files themselves tell them. Out: a complete state. Guarantees: until `finish`
has renamed it, the new state has another name, so a rebuild that is cut has changed nothing; the old one is
kept aside. Numbers go on behind the highest that any version or marker has (no number is used twice). Fails
with SQLite's errors and with OSError.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from pipeline.model.errors import DamagedStateError
from pipeline.model.record import Area, Kind, Record, Version, VersionStatus
from pipeline.store.reading import connect_reader
from pipeline.store.schema import with_schema
from pipeline.store.seal import OPENING, set_seal
from pipeline.store.soundness import unsound_rows
from pipeline.store.state import connect_writer, keep_attributes, source_places
from pipeline.store.trust import (
    STATE_FILES,
    STATE_NAME,
    check_for_reading,
    is_regular,
    look_at_seal,
    look_through,
)

NEW_NAME = "state.db.new"
_SUFFIXES = tuple(name.removeprefix(STATE_NAME) for name in STATE_FILES)
_TABLES = (
    "settings", "sources", "runs", "files", "history", "versions", "intents", "attributes", "owners",
    "respelled",
)  # fmt: skip
_FIELDS = ", ".join("?" * len(Record._fields))
_VERSION_FIELDS = ", ".join("?" * len(Version._fields))
_FILE = f"kind = {Kind.FILE:d}"

_FINISH = (
    # 1. pins; a marker whose version is gone still keeps its number from being used again
    "UPDATE versions SET pinned = 1 WHERE (path, number) IN (SELECT path, number FROM pins)",
    f"INSERT OR IGNORE INTO versions SELECT path, number, {Kind.FILE:d}, 0, NULL, NULL, 0, 1,"
    f" {VersionStatus.LOST:d}, :run, NULL FROM pins",
    # 2. a path of which only versions are left
    f"INSERT OR IGNORE INTO files SELECT DISTINCT path, {Kind.FILE:d}, 0, 0, 0, 0, 0, 0, 0, NULL, NULL,"
    f" {Area.DELETED:d}, NULL, 1, 0, :run, 0, -1, NULL, NULL FROM versions",
    # 3. the numbering goes on
    "UPDATE files SET number = 1 + (SELECT max(v.number) FROM versions AS v WHERE v.path = files.path),"
    " kept_versions = (SELECT count(*) FROM versions AS v WHERE v.path = files.path"
    f" AND v.status = {VersionStatus.KEPT:d} AND NOT v.pinned) WHERE path IN (SELECT path FROM versions)",
    # 4. originals: the first path that holds the content live, else one that has held it
    "UPDATE files SET original = (SELECT min(o.path) FROM files AS o WHERE o.digest = files.digest"
    f" AND o.size = files.size AND o.area = {Area.LIVE:d}) WHERE area = {Area.DUPLICATE:d}",
    "CREATE INDEX versions_digest ON versions (digest)",
    "UPDATE files SET original = (SELECT min(v.path) FROM versions AS v JOIN files AS o ON o.path = v.path"
    f" AND o.area != {Area.DELETED:d} AND o.{_FILE} WHERE v.digest = files.digest AND v.size = files.size)"
    f" WHERE area = {Area.DUPLICATE:d} AND original IS NULL",
    "DROP INDEX versions_digest",
)


def is_sound(folder: Path) -> bool:
    """Whether there is a state that can be used, every page and row of it. A newer program's raises
    StateError."""
    path = folder / STATE_NAME
    if not is_regular(path):
        return False
    try:
        looked = look_at_seal(path, whole=True)
        connection = connect_reader(path)
        try:
            check_for_reading(connection, looked)
            look_through(connection)
            for table in _TABLES:
                connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()
            places = source_places(connection.execute("SELECT name, at_root FROM sources").fetchall())
            return next(unsound_rows(connection, places), None) is None
        finally:
            connection.close()
    except (sqlite3.Error, DamagedStateError):
        return False


class NewState:
    """The state as it grows. folder: `.pipeline`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / NEW_NAME
        self._remove_draft()  # of a rebuild that was killed
        self._connection = with_schema(connect_writer(self._path))
        os.chmod(self._path, 0o600)
        self._opening = 0
        self._connection.execute("CREATE TEMP TABLE pins (path BLOB, number INTEGER)")
        self._connection.execute("BEGIN")

    def add_sources(self, sources: Mapping[bytes, bool]) -> None:
        """Names, and whether each lies at the root."""
        self._connection.executemany("INSERT INTO sources VALUES (?, ?)", sources.items())

    def respell(self, path: bytes) -> None:
        """As `State.respell`."""
        self._connection.execute("INSERT INTO respelled VALUES (?)", (path,))

    def begin_run(self, started_ns: int, boot_id: str) -> int:
        cursor = self._connection.execute(
            "INSERT INTO runs (started_ns, status, durability, boot_id) VALUES (?, 'interrupted', 'full', ?)",
            (started_ns, boot_id),
        )
        self._opening = started_ns
        self._connection.execute("INSERT INTO settings VALUES (?, ?)", (OPENING, started_ns))
        assert cursor.lastrowid is not None, "an INSERT gives a row number"
        return cursor.lastrowid

    def add_record(self, record: Record) -> Area | None:
        """Live counts more than duplicate, that more than deleted.

        Returns where the copy lies that doesn't count, None where the path isn't stored twice.
        """
        known = self._connection.execute("SELECT area FROM files WHERE path = ?", (record.path,)).fetchone()
        if known is not None and known[0] <= record.area:
            return Area(record.area)
        self._connection.execute(f"REPLACE INTO files VALUES ({_FIELDS})", record)
        return Area(known[0]) if known is not None else None

    def keep_attributes(self, packed: bytes) -> bytes | None:
        """As `State.keep_attributes`."""
        return keep_attributes(self._connection, packed)

    def add_version(self, version: Version) -> None:
        """A content or a marker that keeps its number; a content counts more."""
        keep = "REPLACE" if version.status == VersionStatus.KEPT else "INSERT OR IGNORE"
        self._connection.execute(f"{keep} INTO versions VALUES ({_VERSION_FIELDS})", version)

    def pin(self, path: bytes, number: int) -> None:
        self._connection.execute("INSERT INTO pins VALUES (?, ?)", (path, number))

    def conclude(self, run: int) -> tuple[int, int]:
        """What follows from all together. Returns how many files and links are present, and their bytes."""
        for statement in _FINISH:
            self._connection.execute(statement, {"run": run} if ":run" in statement else {})
        present = (
            f"SELECT count(*), coalesce(sum(size), 0) FROM files WHERE area != {Area.DELETED:d}"
            f" AND kind IN ({Kind.FILE:d}, {Kind.LINK:d})"
        )
        files, size_bytes = self._connection.execute(present).fetchone()
        return int(files), int(size_bytes)

    def end(self, run: int, ended_ns: int, status: str, counts: str, settings: dict[str, int | str]) -> None:
        self._connection.execute(
            "UPDATE runs SET ended_ns = ?, status = ?, counts = ? WHERE number = ?",
            (ended_ns, status, counts, run),
        )
        self._connection.executemany("INSERT INTO settings VALUES (?, ?)", settings.items())
        self._connection.execute("COMMIT")

    def finish(self, aside: str) -> bool:
        """The new state takes its place; the old one is kept as `aside`. Whether there was one."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
        old = self._folder / STATE_NAME
        had_one = os.path.lexists(old)
        self._exchange(old, aside)
        set_seal(old, self._opening)
        return had_one

    def _exchange(self, old: Path, aside: str) -> None:
        for suffix in _SUFFIXES:
            one = old.with_name(STATE_NAME + suffix)
            if os.path.lexists(one):
                one.rename(one.with_name(aside + suffix))
        self._path.rename(old)

    def close(self) -> None:
        """Nothing is left of a state that hasn't taken its place."""
        self._connection.close()
        self._remove_draft()

    def _remove_draft(self) -> None:
        for suffix in _SUFFIXES:
            self._path.with_name(NEW_NAME + suffix).unlink(missing_ok=True)
