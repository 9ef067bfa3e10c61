"""Reading the state from outside of the run that writes it: the scanner, and whoever looks at a backup.

In: the database's path. Out: rows, in key ranges. Guarantees: nothing is written, no lock is taken, and no
statement stays open, so memory stays flat and the writer can empty its WAL. Fails with SQLite's errors.

Where no writer has left a WAL, the database is opened as immutable, so that not even SQLite's own files
appear beside it, also on a read-only disk. Nobody promises, though, that no writer begins meanwhile; so each
piece that was read that way is only used if the database is untouched afterwards, and read again if not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pipeline.model import attributes
from pipeline.model.record import Record, Version
from pipeline.store.schema import SCHEMA_VERSION, form_of, see_in_this_form

RANGE_ROWS = 2_000
RECORD_COLUMNS = ", ".join(Record._fields)
_RANGE = f"SELECT {RECORD_COLUMNS} FROM files WHERE path > ? AND path < ? ORDER BY path LIMIT {RANGE_ROWS}"
_ROW = f"SELECT {RECORD_COLUMNS} FROM files WHERE path = ?"
_FROM = f"SELECT {RECORD_COLUMNS} FROM files WHERE path >= ? AND path < ? ORDER BY path LIMIT {RANGE_ROWS}"

Row = tuple[Any, ...]


class Fetched(Protocol):
    def fetchall(self) -> list[Any]: ...


class Readable(Protocol):
    """A connection, or a `Reader`."""

    def execute(self, query: str, values: Any = (), /) -> Fetched: ...


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that can't write. Where no writer has left a WAL, nothing at all is made beside it."""
    return _connect(path, not path.with_name(path.name + "-wal").exists())[0]


def _connect(path: Path, immutable: bool) -> tuple[sqlite3.Connection, bool]:
    """Also whether the state has an earlier form, which temporary views cover."""
    mode = "mode=ro&immutable=1" if immutable else "mode=ro"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None)
    return connection, _is_seen_as_older(connection)


def _is_seen_as_older(connection: sqlite3.Connection) -> bool:
    with suppress(sqlite3.DatabaseError):  # whoever asks is told the same
        return see_in_this_form(connection)
    return False


class _Rows(NamedTuple):
    rows: list[Row]

    def fetchall(self) -> list[Row]:
        return self.rows


class Reader:
    """A reading connection that notices when a writer begins. Each answer is consistent in itself."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wal = path.with_name(path.name + "-wal")
        self._open()

    def _open(self) -> None:
        self._is_immutable = not self._wal.exists()
        self._seen = self._look()
        # By the same look: one that is taken for a live connection would never notice a writer.
        self._connection, self._is_older = _connect(self._path, self._is_immutable)

    def _look(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def execute(self, query: str, values: Any = (), /) -> _Rows:
        while True:
            try:
                rows = self._connection.execute(query, values).fetchall()
            except sqlite3.DatabaseError:
                has_lost_wal = not self._is_immutable and not self._wal.exists()
                if not self._is_disturbed() and not has_lost_wal:
                    raise
            else:
                if not self._is_disturbed():
                    return _Rows(rows)
            self._connection.close()
            self._open()

    def _is_disturbed(self) -> bool:
        if self._is_older and form_of(self._connection) == SCHEMA_VERSION:
            return True  # a writer has altered it: what covers it hides that
        return self._is_immutable and (self._wal.exists() or self._look() != self._seen)

    def close(self) -> None:
        self._connection.close()


def read_row(state: Readable, path: bytes) -> Row | None:
    """The row of `files` for one path."""
    rows = state.execute(_ROW, (path,)).fetchall()
    return rows[0] if rows else None


def read_attributes(state: Readable, identity: bytes) -> bytes:
    """Extended attributes, packed, by their identity. Raises ValueError where the state doesn't have them."""
    rows = state.execute("SELECT packed FROM attributes WHERE identity = ?", (identity,)).fetchall()
    packed = rows[0][0] if rows else None
    if type(packed) is not bytes or attributes.identity(packed) != identity:
        raise ValueError("the state doesn't have its extended attributes")
    attributes.unpack(packed)
    return packed


def read_range(
    state: Readable, low: bytes, high: bytes, *, with_low: bool = False
) -> Iterator[tuple[Any, ...]]:
    """The rows of `files` with low < path < high, in scan order, a bounded piece at a time.

    with_low: low itself belongs to the range.
    """
    rows = state.execute(_FROM if with_low else _RANGE, (low, high)).fetchall()
    yield from rows
    while len(rows) == RANGE_ROWS:
        rows = state.execute(_RANGE, (rows[-1][0], high)).fetchall()
        yield from rows


def read_versions(state: Readable, low: bytes, high: bytes) -> Iterator[Version]:
    """The versions of the paths with low < path < high, in order, a bounded number of paths at a time."""
    last = (low, 1 << 62)
    query = (
        "SELECT * FROM versions WHERE (path, number) > (?, ?) AND path < ?"
        f" ORDER BY path, number LIMIT {RANGE_ROWS}"
    )
    while rows := state.execute(query, (*last, high)).fetchall():
        yield from map(Version._make, rows)
        last = (rows[-1][0], rows[-1][1])


_KEPT_BYTES = 4 << 20
_ENTRY_BYTES = 200
"""What keeping one takes beside its own bytes, roughly."""


class Remembered:
    """Attributes by their identity, read once as long as there is room for them: most entries of a tree have
    the same few."""

    def __init__(self, read: Callable[[bytes], bytes], most_bytes: int = _KEPT_BYTES) -> None:
        self._read = read
        self._left_bytes = self._most_bytes = most_bytes
        self._kept: dict[bytes, bytes] = {}

    def __call__(self, name: bytes) -> bytes:
        packed = self._kept.get(name)
        if packed is None:
            packed = self._read(name)
            self._left_bytes -= len(packed) + _ENTRY_BYTES
            if self._left_bytes < 0:
                self._kept, self._left_bytes = {}, self._most_bytes
            else:
                self._kept[name] = packed
        return packed
