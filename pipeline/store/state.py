"""The state: one SQLite database, the index of the backup and the journal's home.

In: records, versions, operations, as the committer decides them. Out: the same, in scan order.
Guarantees: one writing connection, WAL, `synchronous=FULL`, so a commit survives a power cut and a kill
leaves the state of the last commit (promise 5). Everything that is written between two commits is visible to
this connection at once, so the planner sees what the run has already decided. Reads go in key ranges: no
statement stays open, so the WAL can be emptied and memory stays flat (promise 6).
Fails with SQLite's own errors, which `translated_errors` turns into `StateError` (damaged) or
`BackupSideError` (can't be written) at the one place where the engine opens the state.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.layout import SourcePlace
from pipeline.model import attributes, treepath
from pipeline.model.errors import BackupSideError, DamagedStateError
from pipeline.model.plan import Plan
from pipeline.model.record import Area, Kind, Record, Version, VersionStatus
from pipeline.store import operation
from pipeline.store.operation import Operation
from pipeline.store.owners import GROUP, USER, owner_name
from pipeline.store.reading import RANGE_ROWS, RECORD_COLUMNS, Readable, read_attributes, read_range

REBUILD_ADVICE = (
    "If a state.db of this backup exists elsewhere, put it back;"
    " otherwise `python -m pipeline rebuild` makes a new one from the files."
)

RETENTION_RULES = "retention_rules"
"""The setting by which `store.prospects` knows that nothing has escaped it."""
_INTENTS_PER_ROW = 64
_ASKED_AT_ONCE = 64

_WRITE_RECORD = f"REPLACE INTO files VALUES ({', '.join('?' * len(Record._fields))})"
_WHICH_LIVE = (
    "SELECT digest FROM files WHERE area = 0 AND digest IS NOT NULL"
    f" AND digest IN ({', '.join('?' * _ASKED_AT_ONCE)})"
)
_WRITE_VERSION = f"REPLACE INTO versions VALUES ({', '.join('?' * len(Version._fields))})"


_NOT_OUR_FORM = ("no such table", "no such column", "unsupported file format")


@contextmanager
def translated_errors() -> Iterator[None]:
    """SQLite's errors as ours: what can't be written is the disk's matter, what can't be read the state's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if str(error).startswith(_NOT_OUR_FORM):
            raise DamagedStateError(f"state.db is damaged: {error}", REBUILD_ADVICE) from error
        raise BackupSideError(f"can't use state.db: {error}") from error
    except sqlite3.DatabaseError as error:
        raise DamagedStateError(f"state.db is damaged: {error}", REBUILD_ADVICE) from error


