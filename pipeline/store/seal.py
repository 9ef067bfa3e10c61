"""The seal: a checksum of the whole `state.db`, so that rot in its rows is noticed before anything is decided
from them. SQLite notices damage to its structure and to the WAL, but not a bit that flips inside a row.

In: `.pipeline`. Out: whether the state is byte for byte what the last writer left. Guarantees: a seal is set
after a writer's connection is closed, and names the opening that it was set after. Each opening is a number
in the state, written with its first commit and so before the database file itself changes; a seal of another
opening says nothing. So a cut leaves a state without a seal, an older copy that somebody puts back is not
taken for damage, and a reader beside a writer isn't fooled. A seal says everything twice, so that one that
rots itself is none. Fails with OSError.
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


def set_seal(state: Path, opening: int) -> None:
    """After the writer's connection was closed, under its lock."""
    line = orjson.dumps(_seal_of(state, opening)._asdict()) + b"\n"
    replace_whole(state.parent, SEAL_NAME, line + line)


def is_intact(connection: Readable, state: Path) -> bool | None:
    """Whether the state is what its seal says; None where there is no seal that speaks of it.

    connection: on that state.
    """
    seal = _read(state)
    if seal is None or seal.opening != opening_of(connection):
        return None
    if _seal_of(state, seal.opening) == seal:
        return True
    # A writer may have begun meanwhile; then it has said so before it changed anything.
    return None if opening_of(connection) != seal.opening else False


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
