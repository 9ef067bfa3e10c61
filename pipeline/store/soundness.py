"""Whether what a state says can be. A state is a file like any other: its rows are looked at before a name, a
number or an owner is made from them (promise 8).

In: rows, and the sources that the state knows. Out: what is wrong with a row, in words, or None. Guarantees:
what passes has a path that leads nowhere but below its source, and fields of their kinds. Never fails.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

from pipeline.model import attributes, treepath
from pipeline.model.record import Area, Held, Kind, Record, Version
from pipeline.store.reading import Readable

# Plain numbers, because comparing them is most of the work.
_KINDS = frozenset(int(kind) for kind in Kind)
_AREAS = frozenset(int(area) for area in Area)
_FILE, _LINK, _FOLDER = int(Kind.FILE), int(Kind.LINK), int(Kind.FOLDER)
_LAST_OWNER = (1 << 32) - 2
_NO_PATH = "the state has a path here that can't be one; refused"
_NO_FIELDS = "the state says something of this path that can't be; refused"
_PIECE = 2_000
_WITH_ATTRIBUTES = """
    SELECT path FROM files WHERE attributes = ?1
    UNION SELECT path FROM history WHERE attributes = ?1 LIMIT 1"""


class Soundness:
    """Looks at rows. sources: the names that the state knows."""

    def __init__(self, sources: Container[bytes]) -> None:
        self._sources = sources
        self._sound_folder = b""  # the last one that was looked at

    def of_state(self, held: Held) -> str | None:
        """What is wrong with an entry state."""
        path, kind, mode, uid, gid, mtime_ns, size, digest, target, number, *_, area, _, _, _, packed, \
            linked_to, links = held  # fmt: skip
        wrong = self.of_path(path, kind)
        if wrong is not None:
            return wrong
        if (
            not type(mode)
            is type(uid)
            is type(gid)
            is type(mtime_ns)
            is type(size)
            is type(number)
            is type(links)
            is int
            or kind not in _KINDS
            or not (-1 <= uid <= _LAST_OWNER and -1 <= gid <= _LAST_OWNER and mode >= -1)
            or not (area is None or area in _AREAS)
            or size < 0
            or number < 1
            or (kind == _FILE and (type(digest) is not bytes or target is not None) and held.is_within_reach)
            or (kind == _LINK and not _can_be_target(target) and (target is not None or held.is_within_reach))
            or (kind == _FOLDER and not digest is target is None)
            or not (packed is None or type(packed) is bytes)
            or not (linked_to is None or (type(linked_to) is bytes and treepath.is_valid(linked_to)))
        ):
            return _NO_FIELDS
        return None

    def of_version(self, version: Version) -> str | None:
        wrong = self.of_state(Held.of_version(version))
        return wrong or (None if Kind(version.kind).has_content else _NO_FIELDS)

    def of_path(self, path: Any, kind: Any) -> str | None:
        if not isinstance(path, bytes):
            return _NO_PATH
        folder, _, name = path.rpartition(treepath.SEPARATOR)
        if folder != self._sound_folder:
            if folder and not treepath.is_valid(folder):
                return _NO_PATH
            if treepath.source_name(path) not in self._sources:
                return "the state doesn't know the source of this path; refused"
            self._sound_folder = folder
        if not treepath.is_name(name):
            return _NO_PATH
        if not folder and (kind != _FOLDER or path not in self._sources):
            return "the state has something else here than a source; refused"
        return None


def _can_be_target(target: Any) -> bool:
    return type(target) is bytes and bool(target) and b"\0" not in target


def unsound_rows(state: Readable, sources: Container[bytes]) -> Iterator[tuple[Any, str]]:
    """All rows that can't be, each with its path. Reads everything: to be asked when something is odd."""
    soundness = Soundness(sources)
    for row in _all_rows(state, "files"):
        record = Record._make(row)
        held = Held(
            *record[:6], record.size, record.digest, record.target, record.number, record.since_run, None,
            record.area, None, 0, None, record.attributes, record.linked_to, record.links,
        )  # fmt: skip
        # What was lost, or was taken from a deleted path, has no content, which the area doesn't tell.
        is_empty = record.digest is None and record.target is None
        wrong = soundness.of_state(held._replace(area=None, status=-1) if is_empty else held)
        if wrong is not None or type(record.since_run) is not int:
            yield record.path, wrong or _NO_FIELDS
    for row in _all_rows(state, "versions"):
        wrong = soundness.of_version(Version._make(row))
        if wrong is not None:
            yield row[0], wrong
    for path, *numbers, kind, mode, uid, gid, mtime_ns, size, digest, target, number, packed, linked_to, \
            links in _all_rows(state, "history"):  # fmt: skip
        held = Held(
            path, kind, mode, uid, gid, mtime_ns, size, digest, target, number, 0, None, None, -1, 0, None,
            packed, linked_to, links,
        )  # fmt: skip
        wrong = soundness.of_state(held)
        if wrong is not None or not all(type(number) is int for number in numbers):
            yield path, wrong or _NO_FIELDS

    yield from _unsound_attributes(state)


def _unsound_attributes(state: Readable) -> Iterator[tuple[Any, str]]:
    for name, packed in _all_rows(state, "attributes"):
        try:
            is_right = type(packed) is bytes and bool(attributes.unpack(packed))
        except ValueError:
            is_right = False
        if not is_right or attributes.identity(packed) != name:
            users = state.execute(_WITH_ATTRIBUTES, (name,)).fetchall()
            yield users[0][0] if users else name, "the state has attributes here that can't be; refused"


def _all_rows(state: Readable, table: str) -> Iterator[tuple[Any, ...]]:
    """In pieces; by the position in the table, since a key that can't be has no place in its order."""
    start = 0
    while rows := state.execute(f"SELECT * FROM {table} LIMIT {_PIECE} OFFSET ?", (start,)).fetchall():
        yield from rows
        start += len(rows)
