"""Where the sources of a backup lie, when no state tells: from the note beside it, or from their likeness.

In: a configuration, a backup. Out: for each source whether it lies at the root, and whether names are
respelled. Guarantees: at most one lies at the root; every other folder at the top is then taken for a folder
of that one, or else for a source that is no longer configured. Nothing is written. Fails with StateError
where it would have to guess without a source to look at.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline import layout
from pipeline.config import Config
from pipeline.layout import ESCAPED, RESERVED_TOP, SourcePlace
from pipeline.model.errors import StateError
from pipeline.model.record import Area
from pipeline.store.places import Note, read_note


def places_of(config: Config, root: Path, own: Path, holds_all: bool) -> Note:
    """holds_all: whether the backup's file system holds every name, as far as is known."""
    return read_note(own) or Note(_guessed(config, root), respells=not holds_all)


def _guessed(config: Config, root: Path) -> dict[bytes, bool]:
    """A source lies where more of its names are found again: at the root, or in a folder with its name."""
    top = (_names(root) - RESERVED_TOP) | _names(root / os.fsdecode(ESCAPED))
    folders = {name for name in top if _folder(root, name).is_dir()}
    likeness: dict[bytes, int] = {}
    for source in config.sources:
        name, inside = os.fsencode(source.name), _names(source.path)
        if not inside and (name in folders or len(config.sources) > 1):
            raise StateError(
                f"can't tell where source {source.name} lies in the backup: {source.path} has nothing in it",
                "Mount it, or copy something back into it (`cp` from the backup will do), then rebuild.",
            )
        in_folder = len(inside & _names(_folder(root, name))) if name in folders else 0
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


def _folder(root: Path, name: bytes) -> Path:
    """Where a source of that name lies, if not at the root."""
    return root / os.fsdecode(layout.stored(SourcePlace(name, False), b"", Area.LIVE))


def _names(folder: Path) -> frozenset[bytes]:
    try:
        return frozenset(map(os.fsencode, os.listdir(folder)))
    except OSError:
        return frozenset()
