"""The form of the state: its tables, and how a state of an earlier form is met.

In: connections. Out: the same, of this form. Guarantees: a writer brings an older state up to date in one
transaction, so a cut leaves the old form or the new one; a reader, which writes nothing, sees an older state
as if that had been done. Fails with SQLite's errors.

| form | what it added |
|------|---------------|
| 2    | extended attributes, hard links, the names of owners, the rules that took versions |
| 3    | the paths whose last names are respelled |
"""

from __future__ import annotations

import sqlite3

SCHEMA_VERSION = 3

SCHEMA = """
CREATE TABLE settings (key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID;
CREATE TABLE sources (name BLOB PRIMARY KEY, at_root INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (
    number INTEGER PRIMARY KEY, started_ns INTEGER NOT NULL, ended_ns INTEGER, status TEXT NOT NULL,
    durability TEXT NOT NULL, boot_id TEXT NOT NULL, counts TEXT,
    has_doubted_clock INTEGER NOT NULL DEFAULT 0);
CREATE TABLE files (
    path BLOB PRIMARY KEY, kind INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL,
    gid INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    size INTEGER NOT NULL, digest BLOB, target BLOB, area INTEGER NOT NULL, original BLOB,
    number INTEGER NOT NULL, kept_versions INTEGER NOT NULL, since_run INTEGER NOT NULL,
    unsettled INTEGER NOT NULL, links INTEGER NOT NULL DEFAULT -1, attributes BLOB,
    linked_to BLOB) WITHOUT ROWID;
CREATE INDEX files_live ON files (digest) WHERE area = 0 AND digest IS NOT NULL;
CREATE INDEX files_duplicates ON files (path, original) WHERE area = 1;
CREATE INDEX files_kept_versions ON files (kept_versions) WHERE kept_versions > 0;
CREATE INDEX files_names ON files (inode, path) WHERE links > 1 AND area != 2;
CREATE TABLE history (
    path BLOB NOT NULL, from_run INTEGER NOT NULL, to_run INTEGER NOT NULL, kind INTEGER NOT NULL,
    mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    size INTEGER NOT NULL, digest BLOB, target BLOB, number INTEGER NOT NULL, attributes BLOB,
    linked_to BLOB, links INTEGER NOT NULL DEFAULT -1, PRIMARY KEY (path, from_run)) WITHOUT ROWID;
CREATE TABLE versions (
    path BLOB NOT NULL, number INTEGER NOT NULL, kind INTEGER NOT NULL, size INTEGER NOT NULL, digest BLOB,
    target BLOB, mtime_ns INTEGER NOT NULL, pinned INTEGER NOT NULL, status INTEGER NOT NULL,
    ended_run INTEGER, ended_why TEXT, PRIMARY KEY (path, number)) WITHOUT ROWID;
CREATE TABLE intents (sequence INTEGER PRIMARY KEY, operation BLOB NOT NULL);
CREATE TABLE attributes (identity BLOB PRIMARY KEY, packed BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE owners (
    is_group INTEGER, id INTEGER, name TEXT NOT NULL, PRIMARY KEY (is_group, id)) WITHOUT ROWID;
CREATE TABLE respelled (path BLOB PRIMARY KEY) WITHOUT ROWID;
"""

# `number` in `history` and `files` names a content of the path: the version number that it has, or will get.
# So a content's place follows from the path's current record and from `versions`, and a METADATA action, or
# a move between the areas, never has to touch the history.

_COLUMNS_SINCE_1 = (
    ("files", "links INTEGER NOT NULL DEFAULT -1"),
    ("files", "attributes BLOB"),
    ("files", "linked_to BLOB"),
    ("history", "attributes BLOB"),
    ("history", "linked_to BLOB"),
    ("history", "links INTEGER NOT NULL DEFAULT -1"),
    ("versions", "ended_why TEXT"),
    ("runs", "has_doubted_clock INTEGER NOT NULL DEFAULT 0"),
)
_TABLES_SINCE_1 = ("files_names", "attributes", "owners")
"""And indexes: what they are called where they are created."""
_TABLES_SINCE_2 = ("respelled",)

_SEEN_FROM_2 = "CREATE TEMP TABLE respelled (path BLOB);"
_SEEN_FROM_1 = f"""
{_SEEN_FROM_2}
CREATE TEMP VIEW files AS SELECT *, -1 AS links, NULL AS attributes, NULL AS linked_to FROM main.files;
CREATE TEMP VIEW history AS SELECT *, NULL AS attributes, NULL AS linked_to, -1 AS links
    FROM main.history;
CREATE TEMP VIEW runs AS SELECT *, 0 AS has_doubted_clock FROM main.runs;
CREATE TEMP VIEW versions AS SELECT *, NULL AS ended_why FROM main.versions;
CREATE TEMP TABLE attributes (identity BLOB, packed BLOB);
CREATE TEMP TABLE owners (is_group INTEGER, id INTEGER, name TEXT);
"""


def with_schema(connection: sqlite3.Connection) -> sqlite3.Connection:
    """A fresh database's tables, in one transaction."""
    connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    return connection


def form_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchall()[0][0])


def bring_up_to_date(connection: sqlite3.Connection, opening: tuple[str, int]) -> None:
    """A writer's state gets this form. opening: the setting that a writer's first commit must bring along."""
    form = form_of(connection)
    if form == SCHEMA_VERSION:
        return
    tables = _TABLES_SINCE_2 if form == 2 else (*_TABLES_SINCE_1, *_TABLES_SINCE_2)
    columns = () if form == 2 else _COLUMNS_SINCE_1
    new = [s for s in SCHEMA.split(";")[:-1] if s.split()[2] in tables]
    added = [f"ALTER TABLE {table} ADD COLUMN {column}" for table, column in columns]
    connection.execute("BEGIN IMMEDIATE")
    for statement in (*added, *new, f"PRAGMA user_version = {SCHEMA_VERSION}"):
        connection.execute(statement)
    connection.execute("REPLACE INTO settings VALUES (?, ?)", opening)
    connection.execute("COMMIT")


def see_in_this_form(connection: sqlite3.Connection) -> bool:
    """What a reader of an older state asks is answered as by one of this form: under any name, SQLite finds
    first what is temporary. Whether that was needed: it hides what a writer alters meanwhile."""
    form = form_of(connection)
    is_older = form in (1, 2)
    if is_older:
        connection.executescript(_SEEN_FROM_1 if form == 1 else _SEEN_FROM_2)
    return is_older
