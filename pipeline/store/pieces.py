"""A file's bytes in pieces, holes told apart from data: nobody reads or writes what isn't there.

In: an open file. Out: pieces from its start. Guarantees: together they are what reading the file gives; a
piece lies in one half of the caller's buffer until the next but one is asked for, so that something can still
be at it while the next is read. Fails with OSError.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator

from pipeline.store import calls
from pipeline.store.page_cache import AHEAD_BYTES, ask_ahead

_BLOCK_BYTES = 512
"""What `st_blocks` counts, on every file system (stat(2))."""
_SMALL_HOLE_BYTES = 64 << 10
_ZEROS = memoryview(bytes(1 << 20))
_CANT_TELL = (errno.EINVAL, errno.ENOTSUP)
_LEAVES_OUT_DATA = sys.platform != "linux"
"""On macOS, SEEK_DATA from within data leads to the data behind the next hole (gnulib's manual: lseek); on
systems where nobody has looked, data is everywhere."""


def pieces(handle: int, buffer: bytearray, size_bytes: int) -> Iterator[tuple[memoryview, bool]]:
    """At most `size_bytes`, each piece with whether it is a hole (whose bytes are all zero)."""
    found = os.fstat(handle)
    if found.st_blocks * _BLOCK_BYTES >= found.st_size or not _tells_holes(handle):
        yield from _data(handle, buffer, 0, size_bytes)
        return
    offset = 0
    while offset < size_bytes:
        data_at = _next(handle, offset, os.SEEK_DATA)
        if data_at is None:  # nothing but a hole up to the end, which may have moved
            data_at = os.fstat(handle).st_size
        end = max(offset, min(size_bytes, data_at))
        yield from _hole(end - offset)
        hole_at = _end_of_data(handle, end)
        if hole_at is None:
            return
        offset = min(size_bytes, max(end, hole_at))
        yield from _data(handle, buffer, end, offset)


def _data(handle: int, buffer: bytearray, offset: int, end: int) -> Iterator[tuple[memoryview, bool]]:
    half = max(1, len(buffer) // 2)
    view, other = memoryview(buffer)[:half], memoryview(buffer)[-half:]
    asked = offset + half
    while count := calls.preadv(handle, [view[: end - offset]], offset):
        if asked < end and offset + AHEAD_BYTES > asked:
            ask_ahead(handle, asked, min(end - asked, AHEAD_BYTES))
            asked += AHEAD_BYTES
        yield view[:count], False
        view, other = other, view
        offset += count


def _hole(size_bytes: int) -> Iterator[tuple[memoryview, bool]]:
    while size_bytes > 0:
        piece = _ZEROS[:size_bytes]
        yield piece, True
        size_bytes -= len(piece)


def _end_of_data(handle: int, offset: int) -> int | None:
    """Where the next hole begins that is worth it: what lies between many small ones is read in one go."""
    hole_at = _next(handle, offset, os.SEEK_HOLE)
    while hole_at is not None:
        data_at = _next(handle, hole_at, os.SEEK_DATA)
        if data_at is None or data_at - hole_at >= _SMALL_HOLE_BYTES:
            return hole_at
        hole_at = _next(handle, data_at, os.SEEK_HOLE)
    return None


def _next(handle: int, offset: int, what: int) -> int | None:
    """Where the next data, or the next hole, begins; None behind the last one."""
    try:
        return os.lseek(handle, offset, what)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _tells_holes(handle: int) -> bool:
    """Whether the file system knows; one that doesn't has data everywhere."""
    if _LEAVES_OUT_DATA:
        return False
    try:
        os.lseek(handle, 0, os.SEEK_HOLE)
    except OSError as error:
        return error.errno not in _CANT_TELL
    return True
