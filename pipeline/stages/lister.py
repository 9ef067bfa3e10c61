"""The lister: walks what the state holds, as the scanner walks the sources.

In: a read-only state, a run, the paths that are wanted. Out: batches of items (`model.message`), in order.
Guarantees: memory holds a range of rows (promise 6); a row that can't be right (a path that would lead
elsewhere, fields of the wrong kind) becomes a PROBLEM and goes no further (promise 8). Fails only with what
ends the process; the parent notices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.model import message, treepath
from pipeline.model.errors import Severity
from pipeline.model.record import Held, Kind
from pipeline.stages.batches import Batches, Send
from pipeline.stages.setup import ListSetup, StoredSetup
from pipeline.store.past import read_held, read_stored
from pipeline.store.reading import Reader
from pipeline.store.state import translated_errors

_POSITION_EVERY = 200
_LAST = b"\xff" * 256
# Plain numbers, because comparing them is most of the work.
_KINDS = frozenset(int(kind) for kind in Kind)
_FILE, _LINK, _FOLDER = int(Kind.FILE), int(Kind.LINK), int(Kind.FOLDER)


class _StateWalk:
    """What every walk over a state does: rows into batches, once they are known to be possible."""

    def __init__(self, state: str, sources: frozenset[bytes], send: Send) -> None:
        self._sources = sources
        self._batches = Batches(send)
        self._state = Reader(Path(state))
        self._sound_folder = b""  # the last one that was looked at

    def _add(self, held: Held) -> None:
        wrong = self._what_is_wrong_with(held)
        if wrong is not None:
            self._batches.add((message.PROBLEM, held.path, wrong, Severity.ERROR))
        elif held.kind == _FOLDER:
            self._batches.add((message.FOLDER, held.path, held[1:]))
        else:
            folder, _, name = held.path.rpartition(treepath.SEPARATOR)
            if held.kind == _FILE:
                self._batches.add_file(folder, name, held[1:], held.size)
            else:
                self._batches.inside(folder)
                tag = message.LINK if held.kind == _LINK else message.SPECIAL
                self._batches.add((tag, name, held[1:]))

    def _what_is_wrong_with(self, held: Held) -> str | None:
        """A state is a file like any other: what it says is looked at before a name is made from it."""
        path, kind, mode, uid, gid, mtime_ns, size, digest, target, number, *_ = held
        folder, _, name = path.rpartition(treepath.SEPARATOR)
        if folder != self._sound_folder:
            if folder and not treepath.is_valid(folder):
                return "the state has a path here that can't be one; refused"
            if treepath.source_name(path) not in self._sources:
                return "the state doesn't know the source of this path; refused"
            self._sound_folder = folder
        if not treepath.is_name(name):
            return "the state has a path here that can't be one; refused"
        if not folder and (kind != _FOLDER or path not in self._sources):
            return "the state has something else here than a source; refused"
        if (
            not type(mode) is type(uid) is type(gid) is type(mtime_ns) is type(size) is type(number) is int
            or kind not in _KINDS
            or size < 0
            or number < 1
            or (kind == _FILE and type(digest) is not bytes and held.is_within_reach)
            or (kind == _LINK and (type(target) is not bytes or not target or b"\0" in target))
        ):
            return "the state says something of this path that can't be; refused"
        return None


class Lister(_StateWalk):
    """Lists entry states, each folder before its content; a part comes with the folders that it is in."""

    def __init__(self, setup: ListSetup, send: Send) -> None:
        super().__init__(setup.state, setup.sources, send)
        self._setup = setup

    def walk(self) -> None:
        with translated_errors():
            for held in self._setup.rows or self._wanted():
                self._add(held)
        self._batches.flush()

    def _wanted(self) -> Iterator[Held]:
        listed: set[bytes] = set()
        for part in self._setup.parts:
            for folder in _folders_above(part):
                if folder not in listed:
                    listed.add(folder)
                    yield from self._at(folder)
            if part:
                yield from self._range(part, part + b"\1", with_low=True)
            else:
                yield from self._range(b"", _LAST)

    def _at(self, path: bytes) -> Iterable[Held]:
        return self._range(path, path + b"\0", with_low=True)

    def _range(self, low: bytes, high: bytes, with_low: bool = False) -> Iterator[Held]:
        return read_held(self._state, self._setup.run, low, high, with_low)


class StoredLister(_StateWalk):
    """Lists everything that the state says is stored: of each path its latest content, then its versions."""

    def __init__(self, setup: StoredSetup, send: Send) -> None:
        super().__init__(setup.state, setup.sources, send)
        self._setup = setup
        self._contents = self._unmarked = 0

    def walk(self) -> None:
        with translated_errors():
            for low, high in self._setup.ranges:
                if not self._walk_range(low, high):
                    break
        self._batches.flush()

    def _walk_range(self, low: bytes, high: bytes) -> bool:
        """Whether there may be more. Ends between two paths, so that a position is a path."""
        last = low
        for held, versions in read_stored(self._state, low, high):
            if self._setup.limit is not None and self._contents >= self._setup.limit:
                self._batches.add((message.POSITION, last))
                return False
            if held is not None:
                self._contents += held.kind in (_FILE, _LINK)
                self._add(held)
            for version in versions:
                self._contents += 1
                last = version.path
                if treepath.is_valid(version.path) and treepath.source_name(version.path) in self._sources:
                    self._batches.add((message.VERSION, version.path, version), 1, version.size)
            last = held.path if held is not None else last
            self._unmarked += 1 + len(versions)
            if self._unmarked >= _POSITION_EVERY:
                self._batches.add((message.POSITION, last))
                self._unmarked = 0
        self._batches.add((message.POSITION, last))
        return True


def _folders_above(path: bytes) -> Iterator[bytes]:
    components = path.split(treepath.SEPARATOR)
    for depth in range(1, len(components)):
        yield treepath.SEPARATOR.join(components[:depth])
