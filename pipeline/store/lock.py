"""One run at a time: an advisory `flock` on `.pipeline/lock`.

The kernel drops the lock with its holder, however that ends, so no stale lock can be left. The file's text
(holder's pid and start) is only for people; it is not what locks. Whoever only wants to know looks with
`holder`, which has the lock for an instant; a run tries for longer than that, so nobody who looks can
refuse it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import orjson

from pipeline.model.errors import BackupSideError, LockedError
from pipeline.store import calls
from pipeline.store.folders import FOLDER_FLAGS

LOCK_NAME = b"lock"
_ADVICE = "Remove it while no run is at work, then try again."
_ATTEMPTS = 6
_PAUSE_S = 0.01
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


class Holder(NamedTuple):
    """Who holds the lock, as far as its text can tell. start: ISO 8601, UTC."""

    pid: int | None
    start: str | None


def acquire(folder: int, now_ns: int) -> int:
    """The handle that holds the lock until it is closed. Raises LockedError where another run holds it, and
    BackupSideError where something else stands in its place."""
    handle = _open_and_lock(folder, os.O_RDWR | os.O_CREAT)
    if os.fstat(handle).st_nlink > 1:
        handle = _own_lock(folder, handle)
    os.ftruncate(handle, 0)
    os.pwrite(handle, orjson.dumps({"pid": os.getpid(), "start": start_text(now_ns)}), 0)
    return handle


def acquire_for_reading(folder: int) -> int | None:
    """The same for a dry run, which writes nothing, not even the lock's text. None: there is no lock yet."""
    try:
        return _open_and_lock(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None


def holder(own_folder: Path) -> Holder | None:
    """Who holds the lock now; None where nobody does. own_folder: `.pipeline`. Writes nothing."""
    folder = calls.open(own_folder, FOLDER_FLAGS)
    try:
        handle = _open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    finally:
        calls.close(folder)
    try:
        calls.flock(handle, calls.LOCK_SH | calls.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return _holder(handle)
        raise
    else:
        return None
    finally:
        os.close(handle)


def _open(folder: int, flags: int) -> int:
    """Nothing is followed or waited for. Raises FileNotFoundError, and BackupSideError for what is no
    file."""
    try:
        handle = calls.open(
            LOCK_NAME, flags | calls.O_NOFOLLOW | calls.O_NONBLOCK | calls.O_CLOEXEC, 0o600, dir_fd=folder
        )
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BackupSideError(f".pipeline/lock can't be opened: {error.strerror}", _ADVICE) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BackupSideError(".pipeline/lock is not a file", _ADVICE)
    return handle


def _open_and_lock(folder: int, flags: int) -> int:
    """Looked at again afterwards: whoever had it may have put a new one in its place."""
    while True:
        handle = _open(folder, flags)
        _lock(handle)
        try:
            now = calls.stat(LOCK_NAME, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            now = None
        if now is not None and now.st_ino == os.fstat(handle).st_ino:
            return handle
        os.close(handle)


def _own_lock(folder: int, shared: int) -> int:
    """Its other name is somebody else's, a twin of the backup made of hard links: not to be written into. A
    new lock takes its place while the old one is held."""
    draft = LOCK_NAME + b".new"
    try:
        calls.unlink(draft, dir_fd=folder)
    except FileNotFoundError:
        pass
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | calls.O_NOFOLLOW | calls.O_CLOEXEC
    handle = calls.open(draft, flags, 0o600, dir_fd=folder)
    _lock(handle)
    calls.rename(draft, LOCK_NAME, src_dir_fd=folder, dst_dir_fd=folder)
    os.close(shared)
    return handle


def start_text(start_ns: int) -> str:
    """The start of a run as the lock's text has it."""
    return datetime.fromtimestamp(start_ns // 10**9, UTC).isoformat()


def _lock(handle: int) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            calls.flock(handle, calls.LOCK_EX | calls.LOCK_NB)
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
