"""Which entries of a source are left out. Pure: in, gitignore patterns and a path; out, yes or no.

The library pathspec compiles the patterns; they are applied in git's meaning: relative to the source's root,
the last pattern that matches the entry itself decides, and what lies in an excluded folder can't be included
again, since that folder isn't entered. Bytes are compared, as git does: `?` is one byte.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import re

_BELOW_A_MATCH = "ps_d"
"""The group by which pathspec's expressions tell a match of what lies below from one of the entry itself."""


class _Pattern(NamedTuple):
    line: str
    expression: re.Pattern[bytes]
    excludes: bool
    only_folders: bool


def compile_pattern(line: str) -> _Pattern | None:
    """None for an empty line or a comment. Raises ValueError where it is no gitignore pattern."""
    # Only where there are patterns: it takes longer to import than all the rest.
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    # pathspec takes `name/` as "what lies below"; here it is about the folder itself.
    only_folders = line.rstrip().endswith("/")
    text = line.rstrip().rstrip("/") if only_folders else line
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of classes that may mean something else one day
        compiled = GitIgnoreSpecPattern(text.encode("utf-8", "surrogateescape"))
    if compiled.include is None or compiled.regex is None:
        return None
    return _Pattern(line, compiled.regex, compiled.include, only_folders)


class Filter:
    """The patterns of one configuration. Costs nothing where there are none."""

    def __init__(self, exclude: tuple[str, ...]) -> None:
        self._patterns: list[_Pattern] = []
        if exclude:
            patterns = [compile_pattern(line) for line in exclude]
            self._patterns = [pattern for pattern in reversed(patterns) if pattern is not None]

    @property
    def is_empty(self) -> bool:
        return not self._patterns

    def excludes(self, relative: bytes, is_folder: bool) -> bool:
        """Whether the entry itself matches. The scanner doesn't enter excluded folders, so that is enough."""
        pattern = self._deciding(relative, is_folder)
        return pattern is not None and pattern.excludes

    def excluded_by(self, relative: bytes, is_folder: bool) -> str | None:
        """The line that excludes an entry, None where none does."""
        pattern = self._deciding(relative, is_folder)
        return pattern.line if pattern is not None and pattern.excludes else None

    def _deciding(self, relative: bytes, is_folder: bool) -> _Pattern | None:
        """The last one that matches."""
        for pattern in self._patterns:
            _, expression, _, only_folders = pattern
            if only_folders and not is_folder:
                continue
            match = expression.search(relative)
            if match is not None and match.groupdict().get(_BELOW_A_MATCH) is None:
                return pattern
        return None

    def excludes_known(self, relative: bytes, is_folder: bool) -> bool:
        """Whether a path that is no longer listed is so because it, or a folder above it, is excluded."""
        if self.is_empty:
            return False
        components = relative.split(b"/")
        above = (b"/".join(components[:depth]) for depth in range(1, len(components)))
        return any(self.excludes(folder, True) for folder in above) or self.excludes(relative, is_folder)
