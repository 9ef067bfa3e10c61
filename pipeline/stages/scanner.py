"""The scanner: walks the sources once, in scan order, beside the records of the state.

In: the sources, a read-only view of the state, and what is to be looked at. Out: batches of items
(`model.message`), in scan order. Guarantees: depth first, names as bytes, in whatever order they are listed
(promise 4); one merge of two sorted streams tells what is new, known and missing, so memory holds one
folder's names per level and a range of records (promise 6); links are never followed and excluded folders
never entered (promise 8). A folder that can't be read becomes a PROBLEM, and nothing below it counts as
missing. Fails only with what ends the process; the parent notices.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.filters import Filter
from pipeline.model import message, treepath
from pipeline.model.record import Area, Kind, Stat
from pipeline.model.scope import Part
from pipeline.stages.batch import open_source, unreadable
from pipeline.stages.batches import Batches, Send
from pipeline.stages.folders_ahead import FoldersAhead
from pipeline.stages.marked import Marked
from pipeline.stages.setup import ScanSetup, SourceRoot
from pipeline.store import calls, extended
from pipeline.store.folders import Folders
from pipeline.store.reading import Readable, Reader, read_range, read_row
from pipeline.store.state import translated_errors

_KIND, _SIZE, _AREA = 1, 8, 11  # positions in a record's row
_UNCOUNTED_BYTES = 64 << 10
_BEAT_EVERY = 256

Row = tuple[Any, ...]


class Known:
    """The records of one source in scan order, taken in step with the walk.

    The walk asks for paths in ascending order. A range of rows is read only when the walk has passed the last
    one, and the parent writes only behind the walk, so rows of this very run are never met here.
    """

    def __init__(self, rows_from: Callable[[bytes], Iterator[Row]], root: bytes) -> None:
        self._rows_from = rows_from
        self._rows = rows_from(root)
        self._row: Row | None = next(self._rows, None)

    def take(self, path: bytes, missing: Callable[[Row], None]) -> Row | None:
        """The record of `path`, if there is one; `missing` is called with each record before it."""
        row = self._row
        if row is not None and row[0] == path:
            self._row = next(self._rows, None)
            return row
        while row is not None and row[0] < path:
            missing(row)
            row = self._row = next(self._rows, None)
        if row is None or row[0] != path:
            return None
        self._row = next(self._rows, None)
        return row

    def skip_below(self, path: bytes) -> None:
        """Pass over what lies below a folder that isn't entered."""
        low, high = treepath.below(path)
        if self._row is not None and low < self._row[0] < high:
            self._rows = self._rows_from(high)  # with `high` itself, which is a possible sibling
            self._row = next(self._rows, None)

    def rest(self) -> Iterator[Row]:
        if self._row is not None:
            yield self._row
            yield from self._rows


class Scanner:
    """Walks the sources, one after the other, by name."""

    def __init__(self, setup: ScanSetup, send: Send) -> None:
        self._setup = setup
        self._filter = Filter(setup.exclude_patterns)
        self._batches = Batches(send)
        self._state = Reader(Path(setup.state))
        self._ahead = FoldersAhead()

    def walk(self) -> None:
        setup = self._setup
        with translated_errors():
            for source in setup.sources:
                walk = _SourceWalk(source, self._state, self._filter, setup, self._batches, self._ahead)
                try:
                    if setup.scope.parts is None:
                        walk.all()
                    else:
                        walk.some(setup.scope.parts)
                finally:
                    walk.close()
        self._batches.flush()

    def close(self) -> None:
        self._ahead.close()
        self._state.close()


class _Folder(NamedTuple):
    """A folder on the way. names: what is left of it, sorted."""

    path: bytes
    relative: bytes
    names: Iterator[tuple[bytes, Kind]]


def _is_present_folder(row: Row | None) -> bool:
    return row is not None and row[_KIND] == Kind.FOLDER and row[_AREA] != Area.DELETED


