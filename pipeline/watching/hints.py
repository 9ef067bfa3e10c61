"""Hints of changes on their way from the threads that hear of them to the one that runs the watch.

In: events of watchdog, for one source each. Out: what is pending (`watching.pending`), and a main thread that
sleeps until something is due. Guarantees: an event only ever makes somebody look, it is never believed; what
is left out (filters, the backup itself, the logs) is not noted; a signal wakes the sleeper at once.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from watchdog.events import FileSystemEvent, FileSystemEventHandler

from pipeline.filters import Filter
from pipeline.model import treepath
from pipeline.watching.lost import LostEvent
from pipeline.watching.pending import Pending

_REMEMBERED_FOLDERS = 10_000


class LeftOut:
    """What a watch has nothing to do with. own: tree paths of the backup and the logs, where they lie inside
    a source. identities: (device, inode) of the same, whatever path leads there."""

    def __init__(self, exclude: Filter) -> None:
        self._filter = exclude
        self._folders: dict[bytes, bool] = {}
        self.own: frozenset[bytes] = frozenset()
        self.identities: frozenset[tuple[int, int]] = frozenset()

    def has(self, path: bytes, is_folder: bool) -> bool:
        """Whether a tree path is left out, or lies in a folder that is."""
        folder = treepath.parent(path)
        return (bool(folder) and self._has_folder(folder)) or self._has_itself(path, is_folder)

    def _has_folder(self, folder: bytes) -> bool:
        """From the source down: what lies in a folder that is left out is left out, too."""
        known = self._folders.get(folder)
        if known is not None:
            return known
        if len(self._folders) >= _REMEMBERED_FOLDERS:
            self._folders.clear()
        is_out = False
        for above in (*treepath.parents(folder), folder):
            known = self._folders.get(above)
            is_out = is_out or self._has_itself(above, True) if known is None else known
            self._folders[above] = is_out
        return is_out

    def _has_itself(self, path: bytes, is_folder: bool) -> bool:
        relative = treepath.relative(path)
        return path in self.own or (bool(relative) and self._filter.excludes(relative, is_folder))

    def forget(self) -> None:
        """`own` has changed."""
        self._folders.clear()


class Hints:
    """What is pending, shared between threads. reasons: why hints were lost, for people."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending
        self._lock = threading.Lock()
        self._sleeps_until_s = -math.inf
        self._sleeper, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self.reasons: deque[str] = deque(maxlen=100)

    def close(self) -> None:
        waker, self._waker = self._waker, -1
        os.close(self._sleeper)
        os.close(waker)

    @contextmanager
    def pending(self) -> Iterator[Pending]:
        with self._lock:
            yield self._pending

    def note(self, path: bytes, *, whole: bool = False, is_missing: bool = False, reason: str = "") -> None:
        """Something has happened at a tree path. reason: why more than that may have, to be told."""
        with self._lock:
            if reason:
                self.reasons.append(reason)
            due_s = self._pending.note(path, time.monotonic(), whole=whole, is_missing=is_missing)
            wakes = due_s < self._sleeps_until_s
        if wakes:
            self.wake()

    def lose(self, reason: str) -> None:
        """Something may have been missed."""
        with self._lock:
            self.reasons.append(reason)
            self._pending.lose(time.monotonic())
        self.wake()

    def sleep(self, at_most_s: float) -> bool:
        """Until something is due, or `wake` is called, or the time is over: only then False."""
        with self._lock:
            now_s = time.monotonic()
            until_s = min(self._pending.due_s, now_s + at_most_s)
            self._sleeps_until_s = until_s
        ready, _, _ = select.select([self._sleeper], [], [], max(0.0, until_s - now_s))
        self._sleeps_until_s = -math.inf
        if ready:
            os.read(self._sleeper, 4096)
        return bool(ready) or until_s < now_s + at_most_s

    def wake(self) -> None:
        """May be called from a signal handler, also when all is over."""
        with suppress(OSError):  # it is full of wishes to be woken, or closed
            os.write(self._waker, b"!")


class Handler(FileSystemEventHandler):
    """What the events of one source come down to. source: its name. root: the path that theirs begin with."""

    def __init__(self, hints: Hints, left_out: LeftOut, source: bytes, root: bytes) -> None:
        self._hints = hints
        self._left_out = left_out
        self._source = source
        self._start = root if root.endswith(b"/") else root + b"/"

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called by watchdog, in a thread of its own."""
        path, is_folder = self._path(event.src_path), event.is_directory
        match event.event_type:
            case "lost":
                assert isinstance(event, LostEvent), "nobody else says so"
                self._lost(path, event.reason)
            case "created":
                self._note(path, is_folder, whole=is_folder, in_folder=True)
            case "deleted":
                self._gone(path, is_folder)
            case "moved":
                self._gone(path, is_folder)
                # By inodes, polling takes a folder that uses a file's again for the file.
                self._note(self._path(event.dest_path), is_folder, whole=True, in_folder=True)
            case "modified" | "closed" | "attrib":
                self._note(path, is_folder)

    def _path(self, shown: bytes | str) -> bytes:
        return treepath.inside(self._source, os.fsencode(shown)[len(self._start) :])

    def _gone(self, path: bytes, is_folder: bool) -> None:
        if path == self._source:
            self._hints.lose("the source was removed")
        else:
            self._note(path, is_folder, whole=is_folder, is_missing=True, in_folder=True)

    def _note(
        self,
        path: bytes,
        is_folder: bool,
        *,
        whole: bool = False,
        is_missing: bool = False,
        in_folder: bool = False,
    ) -> None:
        """in_folder: the folder that it lies in has changed with it."""
        if self._left_out.has(path, is_folder):
            return
        self._hints.note(path, whole=whole, is_missing=is_missing)
        if in_folder:
            self._hints.note(treepath.parent(path))

    def _lost(self, path: bytes, reason: str) -> None:
        if path == self._source:
            self._hints.lose(reason)
        elif not self._left_out.has(path, True):
            self._hints.note(path, whole=True, reason=reason)
