"""Where the content of an entry state or of a version lies now.

In: an opened backup and what `store.past` knows. Out: backup paths. Pure. Nothing here fails for a state that
names only sources which it knows.
"""

from __future__ import annotations

from pipeline import layout
from pipeline.model import treepath
from pipeline.model.record import Area, Held, Kind, Version, VersionStatus
from pipeline.views.opening import Opened


def held_at(opened: Opened, held: Held) -> bytes | None:
    """The backup path of an entry state's content; None where nothing is stored for it, or no longer."""
    place, relative = opened.places[treepath.source_name(held.path)], treepath.relative(held.path)
    if not Kind(held.kind).has_content:
        is_there = held.kind == Kind.FOLDER and held.to_run is None
        return layout.stored(place, relative, Area.LIVE) if is_there else None
    if held.area is not None:
        return layout.stored(place, relative, Area(held.area))
    if held.status == VersionStatus.KEPT:
        return layout.version(place, relative, held.number)
    return None


def version_at(opened: Opened, version: Version) -> bytes | None:
    """The backup path of a version; None where it is pruned or lost."""
    if version.status != VersionStatus.KEPT:
        return None
    place = opened.places[treepath.source_name(version.path)]
    return layout.version(place, treepath.relative(version.path), version.number)
