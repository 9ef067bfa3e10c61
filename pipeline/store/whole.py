"""Small files of the program's own that are read and replaced as a whole.

In: a folder, a name, bytes. Out: bytes. Guarantees: a reader sees the old bytes or the new ones; whatever was
planted under the names, a link, a hard link, a fifo, is neither followed nor written into nor waited for.
Fails with OSError where they can't be written.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from pipeline.store import calls
from pipeline.store.folders import READ_FLAGS

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | calls.O_NOFOLLOW | calls.O_CLOEXEC


def read_whole(path: Path) -> bytes | None:
    """None where there is no such file, or something else."""
    try:
        handle = os.open(path, READ_FLAGS)
    except OSError:
        return None
    with open(handle, "rb") as file:
        return file.read() if stat.S_ISREG(os.fstat(handle).st_mode) else None


def replace_whole(folder: Path, name: str, content: bytes) -> None:
    """By a draft beside it, 0600. One writer at a time."""
    parent, draft = calls.open(folder, os.O_RDONLY | calls.O_DIRECTORY | calls.O_CLOEXEC), f"{name}.new"
    try:
        with suppress(FileNotFoundError):
            calls.unlink(draft, dir_fd=parent)  # of a writer that was killed
        try:
            with open(calls.open(draft, _CREATE, 0o600, dir_fd=parent), "wb") as file:
                file.write(content)
            calls.replace(draft, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError:
            with suppress(OSError):
                calls.unlink(draft, dir_fd=parent)
            raise
    finally:
        calls.close(parent)
