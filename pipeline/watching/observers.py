"""Who hears of changes in the sources: the system where it can tell, else looking again and again.

In: the configuration, and the hints to fill. Out: running observers of watchdog, one for each source, and
one more for each share of another machine that is mounted inside a source. Guarantees: with `watch.backend =
"auto"`, what the system can't tell of (network file systems, too few inotify instances) is polled, and that
is said; after `refresh`, every folder that there is has been watched since before it returned, as far as the
system allows; an observer that has died, of whatever, makes everything due, and `refresh` begins it anew.
Fails with SourceError, and with ObserverError where `native` was asked for and can't be had.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingEmitter

from pipeline import sources
from pipeline.config import Config
from pipeline.filters import Filter
from pipeline.model import treepath
from pipeline.model.errors import ObserverError
from pipeline.sources import Resolved
from pipeline.store.folders import identity_of
from pipeline.store.mounts import Mounts
from pipeline.watching.hints import Handler, Hints, LeftOut

if TYPE_CHECKING:
    from pipeline.watching.inotify import TreeEmitter

_POLL_LEAST_S = 1.0
_REFUSED = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOSYS, errno.ENOMEM)
"""What the system says that has no more to give, or nothing at all."""
_END_S = 5.0
_POLL_SHARE = 0.1
"""So much of the time goes into polling, at the most."""


class Observed(NamedTuple):
    """source: the name of the one that is observed. root: its path. path: of the observed folder, the root or
    one that is mounted inside. backend: `native` or `polling`."""

    source: bytes
    root: bytes
    path: bytes
    backend: str


class Observers:
    """tell: takes what people should know."""

    def __init__(self, config: Config, hints: Hints, tell: Callable[[str], None]) -> None:
        self._config = config
        self._hints = hints
        self._tell = tell
        self._left_out = LeftOut(Filter(config.patterns), sources.folder_rules(config))
        self._excepthook = threading.excepthook
        self._is_over: Callable[[], bool] = lambda: False
        self._running: dict[Observed, tuple[tuple[int, int], BaseObserver]] = {}
        self._seen: list[object] | None = None

    @property
    def observed(self) -> list[Observed]:
        return sorted(self._running)

    @property
    def folders(self) -> int:
        """How many folders the system tells of; on Linux only."""
        return sum(tree.watches for _, observer in self._running.values() for tree in _trees(observer))

    def refresh(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Observe the sources as they are on the disk now. is_over: whether to end early."""
        self._is_over, threading.excepthook = is_over, self._died
        config, resolved = self._config, sources.resolve(self._config)
        self._left_out.roots = {source.name: (source.path, source.identity[0]) for source in resolved}
        self._left_out.own = sources.own_places(config, resolved)
        self._left_out.identities = sources.excluded(config, resolved)
        self._left_out.forget()
        wanted = {observed: identity for source in resolved for observed, identity in self._wanted(source)}
        for observed, (identity, observer) in list(self._running.items()):
            if wanted.get(observed) != identity or not _is_alive(observer):
                self._end(observed)
        self._seen = self._surroundings()
        for observed, identity in wanted.items():
            if observed in self._running:
                self._look_again(observed)
            else:
                self._start(observed, identity)

    def look_for_changes(self) -> None:
        """What no event tells of: a source's path leads elsewhere, something else is mounted in it."""
        seen = self._surroundings()
        if self._seen is not None and seen != self._seen:
            self._hints.lose("a source's path leads elsewhere, or something else is mounted there")
        self._seen = seen

    def _surroundings(self) -> list[object]:
        mounts, seen = Mounts(), list[object]()
        for source in self._config.sources:
            real = Path(os.path.realpath(source.path))
            points = self._points(mounts, os.fsencode(source.name), real)
            seen += [identity_of(source.path), *((point, mounts.spot(point)) for point in (real, *points))]
        return seen

    def close(self) -> None:
        for observed in list(self._running):
            self._end(observed)
        threading.excepthook = self._excepthook

    def _died(self, thread: threading.ExceptHookArgs) -> None:
        """All threads of this process but the main one are observers'."""
        self._hints.lose(f"an observer has failed: {thread.exc_type.__name__}: {thread.exc_value}")

    # -- which --------------------------------------------------------------------------------------------

    def _wanted(self, source: Resolved) -> Iterator[tuple[Observed, tuple[int, int]]]:
        """The source itself, then what is mounted in it from elsewhere."""
        mounts, path = Mounts(), Path(os.fsdecode(source.path))
        backend = self._backend(mounts, path)
        yield Observed(source.name, source.path, source.path, backend), source.identity
        if backend == "native" and self._config.watch.backend == "auto":
            for point in self._points(mounts, source.name, path):
                if mounts.is_remote(point):
                    yield Observed(source.name, source.path, os.fsencode(point), "polling"), (0, 0)

    def _points(self, mounts: Mounts, name: bytes, root: Path) -> list[Path]:
        """What is mounted in a source, but for what is left out."""
        inside = ((point, os.fsencode(point.relative_to(root))) for point in mounts.below(root))
        return [point for point, at in inside if not self._left_out.has(treepath.inside(name, at), True)]

    def _backend(self, mounts: Mounts, path: Path) -> str:
        if self._config.watch.backend != "auto":
            return self._config.watch.backend
        return "polling" if mounts.is_remote(path) else "native"

    # -- start and end ------------------------------------------------------------------------------------

    def _start(self, observed: Observed, identity: tuple[int, int]) -> None:
        try:
            self._run(observed, identity)
        except OSError as error:
            shown = treepath.escaped(observed.path)
            cause = f"the system can't tell of changes in {shown}: {error.strerror or error}"
            may_poll = observed.backend == "native" and self._config.watch.backend == "auto"
            if not may_poll or error.errno not in _REFUSED:
                raise ObserverError(cause, 'Mend the cause, or set watch.backend = "polling".') from error
            self._tell(f"{cause}; it is looked at again and again instead")
            self._start(observed._replace(backend="polling"), identity)

    def _run(self, observed: Observed, identity: tuple[int, int]) -> None:
        observer = self._observer(observed)
        handler = Handler(self._hints, self._left_out, observed.source, observed.root)
        observer.schedule(handler, os.fsdecode(observed.path), recursive=True)
        observer.start()
        self._running[observed] = (identity, observer)

    def _observer(self, observed: Observed) -> BaseObserver:
        if observed.backend == "polling":
            emitter: Any = partial(_Polling, stat=os.lstat, listdir=partial(self._list, observed))
            return BaseObserver(emitter, timeout=_POLL_LEAST_S)
        if sys.platform == "linux":
            from pipeline.watching.inotify import TreeEmitter

            leaves_out = partial(TreeRules, self._left_out, observed.source)
            tree: Any = partial(TreeEmitter, leaves_out=leaves_out, is_over=lambda: self._is_over())
            return BaseObserver(tree)
        from watchdog.observers import Observer

        return Observer()

    def _list(self, observed: Observed, folder: str | None) -> Iterator[os.DirEntry[str]]:
        """A folder's entries for the polling observer, without what is left out."""
        assert folder is not None, "watchdog names the folder"
        start = len(observed.root.rstrip(b"/")) + 1
        with os.scandir(folder) as entries:
            found = list(entries)
        for entry in found:
            path = treepath.inside(observed.source, os.fsencode(entry.path)[start:])
            is_folder = entry.is_dir(follow_symlinks=False)
            if self._left_out.is_rule(path) or not self._left_out.has(path, is_folder):
                yield entry

    def _look_again(self, observed: Observed) -> None:
        _, observer = self._running[observed]
        for tree in _trees(observer):
            try:
                tree.refresh()
            except OSError as error:
                shown = treepath.escaped(observed.path)
                raise ObserverError(f"{shown} can't be watched: {error.strerror}") from error

    def _end(self, observed: Observed) -> None:
        """Not for longer than a while: a share that doesn't answer holds up whoever polls it."""
        _, observer = self._running.pop(observed)
        end = threading.Thread(target=observer.stop, daemon=True)
        end.start()
        end.join(_END_S)


