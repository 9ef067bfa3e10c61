"""What lies outside of a backup and has to stay as it is, and other places where the same folder shows.

In: a folder. Out: all about it that a write could change; the folder mounted a second time. Guarantees: no
link is followed, nothing that a look itself changes is compared, and no mount is left behind.
"""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from trees import walk

_PATIENCE_S = 20.0


class Exact(NamedTuple):
    """One thing, its content included. ctime_ns, links: 0 where hard links of it may come and go."""

    inode: int
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    ctime_ns: int
    links: int
    content: bytes


def exactly(root: Path, *, linked: bool = False) -> dict[str, Exact]:
    """All that a write, or another name, could change. linked: leave out what only tells of other names."""
    seen = {".": _exact(os.fspath(root), root.lstat(), linked)}
    for relative, entry in walk(root):
        seen[relative] = _exact(entry.path, entry.stat(follow_symlinks=False), linked)
    return seen


def _exact(path: str, found: os.stat_result, linked: bool) -> Exact:
    content = b""
    if stat.S_ISREG(found.st_mode):
        content = Path(path).read_bytes()
    elif stat.S_ISLNK(found.st_mode):
        content = os.fsencode(os.readlink(path))
    owner, of_names = (found.st_uid, found.st_gid), (found.st_ctime_ns, found.st_nlink)
    ctime_ns, links = (0, 0) if linked else of_names
    return Exact(found.st_ino, found.st_mode, owner, found.st_mtime_ns, ctime_ns, links, content)


def changed(before: dict[str, Exact], after: dict[str, Exact]) -> list[str]:
    """The names that differ, sorted; empty when nothing has changed."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


@contextmanager
def bound(folder: Path, at: Path) -> Iterator[Path]:
    """The same folder at a second place as well, by a bind mount."""
    at.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", folder, at], check=True)
    try:
        yield at
    finally:
        limit = time.monotonic() + _PATIENCE_S
        while subprocess.run(["umount", at], capture_output=True, check=False).returncode:
            assert time.monotonic() < limit, f"{at} stays busy"
            time.sleep(0.01)
