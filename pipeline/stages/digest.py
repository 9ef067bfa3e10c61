"""The hash functions, by their names in the configuration: BLAKE3, SHA-256 and XXH3 (128 bits).

Loaded are those that are used: each process of a run would pay for the others at its start.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

from pipeline.model.errors import StationError
from pipeline.store.pieces import pieces

READ_BYTES = 1 << 20
_NO_LIMIT = 1 << 62


class Hasher(Protocol):
    def update(self, data: memoryview, /) -> object: ...

    def digest(self) -> bytes: ...


NewHasher = Callable[..., Hasher]


def hasher(algorithm: str, threads: int = 1) -> NewHasher:
    """The constructor of a hash: called with a buffer or with nothing. threads: at most, for one `update`;
    only BLAKE3, which is a tree, can use more than one. Raises StationError where it can't be loaded."""
    try:
        return _load(algorithm, threads)
    except (ImportError, OSError) as error:  # too few handles are left to read it, or it isn't there
        cause = error.strerror if isinstance(error, OSError) else str(error)
        raise StationError(
            f"can't load {algorithm}: {cause}",
            "What is done is whole. Mend the cause (`ulimit -n`?), then go on.",
        ) from error


def _load(algorithm: str, threads: int) -> NewHasher:
    if algorithm == "sha256":
        import hashlib

        return cast(NewHasher, hashlib.sha256)
    if algorithm == "xxh3_128":
        import xxhash

        return cast(NewHasher, xxhash.xxh3_128)
    import blake3

    if threads > 1:
        return cast(NewHasher, partial(blake3.blake3, max_threads=threads))
    return cast(NewHasher, blake3.blake3)


def of_file(
    handle: int,
    new_hasher: NewHasher,
    buffer: bytearray | None = None,
    has_read: Callable[[int], None] | None = None,
) -> bytes:
    """The digest of an open file from its start. has_read: told now and then how many bytes were read since.
    Raises OSError."""
    buffer = bytearray(READ_BYTES) if buffer is None else buffer
    state, untold_bytes = new_hasher(), 0
    for piece, _ in pieces(handle, buffer, _NO_LIMIT):
        state.update(piece)
        untold_bytes += len(piece)
        if has_read is not None and untold_bytes >= READ_BYTES:
            has_read(untold_bytes)
            untold_bytes = 0
    if has_read is not None:
        has_read(untold_bytes)
    return state.digest()
