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
from pipeline.stages.ignore_file import NAME, rules_inside
from pipeline.stages.marked import CACHE_TAG, Marked
from pipeline.stages.setup import FolderRules
from pipeline.store import calls
from pipeline.store.folders import FOLDER_FLAGS, Folders
from pipeline.watching.lost import LostEvent
from pipeline.watching.pending import Pending

_REMEMBERED_FOLDERS = 10_000
_NO_LIMITS = FolderRules()


class LeftOut:
    """What a watch has nothing to do with. own: tree paths of the backup and the logs, where they lie inside
    a source. identities: (device, inode) of the same, whatever path leads there. roots: path and device of
    each source, by its name.

    The rules are those of a run, read from the folders as they are when they are first asked for, and
    remembered; so `changed` has to be told of every event.
    """

    def __init__(self, exclude: Filter, limits: FolderRules = _NO_LIMITS) -> None:
        self._filter = exclude
        self._limits = limits
        self._names = frozenset((NAME, CACHE_TAG)) if limits.caches else frozenset((NAME,))
        self._inside: dict[bytes, Filter | None] = {}
        self.own: frozenset[bytes] = frozenset()
        self.identities: frozenset[tuple[int, int]] = frozenset()
        self.roots: dict[bytes, tuple[bytes, int]] = {}

    def has(self, path: bytes, is_folder: bool) -> bool:
        """Whether a tree path is left out, or lies in a folder whose content is."""
        folder = treepath.parent(path)
        rules = self._rules_in(folder) if folder else self._filter
        return rules is None or self._has_itself(path, is_folder, rules)

    def enter(self, path: bytes, handle: int) -> None:
        """A folder that isn't left out is open: nobody has to open it again for its rules."""
        folder = treepath.parent(path)
        above = self._rules_in(folder) if folder else self._filter
        self._inside[path] = self._own_rules(path, above, handle) if above is not None else None

    def is_rule(self, path: bytes) -> bool:
        """Whether it may say what of its folder is left out. It is of interest wherever its folder is."""
        name = path.rpartition(treepath.SEPARATOR)[2]
        return name in self._names or name in self._limits.if_present

    def changed(self, path: bytes, is_folder: bool, comes_or_goes: bool) -> bool:
        """Whether an event at a path has changed what is left out of its folder. What was remembered is
        forgotten then, and where a folder isn't the one that it was."""
        name = path.rpartition(treepath.SEPARATOR)[2]
        has_changed = name in self._names or (comes_or_goes and name in self._limits.if_present)
        if has_changed or (is_folder and comes_or_goes and path in self._inside):
            self.forget()
        return has_changed and not self.has(treepath.parent(path), True)

    def forget(self) -> None:
        """Something that decides has changed."""
        self._inside = {}

    def afresh(self) -> LeftOut:
        """The same, with nothing remembered."""
        other = LeftOut(self._filter, self._limits)
        other.own, other.identities, other.roots = self.own, self.identities, self.roots
        return other

    def _has_itself(self, path: bytes, is_folder: bool, rules: Filter) -> bool:
        relative = treepath.relative(path)
        return path in self.own or (bool(relative) and rules.excludes(relative, is_folder))

    def _rules_in(self, folder: bytes) -> Filter | None:
        """For what lies in a folder; None where all of it is left out."""
        inside = self._inside
        if folder in inside:
            return inside[folder]
        if len(inside) >= _REMEMBERED_FOLDERS:
            inside = self._inside = {}
        rules: Filter | None = self._filter
        with self._opened(treepath.source_name(folder)) as folders:
            for above in (*treepath.parents(folder), folder):
                if above not in inside:
                    inside[above] = self._rules_of(above, rules, _handle(folders, above))
                rules = inside[above]
        return rules

    def _rules_of(self, folder: bytes, above: Filter | None, handle: int | None) -> Filter | None:
        """handle: None where the folder can't be opened; it has no rules of its own then."""
        if above is None or self._has_itself(folder, True, above):
            return None
        return self._own_rules(folder, above, handle) if handle is not None else above

    def _own_rules(self, folder: bytes, above: Filter, handle: int) -> Filter | None:
        _, device = self.roots.get(treepath.source_name(folder), (b"", 0))
        if Marked(self._limits, device).closed_by(handle) is not None:
            return None
        return rules_inside(above, handle, folder)[0]

    @contextmanager
    def _opened(self, source: bytes) -> Iterator[Folders | None]:
        """Nothing stays open, so that a source's disk can be unmounted."""
        try:
            root = calls.open(self.roots[source][0], FOLDER_FLAGS)
        except (KeyError, OSError):
            yield None
            return
        folders = Folders(root)
        try:
            yield folders
        finally:
            folders.close()
            calls.close(root)


def _handle(folders: Folders | None, path: bytes) -> int | None:
    """Of the folder at a tree path, None where there is none."""
    with suppress(OSError):
        return folders.at(treepath.relative(path)) if folders is not None else None
    return None


class Hints:
    """What is pending, shared between threads. reasons: why hints were lost, for people. rules_have_changed:
    what is left out may be something else now, so that other folders are to be observed."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending
        self._lock = threading.Lock()
        self._sleeps_until_s = -math.inf
        self._sleeper, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self.reasons: deque[str] = deque(maxlen=100)
        self.rules_have_changed = False

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
        self._look_for_rules(event, path)
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

    def _look_for_rules(self, event: FileSystemEvent, path: bytes) -> None:
        """Where what is left out of a folder has changed, all of it is looked at."""
        comes_or_goes = event.event_type in ("created", "deleted", "moved")
        paths = [path, self._path(event.dest_path)] if event.event_type == "moved" else [path]
        for place in paths:
            if self._left_out.changed(place, event.is_directory, comes_or_goes):
                self._hints.rules_have_changed = True
                reason = f"{treepath.shown(place)} has changed"
                self._hints.note(treepath.parent(place), whole=True, reason=reason)

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
