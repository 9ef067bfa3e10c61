"""Folders read ahead of an ordered walk, by a few threads: what the walk lists next is in the caches by then.

In: a folder and the names of its subfolders. Out: nothing. Guarantees: nothing is decided here, and the walk
lists each folder itself; nothing is followed that the walk would not follow; where listing waits for nothing
(warm caches), no thread is ever started.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pipeline.stages.ahead import waits_until_now
from pipeline.store import calls
from pipeline.store.folders import FOLDER_FLAGS

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_THREADS = 4
_MOST_FOLDERS = 1024
"""Of one parent. What was read much too early may be gone again."""
_MOST_WAITING = 12
_LISTINGS = 256
"""After so many that have waited for nothing, all is taken to be warm."""


class FoldersAhead:
    """Told of each listing; asks for what lies below where listings wait."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._reading: list[Future[None]] = []
        self._listings_left = 0
        self._waits = 0

    def before_listing(self) -> None:
        self._waits = waits_until_now()

    def after_listing(self, handle: int, subfolders: Iterable[bytes]) -> None:
        """handle: of the folder that was listed. subfolders: their names, in the walk's order; not looked at
        where nothing waits."""
        has_waited = waits_until_now() > self._waits
        self._listings_left = _LISTINGS if has_waited else max(0, self._listings_left - 1)
        if not self._listings_left:
            return
        inner = list(subfolders)
        if len(inner) < 2:
            return
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._threads = ThreadPoolExecutor(_THREADS, "folders ahead")
        self._reading = [reading for reading in self._reading if not reading.done()]
        if len(self._reading) > _MOST_WAITING:
            return  # each holds a handle
        with suppress(OSError):  # too few handles is no problem of the folder
            for first in range(_THREADS):
                names = inner[first:_MOST_FOLDERS:_THREADS]
                if names:
                    self._reading.append(self._threads.submit(_read, calls.dup(handle), names))

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def _read(parent: int, names: Sequence[bytes]) -> None:
    """Once through each folder, as listing does. Takes the handle over."""
    try:
        for name in names:
            with suppress(OSError):  # the walk meets the same error, and tells
                handle = calls.open(name, FOLDER_FLAGS, dir_fd=parent)
                try:
                    with calls.scandir(handle) as entries:
                        next(entries, None)
                finally:
                    calls.close(handle)
    finally:
        calls.close(parent)
