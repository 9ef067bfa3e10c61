"""Whether what is new in the sources fits into the backup, told before a large run has begun.

In: what the scanner is told, the backup root. Out: a problem with the figures, or None. Guarantees: nothing
is changed and no file is opened. It is an estimate: content that changes, and how well a file system packs,
are only known afterwards. The walk that it takes is spared wherever the figures of the disks show that all
fits, or that little can be new. Fails with OSError where the backup's disk can't be asked.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.model.errors import Problem, Severity
from pipeline.stages.batches import Batches, Row
from pipeline.stages.scanner import Scanner
from pipeline.stages.setup import ScanSetup

_ASK_EVERY_FILES = 4096
_MEGABYTE, _GIGABYTE = 10**6, 10**9


def shortage(
    setup: ScanSetup, root: Path, known_bytes: int | None, stop: Callable[[], bool]
) -> Problem | None:
    """known_bytes: what earlier runs have stored, None where none was completed. stop: asked now and then."""
    free_bytes = _free_bytes(root)
    if free_bytes >= _used_bytes(setup) or (known_bytes is not None and free_bytes >= known_bytes / 10):
        return None
    found = _NewFiles(stop)
    survey = _Survey(setup, found)
    try:
        survey.walk()
    except _Stopped:
        return None
    finally:
        survey.close()
    if found.size_bytes <= free_bytes:
        return None
    return Problem(
        Severity.WARNING, None,
        f"the backup's disk may be too small: {_amount(found.size_bytes)} are new in the sources"
        f" ({found.files:,} files), {_amount(int(free_bytes))} are free",
    )  # fmt: skip


class _Stopped(Exception):
    """The run is to end."""


class _NewFiles(Batches):
    """Counts files without a record, and packs nothing."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        super().__init__(lambda *_: None)
        self._stop = stop
        self._seen = 0
        self.files = 0
        self.size_bytes = 0

    def add_file(self, folder: bytes, name: bytes, row: Row | None, size_bytes: int) -> None:
        self._seen += 1
        if self._seen % _ASK_EVERY_FILES == 0 and self._stop():
            raise _Stopped
        if row is None:
            self.files += 1
            self.size_bytes += size_bytes

    def add(self, item: tuple[Any, ...], files: int = 0, size_bytes: int = 0) -> None:
        """Folders, links and the rest take next to nothing."""

    def inside(self, folder: bytes) -> None:
        """Nobody is told."""


class _Survey(Scanner):
    """The very walk of a run, so that filters and everything else that is left out count here, too."""

    def __init__(self, setup: ScanSetup, found: _NewFiles) -> None:
        super().__init__(setup, lambda *_: None)
        self._batches = found


def _free_bytes(root: Path) -> float:
    """Some file systems (ramfs, some in user space) don't tell how large they are."""
    found = os.statvfs(root)
    return found.f_bavail * found.f_frsize if found.f_blocks else math.inf


def _used_bytes(setup: ScanSetup) -> float:
    """No source holds more than what is used of its disk, unless other disks are mounted in it."""
    try:
        devices = {source.identity[0]: os.statvfs(source.path) for source in setup.sources}
    except OSError:
        return math.inf  # the walk says what is wrong
    return sum((found.f_blocks - found.f_bfree) * found.f_frsize for found in devices.values())


def _amount(size_bytes: int) -> str:
    if size_bytes >= _GIGABYTE:
        return f"{size_bytes / _GIGABYTE:,.1f} GB"
    return f"{size_bytes / _MEGABYTE:,.1f} MB"
