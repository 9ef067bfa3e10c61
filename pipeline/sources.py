"""The sources of a run: what they are now, where they lie in the backup, and whether to trust them.

In: the configuration and the state. Out: resolved sources with their places, in scan order (by name).
Guarantees: a source's place is fixed at its first run and never moves; a source that is missing, no folder,
or empty while its history is not (an unmounted disk) is refused before anything is touched.
Fails with `SourceError` (exit 1) and `ConfigError` (exit 2).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from pipeline.config import Config, Source
from pipeline.layout import RESERVED_TOP, is_version_name
from pipeline.model import treepath
from pipeline.model.errors import BackupSideError, ConfigError, SourceError
from pipeline.stages.setup import FolderRules, SourceRoot
from pipeline.store import calls
from pipeline.store.folders import FOLDER_FLAGS
from pipeline.store.mounts import Mounts
from pipeline.store.state import State

_NOT_MOUNTED = "Nothing was touched. Is its disk mounted? If it is gone for good, take it out of `sources`."


class Resolved(NamedTuple):
    """A source of the configuration. path: absolute; a root that is a link is followed once, here.

    identity: its device and inode.
    """

    name: bytes
    path: bytes
    identity: tuple[int, int]


def resolve(config: Config) -> list[Resolved]:
    """The sources as they are on the disk now, by name."""
    return sorted(map(resolve_one, config.sources))


def resolve_one(source: Source) -> Resolved:
    """One source as it is on the disk now. Raises SourceError where it can't be listed."""
    try:
        path = Path(os.path.realpath(source.path, strict=True))
        # Opened, not only looked at: that is what mounts what is mounted on demand.
        handle = calls.open(path, FOLDER_FLAGS)
        try:
            with calls.scandir(handle):
                found = calls.fstat(handle)
        finally:
            calls.close(handle)
    except OSError as error:
        raise SourceError(
            f"source {source.path}: {error.strerror}",
            _NOT_MOUNTED,
        ) from error
    return Resolved(os.fsencode(source.name), os.fsencode(path), (found.st_dev, found.st_ino))


def check_places(config: Config, resolved: list[Resolved]) -> None:
    """Refuse a source or a log folder inside the backup root, whatever link or mount leads there."""
    mounts = Mounts()
    for source in resolved:
        path = Path(os.fsdecode(source.path))
        if _is_inside(path, config.backup_root, mounts):
            raise ConfigError(
                str(config.file), "sources", f"{path} lies inside backup_root {config.backup_root}",
                'backup_root = "backup"  # a folder that holds no source',
            )  # fmt: skip
    if _is_inside(real(config.log_dir), config.backup_root, mounts):
        raise _logs_inside(config)


def _is_inside(path: Path, root: Path, mounts: Mounts) -> bool:
    """By identity, which works on every system, and by spot, which sees through bind mounts."""
    if mounts.spot(path).is_inside(mounts.spot(real(root))):
        return True
    identity = _identity(root)
    return identity is not None and identity in map(_identity, (path, *path.parents))


def _logs_inside(config: Config) -> ConfigError:
    return ConfigError(
        str(config.file), "log_dir", f"{config.log_dir} lies inside backup_root {config.backup_root}",
        'log_dir = "logs"  # a folder beside the backup',
    )  # fmt: skip


def check_algorithm(config: Config, state: State) -> None:
    """One backup, one hash: digests of two algorithms can't be compared."""
    recorded = state.setting("hash_algorithm")
    if recorded is None:
        state.set_setting("hash_algorithm", config.hash_algorithm)
    elif recorded != config.hash_algorithm:
        raise ConfigError(
            str(config.file), "hash_algorithm",
            f"{config.hash_algorithm!r}, but this backup was begun with {recorded!r}",
            f'hash_algorithm = "{recorded}"',
        )  # fmt: skip


