"""What the backup side's system offers: `syncfs(2)`, `renameat2(2)` without replacing, and its errors.

Guarantees: the calls raise OSError like the functions of `os`. Where `renameat2` doesn't exist (before glibc
2.28, or on a file system that can't), `rename_new` does the same by link and unlink; where `syncfs` doesn't,
that is said, and files are synced one by one (`store.barrier`).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.model.errors import BackupSideError
from pipeline.store import calls

_libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
_syncfs = getattr(_libc, "syncfs", None) if not calls.PORTABLE else None
_renameat2 = getattr(_libc, "renameat2", None) if not calls.PORTABLE else None
if _renameat2 is not None:  # told once instead of guessed at each call
    _renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_RENAME_NOREPLACE = 1  # linux/fs.h
NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
REFUSED_BY_FOLDERS = (errno.EINVAL, errno.ENOTSUP)
"""What a sync of them gives on some file systems, which write names at once, or never promise to."""


def syncs_at_once() -> bool:
    """Whether there is a call that syncs a whole file system, as far as is known."""
    return _syncfs is not None


def sync_file_system(handle: int) -> bool:
    """Everything written so far to the file system of `handle` is on the disk when this returns. False where
    there is no such call, from then on.

    Since Linux 5.8 it also reports a write that failed after the handle was opened.
    """
    global _syncfs
    syncfs = _syncfs  # another thread of a cluster's worker may meet a refusal meanwhile
    if syncfs is None:
        return False
    if syncfs(handle) == 0:
        return True
    code = ctypes.get_errno()
    if code not in _NOT_SUPPORTED:
        raise OSError(code, os.strerror(code))
    _syncfs = None
    return False


def sync_names(folders: Iterable[Path]) -> None:
    """Of folders that were just made, of which some may lie above the backup root: they are on the disk when
    this returns, or else when `sync_file_system` does."""
    if syncs_at_once():
        return
    for folder in folders:
        try:
            handle = os.open(folder.parent, os.O_RDONLY)
        except PermissionError:  # who may make a name needn't be allowed to read the others
            os.sync()
            continue
        try:
            calls.fsync(handle)
        except OSError as error:
            if error.errno not in REFUSED_BY_FOLDERS:
                raise
        finally:
            os.close(handle)


def rename_new(old: bytes, new: bytes, *, from_folder: int, to_folder: int) -> None:
    """Rename that never replaces. Raises FileExistsError where `new` stands already."""
    if _renameat2 is not None:
        if _renameat2(from_folder, old, to_folder, new, _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in _NOT_SUPPORTED:
            raise OSError(code, os.strerror(code), new)
    try:
        calls.link(old, new, src_dir_fd=from_folder, dst_dir_fd=to_folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        # Nobody but us writes here, but for whoever looks for trouble: a name that appears right now is lost.
        if calls.access(new, os.F_OK, dir_fd=to_folder, follow_symlinks=False):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from error
        calls.rename(old, new, src_dir_fd=from_folder, dst_dir_fd=to_folder)
        return
    calls.unlink(old, dir_fd=from_folder)


@contextmanager
def backup_side_errors() -> Iterator[None]:
    """An OSError of the backup side ends the run; nothing that was committed is touched by it."""
    try:
        yield
    except OSError as error:
        raise backup_side_error(error) from error


def backup_side_error(error: OSError) -> BackupSideError:
    """The same where a context manager would be too dear."""
    return BackupSideError(
        f"can't write to the backup: {error.strerror or error}",
        "What was committed stays valid. Mend the cause, then run again: it goes on from there.",
    )


def boot_id() -> str:
    """A name for this boot of the machine; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
