"""Which entries of a source are left out. Pure: in, gitignore patterns and a path; out, the deciding line.

Patterns have git's meaning: they are relative to the folder of the file that they are written in (those of
the configuration: to the source's root); the last one that matches the entry itself decides, and those of
deeper files come after those of shallower ones, which come after the configuration's; what lies in an
excluded folder can't be included again, since that folder isn't entered. Bytes are compared, as git does: `?`
is one byte. Fails with ValueError where a line of the configuration is no pattern; of a file, such lines are
handed back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pipeline import globs

MOST_BYTES = 4096
"""Of one pattern: what a path may have that one call takes."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A gitignore pattern as it is written. where: in which file, and at which place of it, for people."""

    text: str
    where: str

    @property
    def shown(self) -> str:
        return f'{self.where} "{self.text}"'


class _Pattern(NamedTuple):
    """in_name: it is about the name alone, wherever that is."""

    line: Line
    matches: Callable[[bytes], object]
    excludes: bool
    only_folders: bool
    in_name: bool


_Layers = tuple[tuple[int, tuple[_Pattern, ...]], ...]


def compile_pattern(line: Line) -> _Pattern | None:
    """None for an empty line or a comment. Raises ValueError where it is no gitignore pattern."""
    text = _without_spaces(line.text.encode("utf-8", "surrogateescape"))
    if not text.strip(b"/") or text.startswith(b"#"):
        return None
    if len(text) > MOST_BYTES:
        raise ValueError("it is longer than a pattern may be")
    excludes = not text.startswith(b"!")
    glob = text if excludes else text[1:]
    only_folders, in_name = glob.endswith(b"/"), b"/" not in glob[:-1]
    glob = glob.removesuffix(b"/")
    if not glob or b"\0" in glob:
        raise ValueError("it matches nothing")
    expression = re.compile(globs.expression_of(glob.removeprefix(b"/")), re.DOTALL)
    return _Pattern(line, expression.fullmatch, excludes, only_folders, in_name)


def _without_spaces(text: bytes) -> bytes:
    """Those at the end, but for one that is escaped."""
    bare = text.rstrip(b" ")
    is_escaped = (len(bare) - len(bare.rstrip(b"\\"))) % 2 == 1
    return bare + b" " if is_escaped and len(bare) < len(text) else bare


def lines_of(content: bytes, file: str) -> list[Line]:
    """A file of patterns, taken apart as git does. file: its name, for people."""
    lines = content.removeprefix(_BYTE_ORDER_MARK).split(b"\n")
    return [
        Line(line.removesuffix(b"\r").decode("utf-8", "surrogateescape"), f"{file}:{number}")
        for number, line in enumerate(lines, 1)
    ]


class SizeLimits:
    """How large files may be. most: any of them, in bytes, 0 for no limit. by_pattern: those that match; the
    last pattern that does decides, and a limit of 0 is none."""

    def __init__(self, most: int, by_pattern: Iterable[tuple[Line, int]]) -> None:
        self._most = most
        compiled = [(compile_pattern(line), size_bytes) for line, size_bytes in by_pattern]
        self._patterns = [(pattern, limit) for pattern, limit in reversed(compiled) if pattern is not None]

    @property
    def is_empty(self) -> bool:
        return not self._most and not self._patterns

    def of(self, relative: bytes) -> tuple[int, str] | None:
        """The limit for the file at a path, and where it is written; None where there is none."""
        name = relative.rpartition(b"/")[2]
        for pattern, size_bytes in self._patterns:
            if pattern.matches(name if pattern.in_name else relative):
                if size_bytes and (not self._most or size_bytes < self._most):
                    return size_bytes, f"{pattern.line.where} = {size_bytes}"
                break
        return (self._most, f"filters.max_file_size = {self._most}") if self._most else None


class Filter:
    """The rules for what lies in one folder: the configuration's, and those of the files on the way there.

    is_certain: all of those files could be read and understood. Costs nothing where there are no rules.
    """

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        patterns = [pattern for pattern in map(compile_pattern, lines) if pattern is not None]
        # Deepest first, each with its patterns from the last to the first, since the last one decides; and
        # with how much of a path, its folder's, they aren't about.
        self._layers: _Layers = ((0, tuple(reversed(patterns))),) if patterns else ()
        self.is_certain = True

    @property
    def is_empty(self) -> bool:
        return not self._layers

    def within(self, folder: bytes, lines: Iterable[Line]) -> tuple[Filter, list[Line]]:
        """The rules in a folder whose own file has these lines. folder: its path inside the source. Out: also
        those of the lines that are no patterns."""
        patterns, refused = list[_Pattern](), list[Line]()
        for line in lines:
            try:
                pattern = compile_pattern(line)
            except ValueError:
                refused.append(line)
            else:
                patterns += [pattern] if pattern is not None else []
        inner = Filter()
        own = ((len(folder) + 1 if folder else 0, tuple(reversed(patterns))),) if patterns else ()
        inner._layers = own + self._layers
        inner.is_certain = self.is_certain and not refused
        return inner, refused

    def uncertain(self) -> Filter:
        """The same rules in a folder whose own can't be known."""
        inner = Filter()
        inner._layers, inner.is_certain = self._layers, False
        return inner

    def excludes(self, relative: bytes, is_folder: bool) -> bool:
        """Whether the entry itself matches. The scanner doesn't enter excluded folders, so that is enough."""
        return self.excluded_by(relative, is_folder) is not None

    def excluded_by(self, relative: bytes, is_folder: bool) -> Line | None:
        """The line that excludes an entry of the folder, or of one below that has no file of its own."""
        name = relative.rpartition(b"/")[2]
        for start, patterns in self._layers:
            inside = relative[start:]
            for line, matches, excludes, only_folders, in_name in patterns:
                if (is_folder or not only_folders) and matches(name if in_name else inside):
                    return line if excludes else None
        return None

    def excludes_known(self, relative: bytes, is_folder: bool, entered: bytes = b"") -> bool:
        """Whether a path that is no longer listed is so because it, or a folder above it, is excluded.

        entered: the folder of these rules, in which nothing above the path was found.
        """
        if self.is_empty:
            return False
        components = relative.split(b"/")
        first = entered.count(b"/") + 2 if entered else 1
        above = (b"/".join(components[:depth]) for depth in range(first, len(components)))
        return any(self.excludes(folder, True) for folder in above) or self.excludes(relative, is_folder)
