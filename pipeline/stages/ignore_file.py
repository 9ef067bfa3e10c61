"""The rules of a folder that come from a file in it: `.pipelineignore`, in gitignore's syntax.

In: the rules of the folder above, the open folder. Out: its own rules, and what is wrong with the file, if
anything. Guarantees: the file is reached through the folder's handle, no link is followed and no fifo waited
for, and no more than MOST_BYTES are read (promises 6 and 8). Lines that are no patterns don't count, the
others do. Never fails: where a file can't be read, its folder has the rules of the one above, and says that
more is not known.
"""

from __future__ import annotations

import errno
import os
import stat

from pipeline.filters import Filter, Line, lines_of
from pipeline.model import treepath
from pipeline.store import calls
from pipeline.store.folders import READ_FLAGS

NAME = b".pipelineignore"
MOST_BYTES = 1 << 20
MOST_LINES = 10_000


def rules_inside(above: Filter, handle: int, folder: bytes) -> tuple[Filter, str | None]:
    """handle: of the folder. folder: its tree path. The problem is in words."""
    try:
        content = _read(handle)
    except FileNotFoundError:
        return above, None
    except OSError as error:
        is_link = error.errno == errno.ELOOP
        cause = "it is a link" if is_link else error.strerror
        return above.uncertain(), f"its rules don't hold: {cause}"
    shown = treepath.shown(treepath.join(folder, NAME))
    lines = lines_of(content, shown) if content is not None else []
    if content is None or len(lines) > MOST_LINES:
        return above.uncertain(), (
            f"its rules don't hold: it is not a file of at most {MOST_BYTES} bytes and {MOST_LINES} lines"
        )
    rules, refused = above.within(treepath.relative(folder), lines)
    return rules, _said(refused) if refused else None


def _read(folder: int) -> bytes | None:
    """None where it isn't a regular file of a bearable size."""
    handle = calls.open(NAME, READ_FLAGS, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        pieces, size_bytes = list[bytes](), 0
        while piece := os.read(handle, MOST_BYTES + 1 - size_bytes):
            pieces.append(piece)
            size_bytes += len(piece)
            if size_bytes > MOST_BYTES:
                return None
        return b"".join(pieces)
    finally:
        os.close(handle)


def _said(refused: list[Line]) -> str:
    """The first of the lines that are no patterns, and how many more there are."""
    first = refused[0]
    number = first.where.rpartition(":")[2]
    more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
    return f"line {number} is not a gitignore pattern: {first.text[:100]}{more}"