def connect_writer(path: Path) -> sqlite3.Connection:
    """The one writing connection. Also a `fast` run syncs its commits: a rename must never be on the disk
    before the transaction that explains it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # and not only to the drive's cache, on macOS
    connection.execute("PRAGMA cache_size = -16384")
    return connection


def read_places(state: Readable) -> dict[bytes, SourcePlace]:
    """The places of all sources that a state knows."""
    sources = state.execute("SELECT name, at_root FROM sources ORDER BY name").fetchall()
    respelled: dict[bytes, set[bytes]] = {}
    for (path,) in state.execute("SELECT path FROM respelled").fetchall():
        if treepath.is_valid(path):
            respelled.setdefault(treepath.source_name(path), set()).add(treepath.relative(path))
    return source_places(sources, respelled)


def source_places(
    sources: Iterable[tuple[bytes, bool]], respelled: Mapping[bytes, Set[bytes]] = MappingProxyType({})
) -> dict[bytes, SourcePlace]:
    """The places of sources, given as name and whether it lies at the root. Only that one has siblings.

    What can't be the name of a source is left out, and with it what the state says of its paths.
    """
    sources = [found for found in sources if treepath.is_valid(found[0]) and treepath.is_name(found[0])]
    siblings = frozenset(name for name, at_root in sources if not at_root)
    return {
        name: SourcePlace(
            name, bool(at_root), siblings if at_root else frozenset(), respelled.get(name, frozenset())
        )
        for name, at_root in sources
    }


def keep_attributes(connection: sqlite3.Connection, packed: bytes) -> bytes | None:
    """The identity of extended attributes, which are recorded once for all paths that have the same."""
    name = attributes.identity(packed)
    if name is not None:
        connection.execute("INSERT OR IGNORE INTO attributes VALUES (?, ?)", (name, packed))
    return name


class State:
    """The state as the committer and the engine see it. `connection` is this object's from now on."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._open = False
        self._unwritten: list[Record] = []  # a statement for many records is cheaper than many statements
        self._live_nowhere: set[bytes] = set()
        self._named: tuple[set[int], set[int]] = (set(), set())  # users and groups whose names are recorded
        self._respelled: dict[bytes, set[bytes]] | None = None  # inside each source, as places know it
        self.follow: Callable[[Plan], None] | None = None
        """Who hears of each plan before it is written (`store.prospects`)."""
        self.is_in_doubt = False
        """Whether a commit has failed: what it wrote may be found, or not, when the state is opened again."""

    def close(self) -> None:
        self._connection.close()

    def empty_wal(self) -> bool:
        """Move what is committed from the WAL into the database; whether nothing of it is left there, which a
        reader of an older state can prevent."""
        _, in_wal, moved = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return bool(in_wal == moved)

    # -- transactions -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._open:
            self._connection.execute("BEGIN IMMEDIATE")
            self._open = True

    def commit(self) -> None:
        if self._open:
            self._write_records()
            self.is_in_doubt = True
            self._connection.execute("COMMIT")
            self._open = self.is_in_doubt = False

    def rollback(self) -> None:
        self._unwritten.clear()
        self._live_nowhere.clear()
        self._named = (set(), set())
        if self._open:
            self._connection.rollback()
            self._open = False

    # -- reading ------------------------------------------------------------------------------------------

    def execute(self, query: str, values: Any = (), /) -> sqlite3.Cursor:
        """A question (`Readable`). It sees all that was written before it."""
        self._write_records()
        return self._connection.execute(query, values)

    def record(self, path: bytes) -> Record | None:
        query = f"SELECT {RECORD_COLUMNS} FROM files WHERE path = ?"
        row = self.execute(query, (path,)).fetchone()
        return Record._make(row) if row is not None else None

    def look_ahead(self, digests: list[bytes]) -> None:
        """`live_at` is about to be asked for these contents: most are new, and one query tells which."""
        found: set[bytes] = set()
        for first in range(0, len(digests), _ASKED_AT_ONCE):
            asked = digests[first : first + _ASKED_AT_ONCE]
            asked += asked[:1] * (_ASKED_AT_ONCE - len(asked))  # one statement for any number
            found.update(row[0] for row in self.execute(_WHICH_LIVE, asked))
        self._live_nowhere = set(digests) - found

    def live_at(self, digest: bytes, size: int, other_than: bytes) -> bytes | None:
        """The first path in scan order, but `other_than`, that holds the content at its live place."""
        if digest in self._live_nowhere:
            return None
        query = (
            "SELECT path FROM files WHERE digest = ? AND area = 0 AND size = ? AND path != ? ORDER BY path"
        )
        row = self.execute(query, (digest, size, other_than)).fetchone()
        return row[0] if row is not None else None

    def records(self, low: bytes, high: bytes) -> Iterator[Record]:
        """The records with low < path < high in scan order. They may be written while this is read."""
        return map(Record._make, read_range(self, low, high))

    def deleted_in(self, low: bytes, high: bytes) -> list[Record]:
        """A bounded number of deleted paths in a range whose stored files lie in `_deleted/`."""
        query = (
            f"SELECT {RECORD_COLUMNS} FROM files WHERE path > ? AND path < ? AND area = {Area.DELETED:d}"
            f" AND (digest IS NOT NULL OR target IS NOT NULL) ORDER BY path LIMIT {RANGE_ROWS}"
        )
        return [Record._make(row) for row in self.execute(query, (low, high))]

    def count_present(self, low: bytes, high: bytes) -> int:
        """How many files and links that are in the source lie in a range."""
        query = (
            "SELECT count(*) FROM files WHERE path > ? AND path < ?"
            f" AND area != {Area.DELETED:d} AND kind IN ({Kind.FILE:d}, {Kind.LINK:d})"
        )
        return int(self.execute(query, (low, high)).fetchone()[0])

    def has_present(self, low: bytes, high: bytes) -> bool:
        query = f"SELECT 1 FROM files WHERE path > ? AND path < ? AND area != {Area.DELETED:d} LIMIT 1"
        return self.execute(query, (low, high)).fetchone() is not None

    def has_any(self, low: bytes, high: bytes) -> bool:
        query = "SELECT 1 FROM files WHERE path >= ? AND path < ? LIMIT 1"
        return self.execute(query, (low, high)).fetchone() is not None

    def was_present(self, path: bytes, run: int) -> bool:
        """Whether a path that is in the source by the state was there at the end of an earlier run, too."""
        query = (
            "SELECT 1 FROM files WHERE path = ?1 AND since_run <= ?2 UNION ALL"
            " SELECT 1 FROM history WHERE path = ?1 AND from_run <= ?2 AND to_run > ?2 LIMIT 1"
        )
        return self.execute(query, (path, run)).fetchone() is not None

    def names_of_files(self, after: tuple[int, bytes]) -> list[Record]:
        """A bounded number of paths of files with several names in their file system, by inode and path."""
        query = (
            f"SELECT {RECORD_COLUMNS} FROM files WHERE links > 1 AND area != {Area.DELETED:d}"
            f" AND (inode, path) > (?, ?) ORDER BY inode, path LIMIT {RANGE_ROWS}"
        )
        return [Record._make(row) for row in self.execute(query, after)]

    def count_names(self, record: Record) -> int:
        """How many paths there are for the inode of a file with several names, on its disk."""
        query = (
            f"SELECT count(*) FROM files WHERE links > 1 AND area != {Area.DELETED:d} AND inode = ?"
            " AND links >> 32 = ?"
        )
        return int(self.execute(query, (record.inode, record.links >> 32)).fetchone()[0])

    def orphaned_duplicates(self, after: bytes) -> list[Record]:
        """A bounded number of duplicates, in scan order, whose original is no longer a file in the source."""
        columns = ", ".join(f"d.{name}" for name in Record._fields)
        query = (
            f"SELECT {columns} FROM files AS d WHERE d.area = {Area.DUPLICATE:d} AND d.path > ?"
            " AND NOT EXISTS (SELECT 1 FROM files AS o WHERE o.path = d.original"
            f" AND o.area != {Area.DELETED:d} AND o.kind = {Kind.FILE:d}) ORDER BY d.path LIMIT {RANGE_ROWS}"
        )
        return [Record._make(row) for row in self.execute(query, (after,))]

    def with_more_versions(self, limit: int, after: bytes) -> list[Record]:
        """A bounded number of paths, in scan order, with more than `limit` counted versions."""
        query = (
            f"SELECT {RECORD_COLUMNS} FROM files WHERE path IN (SELECT path FROM files"
            " WHERE kept_versions > ? AND kept_versions > 0) AND path > ?"
            f" ORDER BY path LIMIT {RANGE_ROWS}"
        )
        return [Record._make(row) for row in self.execute(query, (limit, after))]

    def figures(self) -> tuple[int, int]:
        """How many files and links are in the source by the state, and their bytes. Reads the whole table."""
        query = (
            f"SELECT count(*), coalesce(sum(size), 0) FROM files WHERE area != {Area.DELETED:d}"
            f" AND kind IN ({Kind.FILE:d}, {Kind.LINK:d})"
        )
        row = self.execute(query).fetchone()
        return int(row[0]), int(row[1])

    def versions(self, path: bytes) -> list[Version]:
        rows = self.execute("SELECT * FROM versions WHERE path = ? ORDER BY number", (path,))
        return [Version._make(row) for row in rows]

    def setting(self, key: str) -> Any:
        row = self.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
        return row[0] if row is not None else None

    def sources(self) -> list[tuple[bytes, bool]]:
        """Name and whether it lies at the root, of every source that this backup has ever had."""
        rows = self.execute("SELECT name, at_root FROM sources ORDER BY name")
        return [(name, bool(at_root)) for name, at_root in rows]

    def places(self) -> dict[bytes, SourcePlace]:
        """Where every source lies that this backup has ever had, configured or not. What `respell` adds
        afterwards, they know, too."""
        if self._respelled is None:
            found = read_places(self).items()
            self._respelled = {name: set(place.respelled) for name, place in found}
        sources = self.sources()
        for name, _ in sources:
            self._respelled.setdefault(name, set())
        return source_places(sources, self._respelled)

    def last_run(self) -> tuple[int, str, str, str, int] | None:
        """Number, status, durability, boot id and start (in nanoseconds) of the run before."""
        query = (
            "SELECT number, status, durability, boot_id, started_ns FROM runs ORDER BY number DESC LIMIT 1"
        )
        row = self.execute(query).fetchone()
        return (row[0], row[1], row[2], row[3], row[4]) if row is not None else None

    # -- writing ------------------------------------------------------------------------------------------

    def write(self, plan: Plan, run: int) -> None:
        """A plan's record, the state that it closes, and the version that it makes or ends."""
        self._begin()
        if self.follow is not None:
            self.follow(plan)
        record, old = plan.record, plan.before
        self._unwritten.append(record)
        if record.uid not in self._named[USER] or record.gid not in self._named[GROUP]:
            self._name_owners(record)
        if record.area == Area.LIVE and record.digest is not None:
            self._live_nowhere.discard(record.digest)
        if plan.archived is not None:
            self._connection.execute(_WRITE_VERSION, plan.archived)
        if plan.closes and old is not None and old.since_run != run:
            self._connection.execute(
                "REPLACE INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (old.path, old.since_run, run, old.kind, old.mode, old.uid, old.gid, old.mtime_ns,
                 old.size, old.digest, old.target, old.number, old.attributes, old.linked_to, old.links),
            )  # fmt: skip

    def _name_owners(self, record: Record) -> None:
        """How this system calls the owners, so that another one, with other numbers, can tell who it was."""
        for of, number in ((USER, record.uid), (GROUP, record.gid)):
            if number not in self._named[of]:
                self._named[of].add(number)
                if (name := owner_name(of, number)) is not None:
                    self._connection.execute("REPLACE INTO owners VALUES (?, ?, ?)", (of, number, name))

    def keep_attributes(self, packed: bytes) -> bytes | None:
        """As the function."""
        self._begin()
        return keep_attributes(self._connection, packed)

    def attributes(self, name: bytes | None) -> bytes:
        """The extended attributes of an identity, packed. Raises DamagedStateError."""
        try:
            return read_attributes(self._connection, name) if name is not None else b""
        except ValueError as error:
            raise DamagedStateError(f"state.db is damaged: {error}", REBUILD_ADVICE) from error

    def _write_records(self) -> None:
        if self._unwritten:
            self._connection.executemany(_WRITE_RECORD, self._unwritten)
            self._unwritten.clear()

    def lose_version(self, path: bytes, number: int, run: int) -> None:
        """A version's stored file is nowhere to be found."""
        self.forget_setting(RETENTION_RULES)
        changed = self.execute(
            f"UPDATE versions SET status = {VersionStatus.LOST:d}, ended_run = ? WHERE path = ?"
            f" AND number = ? AND status = {VersionStatus.KEPT:d} RETURNING pinned",
            (run, path, number),
        ).fetchone()
        if changed is not None and not changed[0]:
            self.execute("UPDATE files SET kept_versions = kept_versions - 1 WHERE path = ?", (path,))

    def set_setting(self, key: str, value: int | str) -> None:
        self.put("REPLACE INTO settings VALUES (?, ?)", (key, value))

    def forget_setting(self, key: str) -> None:
        self.put("DELETE FROM settings WHERE key = ?", (key,))

    def put(self, statement: str, values: Any = ()) -> sqlite3.Cursor:
        """A change to what no question about records sees, so those that wait needn't be written before."""
        self._begin()
        return self._connection.execute(statement, values)

    def add_source(self, name: bytes, at_root: bool) -> None:
        self._begin()
        self._connection.execute("INSERT INTO sources VALUES (?, ?)", (name, int(at_root)))

    def respell(self, path: bytes) -> None:
        """From now on the last name of a path is stored as `pipeline.spelling` says. Only for paths of which
        nothing is stored yet."""
        self.put("INSERT OR IGNORE INTO respelled VALUES (?)", (path,))
        assert self._respelled is not None, "whoever knows the place has asked for it"
        self._respelled[treepath.source_name(path)].add(treepath.relative(path))

    def dont_respell(self, path: bytes) -> None:
        """That was no help."""
        self.put("DELETE FROM respelled WHERE path = ?", (path,))
        assert self._respelled is not None, "it was respelled"
        self._respelled[treepath.source_name(path)].discard(treepath.relative(path))

    def begin_run(self, started_ns: int, durability: str, boot_id: str) -> int:
        """A new run's number. It stays `interrupted` until `end_run` says otherwise. Not yet committed."""
        self._begin()
        cursor = self._connection.execute(
            "INSERT INTO runs (started_ns, status, durability, boot_id) VALUES (?, 'interrupted', ?, ?)",
            (started_ns, durability, boot_id),
        )
        assert cursor.lastrowid is not None, "an INSERT gives a row number"
        return cursor.lastrowid

    def forget_run(self, number: int) -> None:
        """It has done nothing that people would look for: the next run gets its number, and what this one has
        refreshed in silence counts as that one's. Not yet committed."""
        self._begin()
        self._connection.execute("DELETE FROM runs WHERE number = ?", (number,))

    def distrust_run(self, number: int) -> None:
        """A run whose writes may not all have reached the disk: no boot is the one that it ran in."""
        self._begin()
        self._connection.execute("UPDATE runs SET boot_id = '' WHERE number = ?", (number,))

    def end_run(self, number: int, ended_ns: int, status: str, counts: str) -> None:
        self._begin()
        self._connection.execute(
            "UPDATE runs SET ended_ns = ?, status = ?, counts = ? WHERE number = ?",
            (ended_ns, status, counts, number),
        )

    # -- intents ------------------------------------------------------------------------------------------

    def intents(self) -> list[Operation]:
        rows = self.execute("SELECT operation FROM intents ORDER BY sequence")
        return list(chain.from_iterable(operation.decode(row[0]) for row in rows))

    def replace_intents(self, operations: Sequence[Operation]) -> None:
        """The previous group's intents go, this group's come, in the transaction that is open."""
        self._begin()
        self._connection.execute("DELETE FROM intents")
        rows = range(0, len(operations), _INTENTS_PER_ROW)
        self._connection.executemany(
            "INSERT INTO intents (operation) VALUES (?)",
            ((operation.encode(operations[first : first + _INTENTS_PER_ROW]),) for first in rows),
        )
