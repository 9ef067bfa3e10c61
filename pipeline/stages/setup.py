"""What the scanner and the workers are told when they start. Plain values: they cross a process border."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.layout import SourcePlace


class SourceRoot(NamedTuple):
    """A source, resolved once at the start of the run. path: absolute, without links."""

    place: SourcePlace
    path: bytes

    @property
    def name(self) -> bytes:
        return self.place.name


class ScanSetup(NamedTuple):
    """excluded: (device, inode) of folders that are never entered. state: the database's path."""

    sources: tuple[SourceRoot, ...]
    excluded: frozenset[tuple[int, int]]
    exclude_patterns: tuple[str, ...]
    state: str


class HashSetup(NamedTuple):
    """trust: `content` or `stat`. backup_root: None where there is no backup yet (a first dry run).

    run: its number, for the names in staging. stage: whether contents are written there (not in a dry run).
    check_stored: whether the stored file of an unchanged path is looked at. report_unchanged: whether anybody
    wants to see every one.
    """

    sources: tuple[SourceRoot, ...]
    algorithm: str
    trust: str
    backup_root: str | None
    run: int
    stage: bool
    check_stored: bool
    report_unchanged: bool