class _SourceWalk:
    """The walk through one source."""

    def __init__(
        self,
        source: SourceRoot,
        state: Readable,
        exclude: Filter,
        setup: ScanSetup,
        batches: Batches,
        ahead: FoldersAhead,
    ) -> None:
        self._ahead = ahead
        self._root_path = source.name
        self._state = state
        self._root = open_source(source)
        self._folders = Folders(self._root)
        self._filter = exclude
        self._excluded = setup.excluded
        self._marked = Marked(setup.rules, source.identity[0])
        self._max_file_bytes = setup.rules.max_file_bytes
        self._scope = setup.scope
        self._batches = batches
        self._known_folders: set[bytes] = set()  # above a part, and looked at already
        self._absent = b""  # the last one that was handed back

    def close(self) -> None:
        self._folders.close()
        calls.close(self._root)

    # -- what is walked -----------------------------------------------------------------------------------

    def all(self) -> None:
        """The whole source."""
        self._begin_at(self._root_path)
        names = self._enter(self._root_path, b"", self._take(self._root_path))
        self._walk(_Folder(self._root_path, b"", names) if names is not None else None)

    def some(self, parts: tuple[Part, ...]) -> None:
        """Those of the parts that lie in this source."""
        cover: bytes | None = None
        for asked in parts:
            if treepath.source_name(asked.path) != self._root_path:
                continue
            if cover is not None and treepath.is_below(asked.path, cover):
                continue
            part = self._below_known(asked)
            if part is None:
                continue
            cover = part.path if self._part(part) else None

    def _below_known(self, part: Part) -> Part | None:
        """The part, or the first folder above it that isn't both there and known as one: it is new, gone, or
        something else now, as a whole. None: what is above isn't entered."""
        for folder in treepath.parents(part.path):
            if folder in self._known_folders:
                continue
            relative = treepath.relative(folder)
            if relative and self._filter.excludes(relative, True):
                return None
            if not _is_present_folder(read_row(self._state, folder)):
                return Part(folder, True)
            try:
                handle = self._folders.at(relative)
                found = calls.fstat(handle)
            except OSError:
                return Part(folder, True)
            if (found.st_dev, found.st_ino) in self._excluded or self._marked.is_closed(handle):
                return None
            self._known_folders.add(folder)
        return part

    def _part(self, part: Part) -> bool:
        """One path, whose folder is there and known. Out: whether all below it was looked at, too."""
        is_whole = part.whole or not _is_present_folder(read_row(self._state, part.path))
        if part.path == self._root_path and is_whole:
            self.all()
            return True
        self._begin_at(part.path)
        folder, _, name = part.path.rpartition(treepath.SEPARATOR)
        relative, kind = treepath.relative(folder), Kind.FOLDER
        try:
            if folder:
                found = calls.stat(name, dir_fd=self._folders.at(relative), follow_symlinks=False)
                kind = Kind.of_mode(found.st_mode)
        except FileNotFoundError:
            self._walk(_Folder(folder, relative, iter(())))  # what is known of it is missing
            return True
        except OSError as error:
            self._not_readable(part.path, error)
            return False
        if kind is Kind.FOLDER and not is_whole:
            self._alone(part.path, treepath.relative(part.path))
            return False
        self._walk(_Folder(folder, relative, iter([(name, kind)])))
        return True

    def _alone(self, path: bytes, relative: bytes) -> None:
        """A folder that is known, without its content."""
        if not relative or not self._filter.excludes(relative, True):
            self._enter(path, relative, self._take(path), lists=False)

    def _begin_at(self, path: bytes) -> None:
        _, high = treepath.below(path)
        self._known = Known(lambda low: read_range(self._state, low, high, with_low=True), path)

    def _walk(self, first: _Folder | None) -> None:
        """Depth first. The stack holds, for each folder on the way, what is left of its sorted names."""
        stack = [first] if first is not None else []
        while stack:
            inner = self._next_folder(stack[-1])
            if inner is None:
                stack.pop()
            else:
                stack.append(inner)
        for row in self._known.rest():
            self._missing(row)

    # -- what is found ------------------------------------------------------------------------------------

    def _next_folder(self, folder: _Folder) -> _Folder | None:
        """Pass on a folder's entries up to its next subfolder, which is entered. None: the folder is done."""
        path, relative, names = folder
        prefix = relative + b"/" if relative else b""
        start = path + treepath.SEPARATOR
        may_leave_out = not self._filter.is_empty or bool(self._scope.waiting or self._max_file_bytes)
        may_wait = self._scope.gone is not None
        for name, kind in names:
            inner_path = start + name
            if may_leave_out and (
                self._is_left_out(inner_path, prefix + name, kind)
                or (kind is Kind.FILE and self._is_too_large(relative, name))
            ):
                self._leave_alone(inner_path)
                continue
            row = self._known.take(inner_path, self._missing)
            if may_wait and kind is not Kind.FOLDER and self._may_come_back(inner_path, row):
                self._hand_back(inner_path)
                self._known.skip_below(inner_path)
            elif kind is Kind.FILE:
                # The size only serves to fill batches evenly; the worker looks for itself.
                size_bytes = row[_SIZE] if row is not None else self._size_of(relative, name)
                self._batches.add_file(path, name, row, size_bytes)
            elif kind is Kind.FOLDER:
                inner_names = self._enter(inner_path, prefix + name, row)
                if inner_names is not None:
                    return _Folder(inner_path, prefix + name, inner_names)
            else:
                self._link_or_special(path, relative, name, kind, row)
        return None

    def _take(self, path: bytes) -> Row | None:
        return self._known.take(path, self._missing)

    def _missing(self, row: Row) -> None:
        """In the state, not in the tree. What was excluded since it was backed up isn't a deletion."""
        path, kind = row[0], row[_KIND]
        if row[_AREA] == Area.DELETED:
            return
        if self._filter.excludes_known(treepath.relative(path), kind == Kind.FOLDER):
            return
        if self._scope.is_waiting(path):
            return
        if self._scope.is_gone(path):
            self._batches.add((message.MISSING, path, kind))
        elif not (self._absent and treepath.is_below(path, self._absent)):
            self._hand_back(path)

    def _hand_back(self, path: bytes) -> None:
        """Missing, with all that lies below it, but not yet to count as deleted."""
        self._absent = path
        self._batches.add((message.ABSENT, path))

    def _may_come_back(self, path: bytes, row: Row | None) -> bool:
        """Whether something else stands in a folder's place, though not for long enough to count as gone."""
        return _is_present_folder(row) and not self._scope.is_gone(path)

    def _is_left_out(self, path: bytes, relative: bytes, kind: Kind) -> bool:
        """Excluded, or changing at the moment. A folder that changes is entered: what is in it may be new."""
        if kind is not Kind.FOLDER and path in self._scope.waiting:
            return True
        return self._filter.excludes(relative, kind is Kind.FOLDER)

    def _is_too_large(self, relative: bytes, name: bytes) -> bool:
        if not self._max_file_bytes:
            return False
        try:
            found = calls.stat(name, dir_fd=self._folders.at(relative), follow_symlinks=False)
        except OSError:
            return False  # the worker meets the same error and reports it
        return found.st_size > self._max_file_bytes

    def _leave_alone(self, path: bytes) -> None:
        """An entry that is left out: neither backed up nor missing, and nothing below it either."""
        self._take(path)
        self._known.skip_below(path)

    def _enter(
        self, path: bytes, relative: bytes, row: Row | None, lists: bool = True
    ) -> Iterator[tuple[bytes, Kind]] | None:
        """Pass on a folder and list it. None: it isn't entered."""
        try:
            handle = self._folders.at(relative)
            found = calls.fstat(handle)
            if (found.st_dev, found.st_ino) in self._excluded:
                self._known.skip_below(path)
                return None
            self._batches.beat()
            packed = extended.read(handle)
            names = []
            if lists and self._marked.is_closed(handle):
                self._known.skip_below(path)
            elif lists:
                self._ahead.before_listing()
                names = self._list(handle)
                self._ahead.after_listing(handle, [name for name, kind in names if kind is Kind.FOLDER])
        except OSError as error:
            self._not_readable(path, error)
            return None
        self._batches.add((message.FOLDER, path, Stat.of(found), row, packed))
        return iter(names)

    def _list(self, handle: int) -> list[tuple[bytes, Kind]]:
        """A folder's names and kinds, sorted by the names' bytes."""
        out = []
        with calls.scandir(handle) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    kind = Kind.FILE
                elif entry.is_dir(follow_symlinks=False):
                    kind = Kind.FOLDER
                else:
                    kind = Kind.LINK if entry.is_symlink() else Kind.SPECIAL
                out.append((os.fsencode(entry.name), kind))
                if not len(out) % _BEAT_EVERY:
                    self._batches.beat()  # a folder of millions takes a while
        out.sort()
        return out

    def _not_readable(self, path: bytes, error: OSError) -> None:
        self._known.skip_below(path)
        self._batches.add(unreadable(path, error))

    def _size_of(self, relative: bytes, name: bytes) -> int:
        try:
            found = calls.stat(name, dir_fd=self._folders.at(relative), follow_symlinks=False)
        except OSError:
            return 0  # the worker meets the same error and reports it
        # Holes take no time and no space. Some file systems count no blocks, or none for what is small.
        return min(found.st_size, max(found.st_blocks * 512, _UNCOUNTED_BYTES))

    def _link_or_special(
        self, path: bytes, relative: bytes, name: bytes, kind: Kind, row: Row | None
    ) -> None:
        try:
            folder = self._folders.at(relative)
            found = Stat.of(calls.stat(name, dir_fd=folder, follow_symlinks=False))
            target = calls.readlink(name, dir_fd=folder) if kind == Kind.LINK else None
            packed = extended.read_name(name, folder)
        except OSError as error:
            self._not_readable(path + b"\0" + name, error)
            return
        self._batches.inside(path)
        if target is not None:
            self._batches.add((message.LINK, name, found, target, row, packed))
        else:
            self._batches.add((message.SPECIAL, name, found, row, packed))
