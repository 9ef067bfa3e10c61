"""The kernel's page cache: what is asked for before it is read, and given back where it was read only once.

In: open files. Guarantees: nothing here changes what is read; what was cached before stays cached. Nothing
fails: a file system or a system that can't tell, or doesn't take advice, is left alone.
"""

from __future__ import annotations

import os
from contextlib import suppress

AHEAD_BYTES = 4 << 20
LARGE_BYTES = 8 << 20
"""From here on a file is worth being given back: a thousand small ones cost a call each and hold little."""
_PROBES = 4


def ask_ahead(handle: int, offset: int, size_bytes: int) -> None:
    """Have it read while something else is done (posix_fadvise(2), WILLNEED)."""
    with suppress(OSError, AttributeError):
        os.posix_fadvise(handle, offset, size_bytes, os.POSIX_FADV_WILLNEED)


def let_go(handle: int) -> None:
    """The clean pages of a file go, but for those that somebody has mapped (DONTNEED)."""
    with suppress(OSError, AttributeError):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def is_cached(handle: int, size_bytes: int) -> bool:
    """Whether any of it is, at a few probes that don't wait for the disk (preadv2(2), RWF_NOWAIT).

    True where that can't be told. Asking may begin to read what is asked about: it is for once, before all is
    read.
    """
    flag = getattr(os, "RWF_NOWAIT", None)
    if flag is None:
        return True
    probe = [bytearray(1)]
    for number in range(1, _PROBES + 1):  # not at its start, which somebody may have asked for already
        try:
            os.preadv(handle, probe, size_bytes * number // (_PROBES + 1), flag)
        except BlockingIOError:
            continue
        except OSError:
            return True
        return True
    return False
