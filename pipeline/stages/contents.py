"""Stored contents, as readers find them: without a lock, and whatever a writer is doing meanwhile.

In: what the state holds of a path. Out: backup paths at which its content lies, the likeliest first.
Guarantees: what isn't where a reader was told is looked for again where the state says that it lies now, and
through the recorded intents of a group that isn't carried out yet; only when the state has not changed since
the last look is there nowhere left to look. Links are never followed (promise 8). Nothing is written. Fails
with OSError where the backup can't be read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline import layout
from pipeline.layout import OWN_FOLDER, SourcePlace
from pipeline.model import treepath
from pipeline.model.record import Area, Held, VersionStatus
from pipeline.store import operation
from pipeline.store.folders import FOLDER_FLAGS, Folders, split
from pipeline.store.operation import Place
from pipeline.store.reading import Reader

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STAGING = OWN_FOLDER + b"/staging/"
_LOOKS = 8


class Contents:
    """The stored files of a backup, and a state to ask when one of them isn't found."""

    def __init__(self, places: dict[bytes, SourcePlace], backup_root: str, state: str) -> None:
        self.folders = Folders(os.open(backup_root, FOLDER_FLAGS))
        self._places = places
        self._state_path = Path(state)
        self._reader: Reader | None = None
        self._intents_seen: list[tuple[object, ...]] = []
        self._intents: dict[bytes, list[bytes]] = {}

    def open(self, at: bytes) -> int:
        folder, name = split(at)
        return os.open(name, READ_FLAGS, dir_fd=self.folders.at(folder))

    def stat(self, at: bytes) -> os.stat_result:
        folder, name = split(at)
        return os.stat(name, dir_fd=self.folders.at(folder), follow_symlinks=False)

    def target(self, at: bytes) -> bytes:
        """Where a stored link points."""
        folder, name = split(at)
        return os.readlink(name, dir_fd=self.folders.at(folder))

    def place(self, path: bytes, number: int, area: int | None) -> bytes:
        """Where the content of a path lies by the state. area: None for a version."""
        place, relative = self._places[treepath.source_name(path)], treepath.relative(path)
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

    def _look(self, path: bytes, number: int) -> tuple[bytes | None, tuple[bytes, ...]]:
        """Where the content lies by the state of this moment, and where it still may be on its way there."""
        if self._reader is None:
            self._reader = Reader(self._state_path)
        query = "SELECT number, area, digest IS NULL AND target IS NULL FROM files WHERE path = ?"
        current = self._reader.execute(query, (path,)).fetchall()
        if current and current[0][0] == number and not current[0][2]:
            at = self.place(path, number, current[0][1])
        else:
            query = "SELECT 1 FROM versions WHERE path = ? AND number = ? AND status = ?"
            if not self._reader.execute(query, (path, number, VersionStatus.KEPT)).fetchall():
                return None, ()
            at = self.place(path, number, None)
        return at, tuple(self._on_its_way_to(at))

    def _on_its_way_to(self, at: bytes) -> list[bytes]:
        assert self._reader is not None, "the caller has asked it already"
        ends = (f"SELECT * FROM intents ORDER BY sequence {order} LIMIT 1" for order in ("ASC", "DESC"))
        seen = [row for query in ends for row in self._reader.execute(query).fetchall()]
        if seen != self._intents_seen:
            rows = self._reader.execute("SELECT operation FROM intents ORDER BY sequence").fetchall()
            self._intents_seen, self._intents = seen, {}
            for intent in (operation.decode(row[0]) for row in rows):
                if isinstance(intent, Place):
                    names = [_STAGING + intent.staged, *filter(None, [intent.origin])]
                    self._intents.setdefault(intent.target, []).extend(names)
        return self._intents.get(at, [])
