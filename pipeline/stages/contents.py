"""Stored contents, as readers find them: without a lock, and whatever a writer is doing meanwhile.

In: what the state holds of a path. Out: backup paths at which its content lies, the likeliest first.
Guarantees: what isn't where a reader was told is looked for again where the state says that it lies now, and
through the recorded intents of a group that isn't carried out yet; only when the state has not changed since
the last look is there nowhere left to look. Links are never followed (promise 8). Nothing is written. Fails
with OSError where the backup can't be read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pipeline import layout
from pipeline.layout import OWN_FOLDER, Parsed, SourcePlace
from pipeline.model import treepath
from pipeline.model.record import Area, Held, Kind, VersionStatus
from pipeline.store import calls, operation
from pipeline.store.folders import FOLDER_FLAGS, READ_FLAGS, Folders, split
from pipeline.store.operation import MakePrivate, Mark, Place, Remove
from pipeline.store.reading import Reader, Row
from pipeline.store.state import read_places

T = TypeVar("T")
_STAGING = OWN_FOLDER + b"/staging/"
_LOOKS = 8
_CLAIMS = {
    b"bak": f"status = {VersionStatus.KEPT:d}",
    b"pinned": "pinned = 1",
    b"pruned": f"status = {VersionStatus.PRUNED:d}",
}


class Contents:
    """The stored files of a backup, and a state to ask when one of them isn't found."""

    def __init__(self, places: dict[bytes, SourcePlace], backup_root: str, state: str) -> None:
        self.folders = Folders(calls.open(backup_root, FOLDER_FLAGS))
        self.places = places
        """As the state has them; read again whenever something isn't found."""
        self._state_path = Path(state)
        self._reader: Reader | None = None
        self._seen: list[Row] = []
        self._coming: dict[bytes, list[bytes]] = {}
        self._going: set[bytes] = set()
        self._folders_coming: set[bytes] = set()

    def open(self, at: bytes) -> int:
        return self._at(at, lambda name, folder: calls.open(name, READ_FLAGS, dir_fd=folder))

    def stat(self, at: bytes) -> os.stat_result:
        return self._at(at, lambda name, folder: calls.stat(name, dir_fd=folder, follow_symlinks=False))

    def target(self, at: bytes) -> bytes:
        """Where a stored link points."""
        return self._at(at, lambda name, folder: calls.readlink(name, dir_fd=folder))

    def _at(self, at: bytes, look: Callable[[bytes, int], T]) -> T:
        """A folder that a writer has removed and made anew is another one than the handle that is kept of it:
        what isn't found is looked for once more by new handles."""
        folder, name = split(at)
        try:
            return look(name, self.folders.at(folder))
        except (FileNotFoundError, NotADirectoryError):
            self.folders.close()
            return look(name, self.folders.at(folder))

    def place(self, path: bytes, number: int, area: int | None) -> bytes:
        """Where the content of a path lies by the state. area: None for a version."""
        place, relative = self.places[treepath.source_name(path)], treepath.relative(path)
        if area is None:
            return layout.version(place, relative, number)
        return layout.stored(place, relative, Area(area))

    def all_places(self, held: Held) -> Iterator[bytes]:
        """Where to look for a content: where it was when the list was made, then as the state is now."""
        at = self.place(held.path, held.number, held.area)
        yield at
        seen: tuple[object, ...] | None = None
        for _ in range(_LOOKS):
            now = self._look(held.path, held.number)
            if now == seen:
                return
            seen, (at_now, staged) = now, now
            yield from staged
            if at_now is not None:
                yield at_now

    def is_promised(self, path: bytes, number: int) -> bool:
        """Whether the state still says that this content is stored; retention may have taken it meanwhile."""
        return self._look(path, number)[0] is not None

    def gone_words(self, held: Held) -> str | None:
        """Why a content is no longer stored, by the state of this moment; None where it should be."""
        if self.is_promised(held.path, held.number):
            return None
        query = "SELECT status, ended_run FROM versions WHERE path = ? AND number = ?"
        rows = self._ask(query, (held.path, held.number))
        status, ended_run = rows[0] if rows else (None, None)
        return gone_words(held._replace(area=None, status=status, ended_run=ended_run))

    def is_claimed(self, at: bytes, parsed: Parsed) -> bool:
        """Whether the state, as it is at this moment, has something stored under this backup path."""
        path = treepath.inside(parsed.source, parsed.relative)
        if parsed.area is None:
            query = f"SELECT 1 FROM versions WHERE path = ? AND number = ? AND {_CLAIMS[parsed.marker]}"
            found = self._ask(query, (path, parsed.number))
        else:
            query = (
                "SELECT 1 FROM files WHERE path = ? AND area = ? AND NOT (digest IS NULL AND target IS NULL)"
            )
            found = self._ask(query, (path, int(parsed.area)))
        return bool(found) or self._is_on_its_way(at)

    def is_promised_folder(self, path: bytes, at: bytes) -> bool:
        """Whether the state still says that this folder is there, and no recorded intent is to make it."""
        query = "SELECT 1 FROM files WHERE path = ? AND kind = ? AND area != ?"
        if not self._ask(query, (path, int(Kind.FOLDER), int(Area.DELETED))):
            return False
        self._read_intents()
        return at not in self._folders_coming

    def read_places(self) -> None:
        """A writer may have begun to respell a name since they were read."""
        self.places = read_places(self._opened())

    def _ask(self, query: str, values: tuple[object, ...] = ()) -> list[Row]:
        return self._opened().execute(query, values).fetchall()

    def _opened(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(self._state_path)
        return self._reader

    def _look(self, path: bytes, number: int) -> tuple[bytes | None, tuple[bytes, ...]]:
        """Where the content lies by the state of this moment, and where it still may be on its way there."""
        self.read_places()
        query = "SELECT number, area, digest IS NULL AND target IS NULL FROM files WHERE path = ?"
        current = self._ask(query, (path,))
        if current and current[0][0] == number and not current[0][2]:
            at = self.place(path, number, current[0][1])
        else:
            query = "SELECT 1 FROM versions WHERE path = ? AND number = ? AND status = ?"
            if not self._ask(query, (path, number, int(VersionStatus.KEPT))):
                return None, ()
            at = self.place(path, number, None)
        self._read_intents()
        return at, tuple(self._coming.get(at, ()))

    def _is_on_its_way(self, at: bytes) -> bool:
        """Whether a recorded intent is still to make or to remove this name."""
        self._read_intents()
        return at in self._coming or at in self._going

    def _read_intents(self) -> None:
        """The intents of the last group, read anew only when there are others."""
        query = "SELECT * FROM intents ORDER BY sequence {} LIMIT 1"
        seen = [row for order in ("ASC", "DESC") for row in self._ask(query.format(order))]
        if seen == self._seen:
            return
        self._seen, self._coming, self._going, self._folders_coming = seen, {}, set(), set()
        rows = self._ask("SELECT operation FROM intents ORDER BY sequence")
        for intent in chain.from_iterable(operation.decode(row[0]) for row in rows):
            if isinstance(intent, Place):
                names = [_STAGING + intent.staged, *filter(None, [intent.origin])]
                self._coming.setdefault(intent.target, []).extend(names)
            elif isinstance(intent, Mark | Remove):
                self._going.add(intent.target)
            elif isinstance(intent, MakePrivate):
                self._folders_coming.add(intent.target)


def gone_words(held: Held) -> str:
    """Why a content is no longer in the backup."""
    if held.status == VersionStatus.PRUNED:
        return f"version {held.number} is gone: retention removed it in run {held.ended_run}"
    if held.status == VersionStatus.LOST:
        return f"version {held.number} is gone: run {held.ended_run} found its stored file lost"
    return f"version {held.number} is not in the backup"
