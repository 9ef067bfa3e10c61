"""A plan: what is decided for one path, and the steps that carry it out.

The planner makes plans, a dry run prints them, the committer executes them. Backup paths in steps are
`bytes` relative to the backup root, components joined by `/`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, TypeAlias

from pipeline.model.record import Record, Version


class Action(StrEnum):
    """The decisions that people see. Folders and special files are recorded without one."""

    BACKUP = "BACKUP"
    DUPLICATE = "DUPLICATE"
    MODIFIED = "MODIFIED"
    METADATA = "METADATA"
    SKIP = "SKIP"
    DELETE = "DELETE"
    PROMOTE = "PROMOTE"
    RETENTION = "RETENTION"
    SUSPECT = "SUSPECT"


class Archive(NamedTuple):
    """The stored file `at` becomes the version `to`. Its old name goes when it is replaced or removed."""

    at: bytes
    to: bytes


class Store(NamedTuple):
    """The new content gets its name. replaces: a file of ours stands there and is meant to be replaced."""

    to: bytes
    replaces: bool


class Move(NamedTuple):
    """The stored file `at` gets the name `to`, then loses its old one."""

    at: bytes
    to: bytes


class Remove(NamedTuple):
    """The old name of a file that an Archive of the same plan has given a new one."""

    at: bytes


class MakeFolder(NamedTuple):
    """A folder at the live place, private until its content is there."""

    at: bytes


class OpenFolder(NamedTuple):
    """The folder's own mode and owner, after its content. mode: permission bits."""

    at: bytes
    mode: int
    uid: int
    gid: int


class RemoveFolder(NamedTuple):
    """A folder that has vanished from the source; stays when it isn't empty."""

    at: bytes


class SetMetadata(NamedTuple):
    """Mode, owner and mtime of the new record for the stored file."""

    at: bytes


class DeleteVersion(NamedTuple):
    """A version that retention takes. mark: what keeps its number from being used twice, if needed."""

    at: bytes
    mark: bytes | None


class Pin(NamedTuple):
    """The empty marker beside a version that retention must never take."""

    at: bytes


Step: TypeAlias = (
    Archive
    | Store
    | Move
    | Remove
    | MakeFolder
    | OpenFolder
    | RemoveFolder
    | SetMetadata
    | DeleteVersion
    | Pin
)


class Plan(NamedTuple):
    """One decision.

    action: None for folders and special files, which are recorded silently.
    record: the path's new state. before: its state until now, None where there was none. closes: whether that
    state has ended and goes into the history.
    archived: the version that the steps make or end. stored_at: where the content lies afterwards.
    warning: what the person should know about it, if anything.
    """

    action: Action | None
    path: bytes
    reason: str
    steps: tuple[Step, ...]
    record: Record
    before: Record | None = None
    closes: bool = False
    archived: Version | None = None
    stored_at: bytes | None = None
    warning: str | None = None

    @property
    def is_silent(self) -> bool:
        """Whether it only refreshes what is known: the times of a folder, an inode, a ctime."""
        before, record = self.before, self.record
        if self.action not in (None, Action.SKIP) or self.steps or before is None:
            return False
        return (before.kind, before.area, before.mode, before.uid, before.gid) == (
            record.kind, record.area, record.mode, record.uid, record.gid
        )  # fmt: skip