def place(config: Config, resolved: list[Resolved], state: State) -> tuple[SourceRoot, ...]:
    """Where each source lies; new ones get their places, which are written to the state."""
    known = dict(state.sources())
    alone = not known and len(resolved) == 1
    first = next((name for name, at_root in known.items() if at_root), None)
    for source in resolved:
        if source.name not in known:
            if first is not None:
                _refuse_clash(config, source.name, first, state)
            known[source.name] = alone
            state.add_source(source.name, alone)
    _refuse_empty(resolved, state)
    places = state.places()
    return tuple(SourceRoot(places[source.name], source.path, source.identity) for source in resolved)


def _refuse_clash(config: Config, name: bytes, first: bytes, state: State) -> None:
    """A second source goes to a folder with its name, which must not be a name of the first, at the root."""
    inside = treepath.join(first, name)
    if name in RESERVED_TOP or is_version_name(name) or state.has_any(inside, inside + b"\1"):
        shown = treepath.escaped(name)
        raise ConfigError(
            str(config.file), "sources",
            f"the new source {shown!r} would lie in the folder {shown!r} of the backup,"
            f" which belongs to the first source",
            f'[[source]] with path = "…" and name = "{shown}-2"',
        )  # fmt: skip


def _refuse_empty(resolved: list[Resolved], state: State) -> None:
    for source in resolved:
        try:
            with os.scandir(source.path) as entries:
                is_empty = next(entries, None) is None
        except OSError as error:
            raise SourceError(f"source {os.fsdecode(source.path)}: {error.strerror}", _NOT_MOUNTED) from error
        if is_empty and state.has_present(*treepath.below(source.name)):
            raise SourceError(
                f"source {os.fsdecode(source.path)} is empty, but its backup is not",
                "Nothing was touched. Is its disk mounted? If all was really deleted, put one file there.",
            )


def excluded(config: Config, resolved: list[Resolved]) -> frozenset[tuple[int, int]]:
    """Identities of the folders that are never entered: the backup, its own folder, the logs, and whatever
    part of the backup is mounted inside a source."""
    mounts, root = Mounts(), real(config.backup_root)
    folders = [config.backup_root, config.backup_root / ".pipeline", config.log_dir]
    for source in resolved:
        points = mounts.below(Path(os.fsdecode(source.path)))
        folders += [point for point in points if mounts.spot(point).is_inside(mounts.spot(root))]
    return frozenset(identity for folder in folders if (identity := _identity(folder)) is not None)


def real(path: Path) -> Path:
    """Where links lead, as far as it is there; a circle of them leads nowhere, and is left as it is."""
    return Path(os.path.realpath(path))


def folder_rules(config: Config) -> FolderRules:
    """What is left out beside patterns."""
    filters = config.filters
    names = tuple(map(os.fsencode, filters.exclude_if_present))
    return FolderRules(
        filters.exclude_caches, names, filters.one_file_system, filters.max_file_size, config.size_patterns
    )


def own_places(config: Config, resolved: list[Resolved]) -> frozenset[bytes]:
    """Tree paths of the backup and the log folder where they lie inside a source, whether they are there yet
    or not, and whatever mount leads there."""
    mounts = Mounts()
    spots = [mounts.spot(real(config.backup_root)), mounts.spot(real(config.log_dir))]
    own = set()
    for source in resolved:
        root = Path(os.fsdecode(source.path))
        for point in (root, *mounts.below(root)):
            shown = mounts.spot(point)
            for spot in spots:
                place = point / spot.path.relative_to(shown.path) if spot.is_inside(shown) else root
                if place != root and mounts.spot(place) == spot:  # no other mount hides it
                    own.add(treepath.inside(source.name, os.fsencode(place.relative_to(root))))
    return frozenset(own)


def _identity(folder: Path) -> tuple[int, int] | None:
    """None where there is no such folder. Raises BackupSideError where that can't be told."""
    try:
        found = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BackupSideError(f"{folder}: {error.strerror}", "Is its disk still mounted?") from error
    return found.st_dev, found.st_ino
