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
from pipeline.model.record import Held, Kind, Version
from pipeline.stages.batches import BATCH_BYTES, Batches, Send
from pipeline.stages.setup import ListSetup, StoredSetup
from pipeline.store.past import read_held, read_stored
from pipeline.store.reading import Reader
from pipeline.store.scratch import FirstNames
from pipeline.store.soundness import Soundness
from pipeline.store.state import translated_errors

_POSITION_EVERY = 200
_FILE, _LINK, _FOLDER = int(Kind.FILE), int(Kind.LINK), int(Kind.FOLDER)


class _StateWalk:
    """What every walk over a state does: rows into batches, once they are known to be possible."""

    def __init__(self, state: str, sources: frozenset[bytes], send: Send) -> None:
        self._soundness = Soundness(sources)
        self._batches = Batches(send)
        self._state = Reader(Path(state))

    def _add(self, held: Held) -> None:
        wrong = self._soundness.of_state(held)
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


class Lister(_StateWalk):
    """Lists entry states, each folder before its content; a part comes with the folders that it is in."""

    def __init__(self, setup: ListSetup, send: Send) -> None:
        super().__init__(setup.state, setup.sources, send)
        self._setup = setup
        self._firsts = FirstNames()

    def walk(self) -> None:
        with translated_errors():
            for held in self._setup.rows:
                self._add(held._replace(linked_to=None))  # one content, and no other name beside it
            for held in self._wanted() if not self._setup.rows else ():
                self._add(held if held.linked_to is None else self._linked(held))
        self._batches.flush()
        self._firsts.close()

    def _linked(self, held: Held) -> Held:
        """Which of the wanted names comes first: that one becomes the file, the others its names."""
        of = held.linked_to
        assert of is not None, "the caller has looked"
        if any(not part or of == part or treepath.is_below(of, part) for part in self._setup.parts):
            return held
        first = self._firsts.first(of, held.path)
        return held._replace(linked_to=first if first != held.path else None)

    def _wanted(self) -> Iterator[Held]:
        listed: set[bytes] = set()
        for part in self._setup.parts:
            for folder in treepath.parents(part):
                if folder not in listed:
                    listed.add(folder)
                    yield from self._at(folder)
            if part:
                yield from self._range(part, part + b"\1", with_low=True)
            else:
                yield from self._range(b"", treepath.HIGHEST)

    def _at(self, path: bytes) -> Iterable[Held]:
        return self._range(path, path + b"\0", with_low=True)

    def _range(self, low: bytes, high: bytes, with_low: bool = False) -> Iterator[Held]:
        return read_held(self._state, self._setup.run, low, high, with_low)


class StoredLister(_StateWalk):
    """Lists everything that the state says is stored: of each path its latest content, then its versions."""

    def __init__(self, setup: StoredSetup, send: Send) -> None:
        super().__init__(setup.state, setup.sources, send)
        self._setup = setup
        self._contents = self._unmarked = self._unmarked_bytes = 0

    def walk(self) -> None:
        with translated_errors():
            for low, high in self._setup.ranges:
                if not self._walk_range(low, high):
                    break
        self._batches.flush()

    def _add_version(self, version: Version) -> None:
        wrong = self._soundness.of_version(version)
        if wrong is None:
            self._batches.add((message.VERSION, version.path, version), 1, version.size)
        else:
            self._batches.add((message.PROBLEM, version.path, wrong, Severity.ERROR))

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
                self._add_version(version)
            last = held.path if held is not None else last
            self._unmarked += 1 + len(versions)
            self._unmarked_bytes += sum(
                one.size for one in (held, *versions) if one and type(one.size) is int
            )
            if self._unmarked >= _POSITION_EVERY or self._unmarked_bytes >= BATCH_BYTES:
                self._batches.add((message.POSITION, last))
                self._unmarked = self._unmarked_bytes = 0
        self._batches.add((message.POSITION, last))
        return True
