"""Extended attributes and access control lists as one value.

In: names and raw values, as the system has them. Out: bytes that are the same for the same attributes, and
their identity, a short name for them. Pure. Fails with ValueError for bytes that `pack` didn't make.

An access control list (`system.posix_acl_access`) is an attribute like any other: kept raw, by its name.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

ACCESS_LIST, DEFAULT_LIST = b"system.posix_acl_access", b"system.posix_acl_default"
_LISTS = (ACCESS_LIST, DEFAULT_LIST)
_USER = b"user."
_IDENTITY_BYTES = 16

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode


def pack(attributes: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Names and values in one; empty for none."""
    found = sorted(attributes)
    return _encode(found) if found else b""


def unpack(packed: bytes) -> list[tuple[bytes, bytes]]:
    """Raises ValueError for bytes that `pack` didn't make."""
    try:
        pairs = _decode(packed) if packed else []
    except msgspec.MsgspecError as error:
        raise ValueError(f"no extended attributes: {error}") from error
    if not all(name and b"\0" not in name for name, _ in pairs):
        raise ValueError("an extended attribute has a name that can't be one")
    return pairs


def identity(packed: bytes) -> bytes | None:
    """128 bits of the BLAKE2b (RFC 7693) of the packed attributes; None for none."""
    if not packed:
        return None
    from hashlib import blake2b  # most trees have no attributes, and loading it takes a while

    return blake2b(packed, digest_size=_IDENTITY_BYTES).digest()


def for_stored(packed: bytes) -> list[tuple[bytes, bytes]]:
    """What a stored file gets of them: those that neither run something with somebody's rights nor mean
    anything to this system alone. The state has them all."""
    return [pair for pair in unpack(packed) if pair[0].startswith(_USER) or pair[0] in _LISTS]


def is_list(name: bytes) -> bool:
    return name in _LISTS


def is_replaced(name: bytes) -> bool:
    """Whether an attribute that is not wanted goes; others are the system's own matter."""
    return name.startswith(_USER) or name in _LISTS


def agree(wanted: bytes, found: bytes) -> bool:
    """Whether all that is wanted is there, and nothing else that would have gone."""
    wanted_pairs, found_pairs = dict(unpack(wanted)), dict(unpack(found))
    others = found_pairs.keys() - wanted_pairs.keys()
    return wanted_pairs.items() <= found_pairs.items() and not any(map(is_replaced, others))


def kind_words(name: bytes) -> str:
    """How people call what an attribute is."""
    if name in _LISTS:
        return "access control lists"
    space = name.partition(b".")[0].decode("ascii", "replace")
    return f"extended attributes ({space}.*)"


_ENTRY_BYTES, _HEADER_BYTES = 8, 4
_USER_NAMED, _GROUP_OBJECT, _GROUP_NAMED, _MASK, _OTHER = 0x02, 0x04, 0x08, 0x10, 0x20


def mode_without(access_list: bytes, mode: int) -> int:
    """The mode (permission bits) of what can't have its access list: nobody gets more than by the list.

    The mode's own group bits don't tell what the owning group may: they are the mask of the whole list. And
    whom the list names is without it a member of the group, or one of the others. A list that makes no sense
    grants nothing. (Linux: struct posix_acl_xattr_entry; acl(5) for who gets what.)
    """
    all_of: dict[int, int] = {}
    for start in range(_HEADER_BYTES, len(access_list) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
        tag = int.from_bytes(access_list[start : start + 2], "little")
        granted = int.from_bytes(access_list[start + 2 : start + 4], "little")
        all_of[tag] = all_of.get(tag, 0o7) & granted
    mask = all_of.get(_MASK, 0o7)
    users, groups = (all_of[tag] & mask if tag in all_of else 0o7 for tag in (_USER_NAMED, _GROUP_NAMED))
    group = all_of.get(_GROUP_OBJECT, 0) & mask & users
    other = all_of.get(_OTHER, 0) & users & groups
    return mode & ~0o077 | mode & (group << 3 | other)
