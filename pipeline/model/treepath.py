"""The one place that knows what a path is: its form, its order, how it is shown.

A tree path is `bytes`: the source's name and the components below it, joined by NUL. No name can hold a
NUL, and NUL is the smallest byte, so plain comparison of two tree paths *is* scan order: depth first, names
compared as bytes, a folder's content directly after the folder. The state database relies on the same order.

In: names as the file system gives them. Out: tree paths, ranges over them, printable text.
Guarantees: `shown` never holds a control character or a line break, whatever the name.
"""

from __future__ import annotations

import unicodedata
from base64 import b64encode
from collections.abc import Iterator

SEPARATOR = b"\0"
_ESCAPED = {"Cc", "Cf", "Zl", "Zp", "Cs"}
"""Control and format characters (which turn the direction of a line, or are invisible), line breaks, no
UTF-8."""
_JOINERS = "\u200c\u200d"
"""Format characters that many scripts and signs are written with."""


def is_name(name: bytes) -> bool:
    """Whether `name` can be one component of a path."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name


def join(parent: bytes, name: bytes) -> bytes:
    return parent + SEPARATOR + name


def inside(source: bytes, relative: bytes) -> bytes:
    """The tree path of what lies in a source, components joined by `/`; empty: the source's root."""
    return join(source, relative.replace(b"/", SEPARATOR)) if relative else source


def source_name(path: bytes) -> bytes:
    return path.partition(SEPARATOR)[0]


def relative(path: bytes) -> bytes:
    """The path inside its source, components joined by `/`; empty for the source's root."""
    return path.partition(SEPARATOR)[2].replace(SEPARATOR, b"/")


def with_slashes(path: bytes) -> bytes:
    """The whole path, the source's name first, components joined by `/`."""
    return path.replace(SEPARATOR, b"/")


def below(path: bytes) -> tuple[bytes, bytes]:
    """The open range that holds exactly what lies below `path`: low < x < high."""
    return path + b"\0", path + b"\1"


HIGHEST = b"\xff" * 256
"""Greater than any tree path."""


def parent(path: bytes) -> bytes:
    """The folder that a path lies in; empty for a source."""
    return path.rpartition(SEPARATOR)[0]


def parents(path: bytes) -> Iterator[bytes]:
    """The folders that a path lies in, from its source down."""
    components = path.split(SEPARATOR)
    for depth in range(1, len(components)):
        yield SEPARATOR.join(components[:depth])


def is_below(path: bytes, folder: bytes) -> bool:
    return path.startswith(folder + SEPARATOR)


def is_valid(path: object) -> bool:
    """Whether it can be a tree path at all: what a state says is not to be trusted with file names."""
    return isinstance(path, bytes) and all(map(is_name, path.split(SEPARATOR)))


def json_fields(field: str, name: bytes | None) -> dict[str, str | None]:
    """A name for JSON: lossy where it isn't UTF-8, with the exact bytes in base 64 beside it."""
    if name is None:
        return {field: None}
    try:
        return {field: name.decode("utf-8")}
    except UnicodeDecodeError:
        exact = b64encode(name).decode("ascii")
        return {field: name.decode("utf-8", "replace"), f"{field}_b64": exact}


def escaped(name: bytes) -> str:
    """Text of a backup path or name that is safe in a terminal and always one line.

    Control characters, backslashes, line separators and bytes that aren't UTF-8 become `\\xNN`.
    """
    text = name.decode("utf-8", "surrogateescape")
    if is_plain(text):
        return text
    return "".join(_escape(c) if _is_escaped(c) else c for c in text)


def is_plain(text: str) -> bool:
    """Whether nothing in it has to be escaped."""
    return text.isprintable() and "\\" not in text


def _is_escaped(character: str) -> bool:
    if character in _JOINERS:
        return False
    return character == "\\" or unicodedata.category(character) in _ESCAPED


def _escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def text(path: bytes) -> str:
    """The path inside its source as text that still holds every byte; whoever prints it escapes it."""
    return relative(path).decode("utf-8", "surrogateescape")


def shown(path: bytes) -> str:
    """A tree path as people see it: `docs/one.txt`, escaped."""
    return escaped(with_slashes(path))
