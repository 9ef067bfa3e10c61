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
from pipeline.stages.setup import ListSetup
from pipeline.store.past import read_held
from pipeline.store.reading import Reader
from pipeline.store.state import translated_errors

_LAST = b"\xff" * 256
# Plain numbers, because comparing them is most of the work.
_KINDS = frozenset(int(kind) for kind in Kind)
_FILE, _LINK, _FOLDER = int(Kind.FILE), int(Kind.LINK), int(Kind.FOLDER)


class Lister:
    """Lists entry states, each folder before its content; a part comes with the folders that it is in."""

    def __init__(self, setup: ListSetup, send: Send) -> None:
        self._setup = setup
        self._batches = Batches(send)
        self._state = Reader(Path(setup.state))
        self._sound_folder = b""  # the last one that was looked at

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
            if treepath.source_name(path) not in self._setup.sources:
                return "the state doesn't know the source of this path; refused"
            self._sound_folder = folder
        if not treepath.is_name(name):
            return "the state has a path here that can't be one; refused"
        if not folder and (kind != _FOLDER or path not in self._setup.sources):
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


def _folders_above(path: bytes) -> Iterator[bytes]:
    components = path.split(treepath.SEPARATOR)
    for depth in range(1, len(components)):
        yield treepath.SEPARATOR.join(components[:depth])
