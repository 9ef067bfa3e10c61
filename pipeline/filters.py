"""Which entries of a source are left out. Pure: in, gitignore patterns and a path; out, yes or no.

The library pathspec compiles the patterns; they are applied in git's meaning: relative to the source's root,
the last pattern that matches the entry itself decides, and what lies in an excluded folder can't be included
again, since that folder isn't entered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import re

_BELOW_A_MATCH = "ps_d"
"""The group by which pathspec's expressions tell a match of what lies below from one of the entry itself."""


class _Pattern(NamedTuple):
    expression: re.Pattern[str]
    excludes: bool
    only_folders: bool


class Filter:
    """The patterns of one configuration. Costs nothing where there are none."""

    def __init__(self, exclude: tuple[str, ...]) -> None:
        self._patterns: list[_Pattern] = []
        if exclude:
            from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

            for line in exclude:
                # pathspec takes `name/` as "what lies below"; here it is about the folder itself.
                only_folders = line.rstrip().endswith("/")
                compiled = GitIgnoreSpecPattern(line.rstrip().rstrip("/") if only_folders else line)
                if compiled.include is not None and compiled.regex is not None:
                    self._patterns.append(_Pattern(compiled.regex, compiled.include, only_folders))
            self._patterns.reverse()

    @property
    def is_empty(self) -> bool:
        return not self._patterns

    def excludes(self, relative: bytes, is_folder: bool) -> bool:
        """Whether the entry itself matches. The scanner doesn't enter excluded folders, so that is enough."""
        text = relative.decode("utf-8", "surrogateescape")
        for expression, excludes, only_folders in self._patterns:
            if only_folders and not is_folder:
                continue
            match = expression.search(text)
            if match is not None and match.groupdict().get(_BELOW_A_MATCH) is None:
                return excludes
        return False

    def excludes_known(self, relative: bytes, is_folder: bool) -> bool:
        """Whether a path that is no longer listed is so because it, or a folder above it, is excluded."""
        if self.is_empty:
            return False
        components = relative.split(b"/")
        above = (b"/".join(components[:depth]) for depth in range(1, len(components)))
        return any(self.excludes(folder, True) for folder in above) or self.excludes(relative, is_folder)
