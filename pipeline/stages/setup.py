"""What the scanner and the workers are told when they start. Plain values: they cross a process border."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.filters import Line
from pipeline.layout import SourcePlace
from pipeline.model.record import Held
from pipeline.model.scope import EVERYTHING, Scope
from pipeline.store.target import Root


class SourceRoot(NamedTuple):
    """A source, resolved once at the start of the run. path: absolute, without links.

    identity: device and inode of the folder, which tell whether it is still the one that stands there.
    """

    place: SourcePlace
    path: bytes
    identity: tuple[int, int]

    @property
    def name(self) -> bytes:
        return self.place.name


class FolderRules(NamedTuple):
    """What is left out beside patterns. caches: the content of folders with a valid CACHEDIR.TAG. if_present:
    names; the content of folders that hold one of them. one_file_system: what is mounted inside a source.
    max_file_bytes: larger files, 0 for no limit. max_bytes_by_pattern: larger files that match.
    """

    caches: bool = False
    if_present: tuple[bytes, ...] = ()
    one_file_system: bool = False
    max_file_bytes: int = 0
    max_bytes_by_pattern: tuple[tuple[Line, int], ...] = ()


class ScanSetup(NamedTuple):
    """excluded: (device, inode) of folders that are never entered. state: the database's path. scope: what is
    looked at. archives_excluded: whether what is known of an excluded path counts as deleted.
    report_excluded: whether anybody wants to see every entry that is left out.
    """

    sources: tuple[SourceRoot, ...]
    excluded: frozenset[tuple[int, int]]
    patterns: tuple[Line, ...]
    state: str
    scope: Scope = EVERYTHING
    rules: FolderRules = FolderRules()
    archives_excluded: bool = False
    report_excluded: bool = False


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


class ListSetup(NamedTuple):
    """What of a state is listed. state: the database's path. run: whose end is meant, or `past.NOW`.

    parts: the paths that are wanted with all below them, in scan order, none below another; an empty one is
    everything. rows: listed instead, where single contents are wanted.
    """

    state: str
    sources: frozenset[bytes]
    run: int
    parts: tuple[bytes, ...]
    rows: tuple[Held, ...] = ()


class RestoreSetup(NamedTuple):
    """target: the folder that is restored into, None where a dry run finds none.

    with_names: whether each source gets a folder with its name. overwrite: `never`, `if-different`, `always`.
    report: whether anybody wants to see every path. specials: fifos, sockets and devices, too. numeric_ids:
    owners by number, and not by name first.
    """

    places: dict[bytes, SourcePlace]
    algorithm: str
    backup_root: str
    state: str
    target: Root | None
    with_names: bool
    overwrite: str
    dry_run: bool
    report: bool
    specials: bool = False
    numeric_ids: bool = False


class VerifySetup(NamedTuple):
    """What a verifying worker, or the walk for foreign files, needs to know.

    report: whether anybody wants to see every content that is right.
    """

    places: dict[bytes, SourcePlace]
    algorithm: str
    backup_root: str
    state: str
    report: bool


class TreeSetup(NamedTuple):
    """What the walk through a backup's own tree, and its workers, need to know."""

    backup_root: str
    algorithm: str


class StoredSetup(NamedTuple):
    """Which stored contents are listed. ranges: of paths, low excluded, in the order of the walk.

    limit: how many contents at most, None for all.
    """

    state: str
    sources: frozenset[bytes]
    ranges: tuple[tuple[bytes, bytes], ...]
    limit: int | None
