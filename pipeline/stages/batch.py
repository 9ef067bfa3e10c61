"""One batch while a worker is at it: its results so far, and the folder that its items are in.

In: the folder that the scanner says the next items are in. Out: figures and results. Guarantees: a handle
that is kept here is only used while the cache that owns it can't have closed it.
"""

from __future__ import annotations

import errno
from typing import Any

from pipeline import layout
from pipeline.model import message, treepath
from pipeline.model.errors import Severity, SourceError
from pipeline.model.record import Area, Kind
from pipeline.stages.setup import SourceRoot
from pipeline.store import calls
from pipeline.store.folders import FOLDER_FLAGS, Folders, split

VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What opening says when the entry that was listed is no longer there, or is a link now."""


class BackupSideFailed(Exception):
    """The backup can't be written, or looked at: FATAL, the run ends."""


KILLED_TWO = "two workers died while they were at it; skipped"


def unreadable(path: bytes, error: OSError) -> tuple[Any, ...]:
    """The result for an entry that could not be read: vanished since it was listed, or a problem."""
    if error.errno in VANISHED:
        return message.GONE, path
    return message.PROBLEM, path, f"can't read: {error.strerror}", Severity.WARNING


def open_source(source: SourceRoot) -> int:
    """The handle of a source's root. Raises SourceError where it isn't the folder that the run began with:
    gone, unmounted, or another one under its path."""
    try:
        handle = calls.open(source.path, FOLDER_FLAGS)
    except OSError as error:
        raise _other_source(source, error.strerror or str(error)) from error
    found = calls.fstat(handle)
    if (found.st_dev, found.st_ino) != source.identity:
        calls.close(handle)
        raise _other_source(source, "another folder stands there now")
    return handle


def _other_source(source: SourceRoot, cause: str) -> SourceError:
    shown = treepath.escaped(source.path)
    return SourceError(
        f"source {shown} has changed since the run began: {cause}", "Is its disk still mounted?"
    )


class Source:
    """A source with the handles that its files are reached by."""

    def __init__(self, source: SourceRoot) -> None:
        self.place = source.place
        self.root = open_source(source)
        self.folders = Folders(self.root)

    def close(self) -> None:
        self.folders.close()
        calls.close(self.root)


class Batch:
    """The results of one batch while they grow, and the folder that its items are in."""

    def __init__(self, report_unchanged: bool) -> None:
        self.items: list[tuple[Any, ...]] = []
        self.files = self.unchanged = self.specials = self.bytes_read = self.bytes_stored = 0
        self.path = self.relative = b""
        self.is_stored_together = False
        self.source: Source
        self._report_unchanged = report_unchanged
        self._stored: dict[int, bytes] = {}
        # Handles of the current folder; the caches own them, and can't drop them before the next folder.
        self.handle: int | None = None
        self.stored_handles: dict[int, int] = {}

    def encoded(self) -> bytes:
        """As `message.Results`."""
        return message.encode(
            (self.files, self.unchanged, self.specials, self.bytes_read, self.bytes_stored, self.items)
        )

    def inside(self, path: bytes, source: Source) -> None:
        self.path, self.relative, self.source = path, treepath.relative(path), source
        self.is_stored_together = bool(self.relative) and not source.place.respelled
        self._stored, self.handle, self.stored_handles = {}, None, {}

    def stored_in(self, name: bytes, area: int) -> tuple[bytes, bytes]:
        """A stored file's folder and name. Only what lies at the very top can be escaped, and only what is
        respelled has another name or folder than what lies beside it."""
        if not self.is_stored_together:
            inside = self.relative + b"/" + name if self.relative else name
            return split(layout.stored(self.source.place, inside, Area(area)))
        folder = self._stored.get(area)
        if folder is None:
            folder = self._stored[area] = layout.stored(self.source.place, self.relative, Area(area))
        return folder, name

    def is_unchanged(self, name: bytes) -> None:
        self.unchanged += 1
        if self._report_unchanged:
            self.items.append((message.UNCHANGED, self.path + b"\0" + name))

    def found(
        self,
        path: bytes,
        kind: Kind,
        found: Any,
        target: bytes | None,
        attributes: bytes,
        known: bool,
        damage: str | None,
        warning: str | None = None,
    ) -> None:
        """Something that has no bytes of its own to be read."""
        self.items.append((
            message.FOUND, path, kind, found, None, target, False, known, damage, None, 0, warning,
            attributes,
        ))  # fmt: skip

    def not_readable(self, name: bytes, error: OSError) -> None:
        self.items.append(unreadable(self.path + b"\0" + name, error))