class TreeRules:
    """What is left out of one source, as it is on the disk when this is made (`inotify.LeavesOut`)."""

    def __init__(self, left_out: LeftOut, source: bytes) -> None:
        self._left_out = left_out.afresh()
        self._source = source

    def __call__(self, path: bytes, identity: tuple[int, int], handle: int | None) -> bool:
        tree_path = treepath.inside(self._source, path)
        is_out = identity in self._left_out.identities or self._left_out.has(tree_path, True)
        if handle is not None and not is_out:
            self._left_out.enter(tree_path, handle)
        return is_out


def _is_alive(observer: BaseObserver) -> bool:
    return observer.is_alive() and all(emitter.is_alive() for emitter in observer.emitters)


def _trees(observer: BaseObserver) -> list[TreeEmitter]:
    """Its emitters, where they are ours."""
    if sys.platform != "linux":
        return []
    from pipeline.watching.inotify import TreeEmitter

    return [emitter for emitter in observer.emitters if isinstance(emitter, TreeEmitter)]


class _Polling(PollingEmitter):
    """watchdog's, but slower where looking takes long."""

    def queue_events(self, timeout: float) -> None:
        began_s = time.monotonic()
        super().queue_events(timeout)
        looked_s = time.monotonic() - began_s - timeout
        if looked_s > timeout * _POLL_SHARE:
            self.stopped_event.wait(looked_s / _POLL_SHARE - timeout)
