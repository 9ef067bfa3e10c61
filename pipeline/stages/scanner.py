"""The scanner: walks the sources once, in scan order, beside the records of the state.

In: the sources, a read-only view of the state, and what is to be looked at. Out: batches of items
(`model.message`), in scan order. Guarantees: depth first, names as bytes, in whatever order they are listed
(promise 4); one merge of two sorted streams tells what is new, known and missing, so memory holds the names
and rules of each folder on the way and a range of records (promise 6); links are never followed and excluded
folders never entered (promise 8). A folder that can't be read becomes a PROBLEM, and nothing below it counts
as missing. Fails only with what ends the process; the parent notices.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.filters import Filter, SizeLimits
from pipeline.model import message, treepath
from pipeline.model.errors import Severity
from pipeline.model.record import Area, Kind, Stat
from pipeline.model.scope import Part
from pipeline.stages.batch import open_source, unreadable
from pipeline.stages.batches import Batches, Send
from pipeline.stages.folders_ahead import FoldersAhead
from pipeline.stages.ignore_file import NAME, rules_inside
from pipeline.stages.known import Known, Row
from pipeline.stages.marked import Marked
from pipeline.stages.setup import ScanSetup, SourceRoot
from pipeline.store import calls, extended
from pipeline.store.folders import Folders
from pipeline.store.reading import Readable, Reader, read_range, read_row
from pipeline.store.state import translated_errors

_KIND, _SIZE, _AREA = 1, 8, 11  # positions in a record's row
_UNCOUNTED_BYTES = 64 << 10
_BEAT_EVERY = 256


class Scanner:
    """Walks the sources, one after the other, by name."""

    def __init__(self, setup: ScanSetup, send: Send) -> None:
        self._setup = setup
        self._filter = Filter(setup.patterns)
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
    """A folder on the way. names: what is left of it, sorted. rules: for what lies in it."""

    path: bytes
    relative: bytes
    names: Iterator[tuple[bytes, Kind]]
    rules: Filter


def _is_present_folder(row: Row | None) -> bool:
    return row is not None and row[_KIND] == Kind.FOLDER and row[_AREA] != Area.DELETED


def _to_enter(names: list[tuple[bytes, Kind]], relative: bytes, rules: Filter) -> Iterator[bytes]:
    """The folders among a folder's entries that the walk will come to, but for what it meets there."""
    prefix = relative + b"/" if relative else b""
    return (name for name, kind in names if kind is Kind.FOLDER and not rules.excludes(prefix + name, True))


