"""One run at a time: an advisory `flock` on `.pipeline/lock`.

The kernel drops the lock with its holder, however that ends, so no stale lock can be left. The file's text
(holder's pid and start) is only for people; it is not what locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
from datetime import UTC, datetime

import orjson

from pipeline.model.errors import LockedError

LOCK_NAME = b"lock"


def acquire(folder: int, now_ns: int) -> int:
    """The handle that holds the lock until it is closed. Raises LockedError where another run holds it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(LOCK_NAME, flags, 0o600, dir_fd=folder)
    _lock(handle)
    start = datetime.fromtimestamp(now_ns // 10**9, UTC).isoformat()
    os.ftruncate(handle, 0)
    os.pwrite(handle, orjson.dumps({"pid": os.getpid(), "start": start}), 0)
    return handle


def acquire_for_reading(folder: int) -> int | None:
    """The same for a dry run, which writes nothing, not even the lock's text. None: there is no lock yet."""
    try:
        handle = os.open(LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    _lock(handle)
    return handle


def _lock(handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        pid, start = _holder(handle)
        os.close(handle)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise LockedError(pid, start) from error
        raise


def _holder(handle: int) -> tuple[int | None, str | None]:
    try:
        text = orjson.loads(os.pread(handle, 4096, 0))
        return int(text["pid"]), str(text["start"])
    except (ValueError, KeyError, TypeError):
        return None, None
