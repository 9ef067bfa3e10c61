"""Where the sources of a backup lie, when no state tells: read off the backup and the sources.

In: a configuration, the names at the top of a backup. Out: for each source whether it lies at the root.
Guarantees: at most one lies at the root; every other folder at the top is then taken for a folder of that
one, or else for a source that is no longer configured. Nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pipeline.config import Config
from pipeline.layout import RESERVED_TOP


def places_of(config: Config, root: Path) -> dict[bytes, bool]:
    """A source lies where more of its names are found again: at the root, or in a folder with its name."""
    top = _names(root) - RESERVED_TOP
    folders = {name for name in top if (root / os.fsdecode(name)).is_dir()}
    likeness: dict[bytes, int] = {}
    for source in config.sources:
        name, inside = os.fsencode(source.name), _names(source.path)
        in_folder = len(inside & _names(root / os.fsdecode(name))) if name in folders else 0
        likeness[name] = len(inside & top) - in_folder
    at_root = _at_root(likeness, folders, top)
    if at_root is None:
        return dict.fromkeys(sorted(folders), False)
    others = {name: False for name in likeness if name != at_root and name in folders}
    return dict(sorted({at_root: True, **others}.items()))


def _at_root(likeness: dict[bytes, int], folders: set[bytes], top: frozenset[bytes]) -> bytes | None:
    """The source that lies at the root, if one does.

    1. the one whose names are found there rather than in its folder; 2. the only one, unless it has a folder
    that looks like it, or that is all there is; 3. of several, the only one without a folder, if the top has
    more than their folders.
    """
    best = max(likeness, key=lambda name: likeness[name])
    if likeness[best] > 0:
        return best
    if len(likeness) == 1:
        has_folder = best in folders and (likeness[best] < 0 or top == {best})
        return None if has_folder else best
    homeless = [name for name in likeness if name not in folders]
    return homeless[0] if len(homeless) == 1 and top - set(likeness) else None


def _names(folder: Path) -> frozenset[bytes]:
    names: Iterable[str]
    try:
        names = os.listdir(folder)
    except OSError:
        names = ()
    return frozenset(map(os.fsencode, names))
