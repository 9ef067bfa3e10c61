"""The calls of `os` by folder and name. Who works in open folders calls these.

In and out: as the functions of `os` with the same names. Where the system has folder handles they are those
very functions; elsewhere, or with PIPELINE_PORTABLE=1 in the environment (for tests), those of
`store.portable`. Fails as they do.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

PORTABLE = sys.platform != "linux" or os.environ.get("PIPELINE_PORTABLE") == "1"

if TYPE_CHECKING or not PORTABLE:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
    from os import (
        O_DIRECTORY,
        O_NOFOLLOW,
        access,
        chmod,
        chown,
        close,
        dup,
        fstat,
        fsync,
        link,
        listdir,
        mkdir,
        mknod,
        open,
        preadv,
        readlink,
        rename,
        replace,
        rmdir,
        scandir,
        stat,
        symlink,
        unlink,
        utime,
    )

    def path_of(name: bytes, folder: int) -> bytes:
        """A way to a name in an open folder for calls that take no handle of it."""
        return b"/proc/self/fd/%d/%b" % (folder, name)

    def place_of(handle: int) -> int | bytes:
        """What such calls can take in the place of a handle."""
        return handle

    def way_to(folder: int) -> bytes:
        """A way to an open folder for calls that take only paths."""
        return b"/proc/self/fd/%d" % folder

else:
    from pipeline.store.portable import (
        LOCK_EX,
        LOCK_NB,
        LOCK_SH,
        O_DIRECTORY,
        O_NOFOLLOW,
        access,
        chmod,
        chown,
        close,
        dup,
        flock,
        fstat,
        fsync,
        link,
        listdir,
        mkdir,
        mknod,
        open,
        path_of,
        place_of,
        preadv,
        readlink,
        rename,
        replace,
        rmdir,
        scandir,
        stat,
        symlink,
        unlink,
        utime,
        way_to,
    )

O_CLOEXEC, O_NONBLOCK = getattr(os, "O_CLOEXEC", 0), getattr(os, "O_NONBLOCK", 0)

__all__ = [
    "LOCK_EX", "LOCK_NB", "LOCK_SH", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "PORTABLE",
    "access", "chmod", "chown", "close", "dup", "flock", "fstat", "fsync", "link", "listdir", "mkdir",
    "mknod", "open", "path_of", "place_of", "preadv", "readlink", "rename", "replace", "rmdir", "scandir",
    "stat", "symlink", "unlink", "utime", "way_to",
]  # fmt: skip
