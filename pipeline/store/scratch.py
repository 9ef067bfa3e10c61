"""What is too much for memory and is needed only until a command ends: contents, paired and grouped.

In: digests, sizes and paths, in scan order. Out: pairs and groups, in an order that follows from them
alone.
Guarantees: each database is one of its own that SQLite keeps in memory up to its page cache and then in an
unnamed file of the system's temporary folder, so memory stays flat (promise 6), nothing is left by a kill,
and the backup isn't touched. Fails with ScratchError where that folder is full or can't be written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from pipeline.model.errors import PipelineError

_ROWS_AT_ONCE = 1_000


class ScratchError(PipelineError):
    """The temporary folder can't take what a command has to put aside."""

    def __init__(self, error: sqlite3.Error | OSError) -> None:
        super().__init__(
            f"can't use the temporary folder: {error}",
            "Make room there, or name another one in the environment variable SQLITE_TMPDIR.",
        )


class _Scratch:
    """A database that nobody else sees and that ends with this object."""

    def __init__(self, schema: str) -> None:
        with _translated_errors():
            self._connection = sqlite3.connect("", isolation_level=None)
            # Nothing of it is ever needed again, so nothing has to be undone or synced either.
            self._connection.executescript(
                f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {schema}; BEGIN"
            )

    def close(self) -> None:
        self._connection.close()

    def _run(self, *statements: str) -> None:
        with _translated_errors():
            for statement in statements:
                self._connection.execute(statement)

    def _add(self, table: str, digest: bytes, size: int, path: bytes) -> None:
        with _translated_errors():
            query = f"INSERT INTO {table} (digest, size, path) VALUES (?, ?, ?)"
            self._connection.execute(query, (digest, size, path))

    def _one(self, query: str, value: bytes) -> bytes | None:
        with _translated_errors():
            row = self._connection.execute(query, (value,)).fetchone()
        return row[0] if row is not None else None

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
        with _translated_errors():
            cursor = self._connection.execute(query, values)
            rows = cursor.fetchmany(_ROWS_AT_ONCE)
        while rows:
            yield from rows
            with _translated_errors():
                rows = cursor.fetchmany(_ROWS_AT_ONCE)


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise ScratchError(error) from error


def _numbered(table: str) -> str:
    """The rows of a table, those of equal content numbered in the order in which they were added."""
    number = "row_number() OVER (PARTITION BY digest, size ORDER BY rowid) AS number"
    return f"(SELECT digest, size, path, {number} FROM {table})"


class Moves(_Scratch):
    """Which files that came have the content of one that went: first with first, each once."""

    def __init__(self) -> None:
        columns = "(digest BLOB NOT NULL, size INTEGER NOT NULL, path BLOB NOT NULL)"
        super().__init__(
            f"CREATE TABLE went {columns}; CREATE TABLE came {columns};"
            "CREATE TABLE moves (came BLOB PRIMARY KEY, went BLOB NOT NULL) WITHOUT ROWID"
        )

    def went(self, digest: bytes, size: int, path: bytes) -> None:
        """A file that is there no longer. Call in scan order."""
        self._add("went", digest, size, path)

    def came(self, digest: bytes, size: int, path: bytes) -> None:
        """A file that was not there before. Call in scan order."""
        self._add("came", digest, size, path)

    def pair(self) -> None:
        """To be called once, when all are known."""
        self._run(
            f"INSERT INTO moves SELECT came.path, went.path FROM {_numbered('came')} AS came"
            f" JOIN {_numbered('went')} AS went USING (digest, size, number)",
            "CREATE INDEX moves_went ON moves (went)",
        )

    def origin(self, path: bytes) -> bytes | None:
        """Where a file that came was before; None where it is new."""
        return self._one("SELECT went FROM moves WHERE came = ?", path)

    def has_moved(self, path: bytes) -> bool:
        """Whether a file that went is somewhere else now."""
        return self._one("SELECT came FROM moves WHERE went = ?", path) is not None


class Group(NamedTuple):
    """A content that more than one path has. members: how many."""

    digest: bytes
    size: int
    members: int

    @property
    def cost_bytes(self) -> int:
        """What one stored copy instead of all of them would save."""
        return (self.members - 1) * self.size


class Groups(_Scratch):
    """Paths by their content."""

    def __init__(self) -> None:
        super().__init__(
            "CREATE TABLE files (digest BLOB NOT NULL, size INTEGER NOT NULL, path BLOB NOT NULL)"
        )

    def add(self, digest: bytes, size: int, path: bytes) -> None:
        """A file. Call in scan order."""
        self._add("files", digest, size, path)

    def group(self) -> None:
        """To be called once, when all are known."""
        # Rows of equal content lie in the index in the order of their numbers: as they were added.
        self._run(
            "CREATE INDEX files_content ON files (digest, size)",
            "CREATE TABLE groups AS SELECT digest, size, count(*) AS members, min(rowid) AS first"
            " FROM files GROUP BY digest, size HAVING count(*) > 1",
        )

    def groups(self) -> Iterator[Group]:
        """Those that cost most first, then those whose first path comes first."""
        query = "SELECT digest, size, members FROM groups ORDER BY (members - 1) * size DESC, first"
        for row in self._rows(query):
            yield Group._make(row)

    def paths(self, group: Group) -> Iterator[bytes]:
        """The paths of a group in scan order."""
        query = "SELECT path FROM files WHERE digest = ? AND size = ? ORDER BY rowid"
        for row in self._rows(query, (group.digest, group.size)):
            path = row[0]
            assert isinstance(path, bytes)
            yield path


class FirstNames(_Scratch):
    """Of each file with several names: which of those that were asked for came first."""

    def __init__(self) -> None:
        super().__init__("CREATE TABLE names (of BLOB PRIMARY KEY, first BLOB) WITHOUT ROWID")

    def first(self, of: bytes, path: bytes) -> bytes:
        """of: the file, by its first name of all. path: the one that has come now."""
        with _translated_errors():
            self._connection.execute("INSERT OR IGNORE INTO names VALUES (?, ?)", (of, path))
        found = self._one("SELECT first FROM names WHERE of = ?", of)
        assert found is not None, "it was just written"
        return found
