"""How a name is stored that the backup's file system can't hold, or can't tell from another: spelled in full.

In: a name, one component of a path. Out: components that any file system can hold, none longer than 128
bytes. Guarantees: two names never get the same spelling, not even for a file system that tells neither case
nor how accents are composed; `read` undoes it. Pure; nothing can fail.

`Readme: 2` becomes `%52eadme%3a 2`: as in URLs (RFC 3986, 2.1), but the first byte is always written with its
number, which tells a spelling from most names, and all that is not plain ASCII in lower case is, too. What
gets too long goes on in the next component, after a `%` at the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.model import treepath

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.~+=,@ ")
_NOT_LAST = frozenset(b". ")  # Windows drops them
_MOST_BYTES = 127
_GOES_ON = b"%"
_NUMBERED = re.compile(rb"%([0-9a-f]{2})")


def spell(name: bytes) -> bytes:
    """Components joined by `/`."""
    last = len(name) - 1
    pieces = [b""]
    for at, byte in enumerate(name):
        is_plain = at > 0 and byte in _PLAIN and not (at == last and byte in _NOT_LAST)
        written = bytes((byte,)) if is_plain else b"%%%02x" % byte
        if len(pieces[-1]) + len(written) > _MOST_BYTES:
            pieces[-1] += _GOES_ON
            pieces.append(b"")
        pieces[-1] += written
    return b"/".join(pieces)


def read(components: Sequence[bytes]) -> tuple[bytes, int] | None:
    """The name that the first of these spell, and how many of them that takes; None where they spell none."""
    count = next((n for n, piece in enumerate(components, 1) if not piece.endswith(_GOES_ON)), 0)
    name = _spelled_by(components[:count])
    is_spelling = treepath.is_name(name) and spell(name) == b"/".join(components[:count])
    return (name, count) if is_spelling else None


def is_begun(components: Sequence[bytes]) -> bool:
    """Whether these are the first components of a longer spelling: folders on the way, and no names."""
    return spell(_spelled_by(components) + b"A") == b"/".join(components) + b"/%41"


def ends_within(path: bytes) -> bool:
    """Whether a path ends amid a long spelling, with a folder that stands for no name."""
    if not path.endswith(_GOES_ON):
        return False
    components = path.split(b"/")
    return any(is_begun(components[at:]) for at in range(len(components)))


def _spelled_by(components: Sequence[bytes]) -> bytes:
    text = b"".join(piece.removesuffix(_GOES_ON) for piece in components)
    return _NUMBERED.sub(lambda found: bytes((int(found[1], 16),)), text)


def looks_spelled(name: bytes) -> bool:
    """Whether a name of the source could be taken for a spelling, or for the beginning of one."""
    return _NUMBERED.match(name.lower()) is not None
