"""What a gitignore pattern matches: git's wildmatch, as one regular expression. Pure.

In: a pattern without its `!` and without the slash behind it. Out: an expression for a whole path, or name,
in bytes. Guarantees: `*`, `?` and `[…]` never match a slash; matching takes no longer than the path is long
times the pattern, whoever has written it: what stands between two stars is taken where it fits first, and
never looked for again. Fails with ValueError where git would never find a match: a set that isn't closed, a
class that there isn't, a backslash at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_STAR, _STARS, _SLASH = "*", "**", "/"
_Token = str | frozenset[int]
"""One of the words above, or the bytes of which one is to stand there."""
_SLASH_BYTE, _BACKSLASH, _DASH, _CLOSING = b"/\\-]"
_PLAIN = re.compile(rb"[^*?\[\\]*")
_NOT_SLASH = frozenset(range(256)) - {_SLASH_BYTE}


def _bytes_of(*ranges: tuple[int, int]) -> frozenset[int]:
    return frozenset(byte for first, last in ranges for byte in range(first, last + 1))


_DIGITS, _UPPER, _LOWER = _bytes_of((48, 57)), _bytes_of((65, 90)), _bytes_of((97, 122))
_CLASSES = {
    b"alnum": _DIGITS | _UPPER | _LOWER,
    b"alpha": _UPPER | _LOWER,
    b"blank": frozenset(b" \t"),
    b"cntrl": _bytes_of((0, 31), (127, 127)),
    b"digit": _DIGITS,
    b"graph": _bytes_of((33, 126)),
    b"lower": _LOWER,
    b"print": _bytes_of((32, 126)),
    b"punct": _bytes_of((33, 126)) - _DIGITS - _UPPER - _LOWER,
    b"space": frozenset(b" \t\n\r\f\v"),
    b"upper": _UPPER,
    b"xdigit": _DIGITS | _bytes_of((65, 70), (97, 102)),
}


def expression_of(glob: bytes) -> bytes:
    """To be used with `fullmatch` and re.DOTALL.

    Git compares what stands before the first wildcard by itself; so the stars in `a**/b` count as `**/b`.
    """
    plain = _PLAIN.match(glob)
    assert plain is not None, "it may be empty"
    segments: list[list[_Token]] = [[]]
    for token in _tokens(glob[plain.end() :]):
        if token == _SLASH:
            segments.append([])
        else:
            segments[-1].append(token)
    return re.escape(plain[0]) + b"".join(_path(segments))


def _path(segments: list[list[_Token]]) -> Iterator[bytes]:
    """Between two `**`, a run of segments is taken where it fits first."""
    runs: list[list[list[_Token]]] = [[]]
    for segment in segments:
        if segment == [_STARS]:
            runs.append([])
        else:
            runs[-1].append(segment)
    last = len(runs) - 1
    for number, run in enumerate(runs):
        text = b"/".join(b"".join(_segment(segment)) for segment in run)
        if number == last:
            deeper = b".*" if number and not run else b"(?:[^/]*/)*?" if number else b""
            yield deeper + text
        elif run:
            yield (b"(?>(?:[^/]*/)*?%s/)" if number else b"%s/") % text


def _segment(tokens: list[_Token]) -> Iterator[bytes]:
    """Between two stars, what has to stand there is taken where it fits first."""
    pieces: list[list[bytes]] = [[]]
    for token in tokens:
        if isinstance(token, str):
            pieces.append([])
        else:
            pieces[-1].append(_one_of(token))
    first, *middle = map(b"".join, pieces)
    yield first
    for piece in middle[:-1]:
        if piece:
            yield b"(?>[^/]*?%s)" % piece
    if middle:
        yield b"[^/]*" + middle[-1]


def _one_of(wanted: frozenset[int]) -> bytes:
    if len(wanted) == 1:
        return re.escape(bytes(wanted))
    if not wanted:
        return b"(?!)"
    return b"[^/]" if wanted == _NOT_SLASH else b"[%s]" % b"".join(_ranges(sorted(wanted)))


def _ranges(ordered: list[int]) -> Iterator[bytes]:
    first = last = ordered[0]
    for byte in (*ordered[1:], -1):
        if byte == last + 1:
            last = byte
            continue
        yield b"\\x%02x-\\x%02x" % (first, last)
        first = last = byte


def _tokens(glob: bytes) -> Iterator[_Token]:
    at, end = 0, len(glob)
    while at < end:
        start, byte = at, glob[at : at + 1]
        at += 1
        if byte == b"*":
            while glob[at : at + 1] == b"*":
                at += 1
            is_whole = glob[start - 1 : start] in (b"", b"/") and glob[at : at + 1] in (b"", b"/")
            yield _STARS if at - start > 1 and is_whole else _STAR
        elif byte == b"?":
            yield _NOT_SLASH
        elif byte == b"[":
            wanted, at = _set(glob, at)
            yield wanted - {_SLASH_BYTE}
        elif byte == b"/":
            yield _SLASH
        else:
            if byte == b"\\":
                byte, at = glob[at : at + 1], at + 1
                if not byte:
                    raise ValueError("nothing stands behind the last backslash")
            yield _SLASH if byte == b"/" else frozenset(byte)


def _set(glob: bytes, at: int) -> tuple[frozenset[int], int]:
    """at: behind the opening bracket. Out: the bytes that it stands for, and where it ends."""
    is_negated = glob[at : at + 1] in (b"!", b"^")
    at += is_negated
    wanted, before, is_first = set[int](), None, True
    while is_first or _byte(glob, at) != _CLOSING:
        is_first, byte = False, _byte(glob, at)
        if byte == _DASH and before is not None and _byte(glob, at + 1) != _CLOSING:
            last, at = _literal(glob, at + 1)
            wanted.update(range(before, last + 1))
            before = None
        elif (found := _class(glob, at)) is not None:
            members, at = found
            wanted |= members
            before = None
        else:
            before, at = _literal(glob, at)
            wanted.add(before)
    all_bytes: Iterable[int] = range(256)
    return frozenset(all_bytes) - wanted if is_negated else frozenset(wanted), at + 1


def _byte(glob: bytes, at: int) -> int:
    if at >= len(glob):
        raise ValueError("a set that begins with [ has no end")
    return glob[at]


def _literal(glob: bytes, at: int) -> tuple[int, int]:
    at += _byte(glob, at) == _BACKSLASH
    return _byte(glob, at), at + 1


def _class(glob: bytes, at: int) -> tuple[frozenset[int], int] | None:
    """`[:alpha:]` inside a set; None where it is none. Out: also where it ends."""
    if glob[at : at + 2] != b"[:":
        return None
    end = glob.find(b"]", at + 2)
    if end < 0:
        raise ValueError("a set that begins with [ has no end")
    if glob[end - 1 : end] != b":" or end - 1 < at + 2:
        return None
    name = glob[at + 2 : end - 1]
    if name not in _CLASSES:
        raise ValueError(f"there is no class of characters {name.decode('utf-8', 'replace')!r}")
    return _CLASSES[name], end + 1
