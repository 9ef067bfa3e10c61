"""The file operations of a group, as they are recorded before they are done.

Plain tuples with a tag, so that the state can keep them as bytes. All paths are relative to the backup
root. An `Identity` is how a file of ours is told from a foreign one: by its inode, and where that can't
serve (the backup was copied to another disk) by size and digest, or by a link's target.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import msgspec


class Identity(NamedTuple):
    inode: int
    size: int
    digest: bytes | None
    target: bytes | None


class Place(NamedTuple):
    """The staged file gets its name.

    owner: the tree path whose content it is; number: the version that it is, or 0 for the current content.
    replaces: the one file that may stand there, None for none. origin: the name that the content has had
    before, empty for a new one; there it is looked for if staging has lost it.
    """

    staged: bytes
    target: bytes
    identity: Identity
    owner: bytes
    number: int
    replaces: Identity | None
    origin: bytes = b""


class Remove(NamedTuple):
    """The name goes, if what stands there is this."""

    target: bytes
    identity: Identity


class MakePrivate(NamedTuple):
    """The folder exists, with mode 0700."""

    target: bytes


class OpenUp(NamedTuple):
    """The folder's own mode, owner and extended attributes (packed)."""

    target: bytes
    mode: int
    uid: int
    gid: int
    attributes: bytes = b""


class RemoveEmpty(NamedTuple):
    """The folder goes, if it is empty."""

    target: bytes


class Describe(NamedTuple):
    """The stored file's or link's mode (permission bits), owner, mtime and extended attributes (packed)."""

    target: bytes
    inode: int
    is_link: bool
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    attributes: bytes = b""


class Mark(NamedTuple):
    """An empty file exists."""

    target: bytes


Operation: TypeAlias = Place | Remove | MakePrivate | OpenUp | RemoveEmpty | Describe | Mark

# The tags are stored: never renumber.
_CLASSES: tuple[type[Operation], ...] = (Place, Remove, MakePrivate, OpenUp, RemoveEmpty, Describe, Mark)
_TAGS = {cls: tag for tag, cls in enumerate(_CLASSES)}
_encode = msgspec.msgpack.Encoder().encode


_decode = msgspec.msgpack.Decoder(list[tuple[int, msgspec.Raw]]).decode


def encode(operations: Iterable[Operation]) -> bytes:
    """Several at once: there is one for each new file."""
    return _encode([(_TAGS[type(operation)], operation) for operation in operations])


def decode(data: bytes) -> list[Operation]:
    """Raises msgspec.MsgspecError or IndexError for bytes that `encode` didn't make."""
    return [msgspec.msgpack.decode(fields, type=_CLASSES[tag]) for tag, fields in _decode(data)]
