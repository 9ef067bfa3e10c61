"""The seal: a checksum of the whole `state.db`, so that rot in its rows is noticed before anything is decided
from them. SQLite notices damage to its structure and to the WAL, but not a bit that flips inside a row.

In: the database's path. Out: whether it is byte for byte what the last writer left. Guarantees: a seal is
set after a writer has moved everything from the WAL into the database and closed its connection, and names
the opening that it was set after. Each opening is a number in the state, written with its first commit and
so before the file changes again; a seal of another opening says nothing. So a cut leaves a state without a
seal, an older copy that somebody puts back is not taken for damage, and a reader beside a writer isn't
fooled. A seal says everything twice, so that one that rots itself is none. Fails with OSError.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import orjson
import xxhash

from pipeline.store.reading import Readable
from pipeline.store.whole import read_whole, replace_whole

SEAL_NAME = "state.seal"
OPENING = "opening"
"""The setting that names the last opening of the state for writing: when that was, in nanoseconds."""
_READ_BYTES = 1 << 20


class Seal(NamedTuple):
    """opening: of the state. size: in bytes. checksum: hex XXH3 (128 bits) of the file."""

    opening: int
    size: int
    checksum: str


class Looked(NamedTuple):
    """What a seal says of the file beside it, if the state names the same opening."""

    opening: int
    fits: bool


def set_seal(state: Path, opening: int) -> None:
    """After the writer's connection was closed, under its lock."""
    line = orjson.dumps(_seal_of(state, opening)._asdict()) + b"\n"
    replace_whole(state.parent, SEAL_NAME, line + line)


def look(state: Path, at_most_bytes: int | None = None) -> Looked | None:
    """Compare the file with its seal; None where there is none, or the state is larger than `at_most_bytes`.

    Before the process has a connection to it: to close the file is to drop all locks that SQLite has on it
    (fcntl(2)). Whether the seal speaks of this state at all, only a connection tells: `opening_of`.
    """
    seal = _read(state)
    if seal is None or (at_most_bytes is not None and seal.size > at_most_bytes):
        return None
    return Looked(seal.opening, _seal_of(state, seal.opening) == seal)


def opening_of(connection: Readable) -> int | None:
    rows = connection.execute("SELECT value FROM settings WHERE key = ?", (OPENING,)).fetchall()
    return rows[0][0] if rows else None


def _seal_of(state: Path, opening: int) -> Seal:
    hasher, size_bytes, buffer = xxhash.xxh3_128(), 0, bytearray(_READ_BYTES)
    with state.open("rb", buffering=0) as file:
        while read_bytes := file.readinto(buffer):
            hasher.update(memoryview(buffer)[:read_bytes])
            size_bytes += read_bytes
    return Seal(opening, size_bytes, hasher.hexdigest())


def _read(state: Path) -> Seal | None:
    text = read_whole(state.with_name(SEAL_NAME)) or b""
    first, _, second = text.removesuffix(b"\n").partition(b"\n")
    if not first or first != second:
        return None
    try:
        found = orjson.loads(first)
        return Seal(int(found["opening"]), int(found["size"]), str(found["checksum"]))
    except (ValueError, TypeError, KeyError):
        return None
