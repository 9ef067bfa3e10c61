"""The seal: a checksum of the whole `state.db`, so that rot in its rows is noticed before anything is decided
from them. SQLite notices damage to its structure and to the WAL, but not a bit that flips inside a row.

In: `.pipeline`. Out: whether the state is byte for byte what the last writer left. Guarantees: the seal is
broken, durably, before a writer's first write, and set again after its connection is closed; so a state that
was cut has none, and one that is there speaks of the state beside it. It names the opening that it was set
after (a number in the state itself), so an older copy that somebody has put back is not taken for damage, and
says everything twice, so a seal that rots itself is no seal. Fails with OSError.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import orjson
import xxhash

from pipeline.store.reading import Readable

SEAL_NAME = "state.seal"
OPENINGS = "openings"
"""The setting that counts how often the state was opened for writing."""
_READ_BYTES = 1 << 20


class Seal(NamedTuple):
    """openings: the state's count. size: in bytes. checksum: hex XXH3 (128 bits) of the file."""

    openings: int
    size: int
    checksum: str


def break_seal(own: int) -> None:
    """own: the handle of `.pipeline`. The change is on the disk when this returns."""
    try:
        os.unlink(SEAL_NAME, dir_fd=own)
    except FileNotFoundError:
        return
    os.fsync(own)


def set_seal(own: int, state: Path, openings: int) -> None:
    """After the writer's connection was closed, under its lock."""
    line = orjson.dumps(_seal_of(state, openings)._asdict())
    draft = f"{SEAL_NAME}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(draft, flags, 0o600, dir_fd=own), "wb") as file:
        file.write(line + b"\n" + line + b"\n")
    os.replace(draft, SEAL_NAME, src_dir_fd=own, dst_dir_fd=own)


def is_intact(connection: Readable, state: Path) -> bool | None:
    """Whether the state is what its seal says; None where there is no seal that speaks of it.

    connection: on that state. A writer that begins meanwhile breaks the seal first, which is noticed.
    """
    while True:
        text = _text(state)
        seal = _parsed(text)
        if seal is None or seal.openings != openings(connection):
            return None
        if _seal_of(state, seal.openings) == seal:
            return True
        if _text(state) == text:
            return False


def openings(connection: Readable) -> int:
    rows = connection.execute("SELECT value FROM settings WHERE key = ?", (OPENINGS,)).fetchall()
    return int(rows[0][0]) if rows else 0


def _seal_of(state: Path, count: int) -> Seal:
    hasher, size_bytes, buffer = xxhash.xxh3_128(), 0, bytearray(_READ_BYTES)
    with state.open("rb", buffering=0) as file:
        while read_bytes := file.readinto(buffer):
            hasher.update(memoryview(buffer)[:read_bytes])
            size_bytes += read_bytes
    return Seal(count, size_bytes, hasher.hexdigest())


def _text(state: Path) -> bytes:
    try:
        return state.with_name(SEAL_NAME).read_bytes()
    except FileNotFoundError:
        return b""


def _parsed(text: bytes) -> Seal | None:
    first, _, second = text.removesuffix(b"\n").partition(b"\n")
    if not first or first != second:
        return None
    try:
        found = orjson.loads(first)
        return Seal(int(found["openings"]), int(found["size"]), str(found["checksum"]))
    except (ValueError, TypeError, KeyError):
        return None