class _SourceWalk:
    """The walk through one source."""

    def __init__(
        self,
        source: SourceRoot,
        state: Readable,
        rules: Filter,
        setup: ScanSetup,
        batches: Batches,
        ahead: FoldersAhead,
    ) -> None:
        self._ahead = ahead
        self._root_path = source.name
        self._state = state
        self._root = open_source(source)
        self._folders = Folders(self._root)
        self._rules = rules
        self._excluded = setup.excluded
        self._marked = Marked(setup.rules, source.identity[0])
        self._limits = SizeLimits(setup.rules.max_file_bytes, setup.rules.max_bytes_by_pattern)
        self._may_leave_out = bool(setup.scope.waiting) or not self._limits.is_empty
        self._archives = setup.archives_excluded
        self._reports = setup.report_excluded
        self._scope = setup.scope
        self._batches = batches
        self._way: list[tuple[bytes, Filter]] = []  # to a part: the folders above it, and the rules in them
        self._here = _Folder(b"", b"", iter(()), rules)
        self._absent = b""  # the last one that was handed back
        self._misses_proc = False

    def close(self) -> None:
        self._folders.close()
        calls.close(self._root)

    # -- what is walked -----------------------------------------------------------------------------------

    def all(self) -> None:
        """The whole source."""
        self._begin_at(self._root_path)
        self._walk(self._enter(self._root_path, b"", self._take(self._root_path), self._rules))

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
        something else now, as a whole. None: what is above isn't entered. `_way` leads there."""
        while self._way and not treepath.is_below(part.path, self._way[-1][0]):
            self._way.pop()
        for folder in list(treepath.parents(part.path))[len(self._way) :]:
            relative, rules = treepath.relative(folder), self._rules_on_the_way
            if relative and rules.excludes(relative, True):
                return None
            if not _is_present_folder(read_row(self._state, folder)):
                return Part(folder, True)
            try:
                handle = self._folders.at(relative)
                found = calls.fstat(handle)
            except OSError:
                return Part(folder, True)
            if (found.st_dev, found.st_ino) in self._excluded or self._marked.closed_by(handle) is not None:
                return None
            # What is wrong with them is told by a run that looks at what the folder holds.
            self._way.append((folder, self._rules_in(folder, handle, rules)[0]))
        return part

    @property
    def _rules_on_the_way(self) -> Filter:
        return self._way[-1][1] if self._way else self._rules

    def _part(self, part: Part) -> bool:
        """One path, whose folder is there and known. Out: whether all below it was looked at, too."""
        is_whole = part.whole or not _is_present_folder(read_row(self._state, part.path))
        if part.path == self._root_path and is_whole:
            self.all()
            return True
        self._begin_at(part.path)
        folder, _, name = part.path.rpartition(treepath.SEPARATOR)
        relative, kind, rules = treepath.relative(folder), Kind.FOLDER, self._rules_on_the_way
        try:
            if folder:
                found = calls.stat(name, dir_fd=self._folders.at(relative), follow_symlinks=False)
                kind = Kind.of_mode(found.st_mode)
        except FileNotFoundError:
            self._walk(_Folder(folder, relative, iter(()), rules))  # what is known of it is missing
            return True
        except OSError as error:
            self._not_readable(part.path, error)
            return False
        if kind is Kind.FOLDER and not is_whole:
            self._alone(part.path, treepath.relative(part.path))
            return False
        self._walk(_Folder(folder, relative, iter([(name, kind)]), rules))
        return True

    def _alone(self, path: bytes, relative: bytes) -> None:
        """A folder that is known, without its content."""
        rules = self._rules_on_the_way
        if not relative or not rules.excludes(relative, True):
            self._enter(path, relative, self._take(path), rules, lists=False)

    def _begin_at(self, path: bytes) -> None:
        _, high = treepath.below(path)
        self._known = Known(lambda low: read_range(self._state, low, high, with_low=True), path)

    def _walk(self, first: _Folder | None) -> None:
        """Depth first. The stack holds, for each folder on the way, what is left of its sorted names.

        What is known of a folder is passed before it is left, so that its own rules tell what is excluded.
        """
        stack = [first] if first is not None else []
        while stack:
            self._here = stack[-1]
            inner = self._next_folder(self._here)
            if inner is None:
                self._known.rest_below(stack.pop().path, self._missing)
            else:
                stack.append(inner)

    # -- what is found ------------------------------------------------------------------------------------

    def _next_folder(self, folder: _Folder) -> _Folder | None:
        """Pass on a folder's entries up to its next subfolder, which is entered. None: the folder is done."""
        path, relative, names, rules = folder
        prefix = relative + b"/" if relative else b""
        start = path + treepath.SEPARATOR
        may_leave_out = self._may_leave_out or not rules.is_empty
        may_wait = self._scope.gone is not None
        for name, kind in names:
            inner_path = start + name
            if may_leave_out and self._is_left_out(folder, name, kind):
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
                inner = self._enter(inner_path, prefix + name, row, rules)
                if inner is not None:
                    return inner
            else:
                self._link_or_special(path, relative, name, kind, row)
        return None

    def _take(self, path: bytes) -> Row | None:
        return self._known.take(path, self._missing)

    def _missing(self, row: Row) -> None:
        """In the state, not in the tree. What is excluded stays as it was, unless that counts as deleted."""
        path, kind, here = row[0], row[_KIND], self._here
        if row[_AREA] == Area.DELETED:
            return
        if not here.rules.is_certain:
            return  # a rule that isn't known may have left it out
        is_folder, relative = kind == Kind.FOLDER, treepath.relative(path)
        if not self._archives and here.rules.excludes_known(relative, is_folder, here.relative):
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

    def _is_left_out(self, folder: _Folder, name: bytes, kind: Kind) -> bool:
        """Excluded, too large, or changing at the moment: passed over. A folder that changes is entered: what
        is in it may be new."""
        path = folder.path + treepath.SEPARATOR + name
        relative = folder.relative + b"/" + name if folder.relative else name
        line = folder.rules.excluded_by(relative, kind is Kind.FOLDER)
        if line is not None:
            self._leave_out(path, kind, line.shown, self._archives and folder.rules.is_certain)
        elif kind is not Kind.FOLDER and path in self._scope.waiting:
            self._take(path)
            self._known.skip_below(path)
        elif kind is Kind.FILE and (why := self._too_large(folder.relative, relative, name)) is not None:
            self._leave_out(path, kind, why, False)
        else:
            return False
        return True

    def _leave_out(self, path: bytes, kind: Kind, why: str, archives: bool) -> None:
        """An entry that is left out: not backed up, but not missing either, and nothing below it. archives:
        whether what is known of it counts as deleted."""
        row = self._take(path)
        if archives and row is not None:
            self._excluded_now(row)
        self._leave_out_below(path, kind, why, archives)

    def _leave_out_below(self, path: bytes, kind: Kind, why: str, archives: bool) -> None:
        if self._reports:
            self._batches.add((message.LEFT_OUT, path, kind, why))
        if archives:
            self._known.rest_below(path, self._excluded_now)
        else:
            self._known.skip_below(path)

    def _excluded_now(self, row: Row) -> None:
        if row[_AREA] != Area.DELETED:
            self._batches.add((message.EXCLUDED, row[0], row[_KIND]))
        else:
            self._batches.beat()  # there may be very many of them

    def _too_large(self, folder: bytes, relative: bytes, name: bytes) -> str | None:
        """By which limit, None where a file is within all."""
        limit = self._limits.of(relative)
        if limit is None:
            return None
        try:
            found = calls.stat(name, dir_fd=self._folders.at(folder), follow_symlinks=False)
        except OSError:
            return None  # the worker meets the same error and reports it
        return limit[1] if found.st_size > limit[0] else None

    def _enter(
        self, path: bytes, relative: bytes, row: Row | None, above: Filter, lists: bool = True
    ) -> _Folder | None:
        """Pass on a folder and list it. None: it isn't entered. above: the rules where it lies."""
        names, rules, wrong, closed = list[tuple[bytes, Kind]](), above, None, None
        try:
            handle = self._folders.at(relative)
            found = calls.fstat(handle)
            if (found.st_dev, found.st_ino) in self._excluded:
                self._known.skip_below(path)
                return None
            self._batches.beat()
            seen = extended.seen(handle)
            if lists and (closed := self._marked.closed_by(handle)) is None:
                self._ahead.before_listing()
                names = self._list(handle)
                first = bisect_left(names, (NAME,))
                if first < len(names) and names[first][0] == NAME:
                    rules, wrong = self._rules_in(path, handle, above)
                self._ahead.after_listing(handle, _to_enter(names, relative, rules))
        except OSError as error:
            self._not_readable(path, error)
            return None
        self._add_seen((message.FOLDER, path, Stat.of(found), row), seen)
        if closed is not None:
            self._leave_out_below(path, Kind.FOLDER, closed.why, self._archives and closed.is_meant)
        if wrong is not None:
            self._batches.add((message.PROBLEM, treepath.join(path, NAME), wrong, Severity.WARNING))
        return _Folder(path, relative, iter(names), rules)

    def _rules_in(self, path: bytes, handle: int, above: Filter) -> tuple[Filter, str | None]:
        """With those that its own file has, and what is wrong with that. While it is being written, they are
        not certain."""
        rules, wrong = rules_inside(above, handle, path)
        return rules.uncertain() if self._scope.is_waiting(treepath.join(path, NAME)) else rules, wrong

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
            seen = extended.seen_name(name, folder)
        except OSError as error:
            self._not_readable(path + b"\0" + name, error)
            return
        self._batches.inside(path)
        if seen[1] == extended.NO_PROC:
            seen, self._misses_proc = (b"", None if self._misses_proc else seen[1]), True  # told once
        if target is not None:
            self._add_seen((message.LINK, name, found, target, row), seen)
        else:
            self._add_seen((message.SPECIAL, name, found, row), seen)

    def _add_seen(self, item: Row, seen: tuple[bytes, str | None]) -> None:
        """An entry, and what was seen of its attributes: a batch is full of these, too."""
        packed, why = seen
        self._batches.add((*item, packed) if why is None else (*item, packed, why), size_bytes=len(packed))
