"""What Linux tells of changes (inotify(7)), as an emitter of the library watchdog.

In: a folder, and what in it is left out. Out: events of watchdog, and `LostEvent` where something may have
been missed: the kernel's queue was full, a watch was lost, or there can't be more of them. watchdog's own
emitter for Linux swallows these, and watches what is left out, too; the rest of its frame serves.

Guarantees: a folder is watched before it is listed, so that nothing in a new one is missed between the two;
no link is followed (a watch is put on an open handle); what has moved keeps its watches under its new name,
and loses them where it has left; a folder that becomes readable is watched from then on; nothing stays open
below the root, so that its disk can be unmounted. Memory: a path and a number for each folder. Fails with
OSError where the root itself can't be watched.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import threading
from collections.abc import Callable, Iterator

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirModifiedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileSystemEvent,
)
from watchdog.observers.api import DEFAULT_EMITTER_TIMEOUT, EventEmitter, EventQueue, ObservedWatch
from watchdog.observers.inotify_c import InotifyConstants as Flag
from watchdog.observers.inotify_c import (
    WatchDescriptor,
    inotify_add_watch,
    inotify_init,
    inotify_rm_watch,
)

from pipeline.store import calls
from pipeline.store.folders import FOLDER_FLAGS, Folders
from pipeline.watching.lost import LostEvent

_CHANGED = Flag.IN_MODIFY | Flag.IN_ATTRIB | Flag.IN_CLOSE_WRITE
_CAME = Flag.IN_CREATE | Flag.IN_MOVED_TO
_WENT = Flag.IN_DELETE | Flag.IN_MOVED_FROM
_ITSELF = Flag.IN_DELETE_SELF | Flag.IN_MOVE_SELF
_EVERY = _CHANGED | _CAME | _WENT | Flag.IN_ONLYDIR | Flag.IN_EXCL_UNLINK
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_READ_BYTES = 256 << 10
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_MOST_UNREADABLE = 10_000
_MOST_QUEUED = 10_000
"""With more events waiting for the handler, the kernel keeps the rest, and drops what is too much."""


LeavesOut = Callable[[bytes, tuple[int, int], int | None], bool]
"""Whether a folder is none of our business. In: its path inside the root, components joined by `/`; device
and inode; its handle, where it is open."""


class TreeEmitter(EventEmitter):
    """Watches a folder with all that lies below it. leaves_out: gives what is left out by now, for one look.
    is_over: whether to end early, asked for each folder."""

    def __init__(
        self,
        event_queue: EventQueue,
        watch: ObservedWatch,
        *,
        leaves_out: Callable[[], LeavesOut],
        is_over: Callable[[], bool],
        timeout: float = DEFAULT_EMITTER_TIMEOUT,
        event_filter: list[type[FileSystemEvent]] | None = None,
    ) -> None:
        super().__init__(event_queue, watch, timeout=timeout, event_filter=event_filter)
        self._root = os.fsencode(watch.path)
        self._start = self._root if self._root.endswith(b"/") else self._root + b"/"
        self._leaves_out = leaves_out
        self._is_over = is_over
        self._lock = threading.Lock()
        self._inotify = -1
        self._end, self._end_writer = -1, -1
        self._root_watch = -1
        self._folders: dict[int, tuple[bytes, int]] = {}  # watch: path, when it was put there
        self._clock = 0
        self._moved: dict[int, tuple[bytes, int]] = {}  # cookie: path, when it has left it
        self._unreadable: set[bytes] = set()
        self._has_told_limit = False

    @property
    def watches(self) -> int:
        return len(self._folders)

    # -- the frame of watchdog ----------------------------------------------------------------------------

    def on_thread_start(self) -> None:
        self._inotify = inotify_init()
        if self._inotify < 0:
            raise _last_error()
        try:
            os.set_inheritable(self._inotify, False)
            self._end, self._end_writer = os.pipe()
            self.refresh()
        except OSError:
            self._close()
            raise

    def on_thread_stop(self) -> None:
        with self._lock:
            if self._end_writer >= 0:
                os.write(self._end_writer, b"!")

    def run(self) -> None:
        """Until `stop`, which wakes it."""
        try:
            super().run()
        finally:
            self._close()

    def queue_events(self, timeout: float) -> None:
        """Wait for events, however long, and pass them on."""
        poller = select.poll()  # takes handles of any number
        for handle in (self._inotify, self._end):
            poller.register(handle, select.POLLIN)
        if any(handle == self._end for handle, _ in poller.poll()):
            return
        left_before = dict(self._moved)
        for watch, mask, cookie, name in _events(os.read(self._inotify, _READ_BYTES)):
            with self._lock:
                self._on_event(watch, mask, cookie, name)
        with self._lock:
            for cookie, (path, clock) in left_before.items():
                if self._moved.pop(cookie, None) is not None:
                    self._unwatch(path, clock)
        while self._event_queue.qsize() > _MOST_QUEUED and self.should_keep_running():
            self.stopped_event.wait(0.01)

    def _close(self) -> None:
        with self._lock:
            handles = (self._inotify, self._end, self._end_writer)
            self._inotify = self._end = self._end_writer = -1
        for handle in handles:
            if handle >= 0:
                os.close(handle)

    # -- watches ------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Watch every folder that there is, also those whose appearance was missed."""
        with self._lock:
            self._has_told_limit = False
            self._watch_tree(b"", self._leaves_out())

    def _watch_tree(self, top: bytes, leaves_out: LeavesOut) -> None:
        """Watch a folder and all below it. Raises OSError only for the root."""
        root = calls.open(self._root, FOLDER_FLAGS)
        folders, waiting = Folders(root), [top]
        try:
            while waiting and not self._is_over():
                path = waiting.pop()
                try:
                    waiting += self._watch_folder(path, folders.at(path), leaves_out)
                except OSError as error:
                    if not path:
                        raise
                    if error.errno == errno.EACCES and len(self._unreadable) < _MOST_UNREADABLE:
                        self._unreadable.add(path)  # the run that looks at it tells
                    elif error.errno == errno.ENOSPC:
                        self._tell_limit(path)
                        return
                    elif error.errno not in _GONE:
                        self._lose(path, f"a folder can't be watched: {error.strerror}")
        finally:
            folders.close()
            calls.close(root)

    def _watch_folder(self, path: bytes, handle: int, leaves_out: LeavesOut) -> list[bytes]:
        """Watch one folder, then list it. Out: the folders in it."""
        found = calls.fstat(handle)
        if path and leaves_out(path, (found.st_dev, found.st_ino), handle):
            return []
        mask = _EVERY if path else _EVERY | _ITSELF
        watch = inotify_add_watch(self._inotify, calls.way_to(handle), mask)
        if watch < 0:
            raise _last_error()
        self._clock += 1
        self._folders[watch] = (path, self._clock)
        if not path:
            self._root_watch = watch
        start = path + b"/" if path else b""
        with calls.scandir(handle) as entries:
            return [start + os.fsencode(e.name) for e in entries if e.is_dir(follow_symlinks=False)]

    def _unwatch(self, top: bytes, clock: int) -> None:
        """A folder has left for a place that isn't watched. clock: what came there since is another one."""
        below = top + b"/"
        for watch, (path, since) in list(self._folders.items()):
            if since <= clock and (path == top or path.startswith(below)):
                inotify_rm_watch(self._inotify, WatchDescriptor(watch))
                del self._folders[watch]

    def _tell_limit(self, path: bytes) -> None:
        if not self._has_told_limit:
            self._has_told_limit = True
            self._lose(
                path,
                f"the system allows no more than {len(self._folders)} watches: in further folders, changes"
                " are only found when everything is looked at; raise fs.inotify.max_user_watches",
            )

    # -- events -------------------------------------------------------------------------------------------

    def _on_event(self, watch: int, mask: int, cookie: int, name: bytes) -> None:
        if mask & Flag.IN_Q_OVERFLOW:
            self._lose(b"", "more has changed at once than the system's queue holds")
            return
        if watch == self._root_watch and mask & (_ITSELF | Flag.IN_UNMOUNT | Flag.IN_IGNORED):
            self._lose(b"", "the source was moved, removed or unmounted")
        elif mask & Flag.IN_UNMOUNT:
            self._lose(b"", "something that was mounted in the source was unmounted")
        if mask & Flag.IN_IGNORED:
            self._folders.pop(watch, None)
        folder, _ = self._folders.get(watch, (None, 0))
        if folder is None:
            return  # one that has left
        if name:
            self._on_entry(folder + b"/" + name if folder else name, mask, cookie)
        elif not folder and mask & Flag.IN_ATTRIB:  # others are told of by the folder that they lie in
            self.queue_event(DirModifiedEvent(self._shown(b"")))

    def _on_entry(self, path: bytes, mask: int, cookie: int) -> None:
        is_folder, shown = bool(mask & Flag.IN_ISDIR), self._shown(path)
        if mask & _CAME:
            if is_folder:
                self._came(path, cookie)
            self.queue_event((DirCreatedEvent if is_folder else FileCreatedEvent)(shown))
        elif mask & _WENT:
            if is_folder and mask & Flag.IN_MOVED_FROM:
                self._moved[cookie] = (path, self._clock)
            self.queue_event((DirDeletedEvent if is_folder else FileDeletedEvent)(shown))
        elif path in self._unreadable:  # by its mode or owner, it may not be so any more
            self._unreadable.discard(path)
            self._watch_new(path, self._leaves_out())
            self.queue_event(DirCreatedEvent(shown))
        else:
            self.queue_event((DirModifiedEvent if is_folder else FileModifiedEvent)(shown))

    def _came(self, path: bytes, cookie: int) -> None:
        """A folder is new, or has moved here; what was watched in it goes on under its new name."""
        leaves_out = self._leaves_out()
        if leaves_out(path, (0, 0), None):
            return  # if it was watched where it came from, it has left
        before, clock = self._moved.pop(cookie, (None, 0))
        if before is not None:
            self._rename(before, path, clock)
        self._watch_new(path, leaves_out)

    def _rename(self, before: bytes, after: bytes, clock: int) -> None:
        below = before + b"/"
        for watch, (path, since) in list(self._folders.items()):
            if since <= clock and (path == before or path.startswith(below)):
                self._folders[watch] = (after + path[len(before) :], since)

    def _watch_new(self, path: bytes, leaves_out: LeavesOut) -> None:
        try:
            self._watch_tree(path, leaves_out)
        except OSError as error:
            self._lose(b"", f"the source can't be opened: {error.strerror}")

    def _lose(self, path: bytes, reason: str) -> None:
        event = LostEvent(self._shown(path))
        event.reason = reason
        self.queue_event(event)

    def _shown(self, path: bytes) -> str:
        return os.fsdecode(self._start + path if path else self._root)


def _events(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """What was read: watch, mask, cookie, name of each event."""
    start = 0
    while start < len(data):
        watch, mask, cookie, length = _HEADER.unpack_from(data, start)
        start += _HEADER.size
        yield watch, mask, cookie, data[start : start + length].rstrip(b"\0")
        start += length


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
