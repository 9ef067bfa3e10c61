"""One run at a time: an advisory `flock` on `.pipeline/lock`.

The kernel drops the lock with its holder, however that ends, so no stale lock can be left. The file's text
(holder's pid and start) is only for people; it is not what locks. Whoever only wants to know looks with
`holder`, which has the lock for an instant; a run tries for longer than that, so nobody who looks can
refuse it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import orjson

from pipeline.model.errors import LockedError

LOCK_NAME = b"lock"
_ATTEMPTS = 6
_PAUSE_S = 0.01
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


class Holder(NamedTuple):
    """Who holds the lock, as far as its text can tell. start: ISO 8601, UTC."""

    pid: int | None
    start: str | None


def acquire(folder: int, now_ns: int) -> int:
    """The handle that holds the lock until it is closed. Raises LockedError where another run holds it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(LOCK_NAME, flags, 0o600, dir_fd=folder)
    _lock(handle)
    os.ftruncate(handle, 0)
    os.pwrite(handle, orjson.dumps({"pid": os.getpid(), "start": start_text(now_ns)}), 0)
    return handle


def acquire_for_reading(folder: int) -> int | None:
    """The same for a dry run, which writes nothing, not even the lock's text. None: there is no lock yet."""
    try:
        handle = os.open(LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    _lock(handle)
    return handle


def holder(own_folder: Path) -> Holder | None:
    """Who holds the lock now; None where nobody does. own_folder: `.pipeline`. Writes nothing."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        handle = os.open(own_folder / os.fsdecode(LOCK_NAME), flags)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return _holder(handle)
        raise
    else:
        return None
    finally:
        os.close(handle)


def start_text(start_ns: int) -> str:
    """The start of a run as the lock's text has it."""
    return datetime.fromtimestamp(start_ns // 10**9, UTC).isoformat()


def _lock(handle: int) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            is_held = error.errno in _HELD
            if is_held and attempt < _ATTEMPTS:
                time.sleep(_PAUSE_S)
                continue
            pid, start = _holder(handle)
            os.close(handle)
            if is_held:
                raise LockedError(pid, start) from error
            raise


def _holder(handle: int) -> Holder:
    """What the text says, unless its process is gone: a dry run that holds the lock leaves an older text."""
    try:
        text = orjson.loads(os.pread(handle, 4096, 0))
        pid, start = int(text["pid"]), str(text["start"])
    except (ValueError, KeyError, TypeError):
        return Holder(None, None)
    return Holder(pid, start) if _is_alive(pid) else Holder(None, None)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
