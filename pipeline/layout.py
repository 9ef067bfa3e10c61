"""Where things lie in a backup: a pure, injective and reversible mapping from paths to names.

In: a source's place and a path inside it (`bytes`, components joined by `/`). Out: backup paths relative
to the backup root. Guarantees: two different (area, source, path, number) never get the same backup path, no
source path ever gets a name that the program uses itself, and `parse` undoes the mapping. Nothing here can
fail for a valid path; `parse` answers None for names that no mapping gives.

A component that would meet a reserved name at its place becomes two components, `_escaped/<component>`, so
that names of 255 bytes stay possible. What is reserved depends on the place only:

- at the top of the backup root: the program's own folders, `_escaped`, and, for a source that lies directly
  at the root, the names of the other sources' folders;
- at the top of `_duplicates/` and `_deleted/`: `_escaped` and the names of the other sources' folders;
- anywhere below `versions/`: `_escaped` and the names of versions and their markers.

On a file system that can't hold every name, some names of the source are respelled before that
(`pipeline.spelling`): those whose paths the state has recorded, and a place knows.
"""

from __future__ import annotations

import re
from collections.abc import Set
from typing import NamedTuple

from pipeline import spelling
from pipeline.model.record import Area

OWN_FOLDER = b".pipeline"
VERSIONS = b"versions"
DUPLICATES = b"_duplicates"
DELETED = b"_deleted"
ESCAPED = b"_escaped"

_ESCAPED_ONLY = frozenset({ESCAPED})
RESERVED_TOP = frozenset({VERSIONS, DUPLICATES, DELETED, OWN_FOLDER, ESCAPED})
_AREA_FOLDERS = {Area.DUPLICATE: DUPLICATES, Area.DELETED: DELETED}
_VERSION_NAME = re.compile(rb"v([1-9][0-9]*)\.(bak|pinned|pruned)")


class SourcePlace(NamedTuple):
    """Where a source lies, fixed at its first run.

    at_root: directly in the backup root; otherwise in a folder with its name.
    siblings: names of the sources that lie in folders of their own (empty for those themselves).
    respelled: the paths inside the source whose last names are respelled; the empty one is the source's own.
    """

    name: bytes
    at_root: bool
    siblings: frozenset[bytes] = frozenset()
    respelled: Set[bytes] = frozenset()

    def full(self, relative: bytes) -> bytes:
        """The path below an area's top, before escaping."""
        name = self.name
        if self.respelled:
            name = spelling.spell(name) if b"" in self.respelled else name
            relative = self._respell(relative)
        if self.at_root:
            return relative
        return name + b"/" + relative if relative else name

    def _respell(self, relative: bytes) -> bytes:
        out, path = [], b""
        for name in relative.split(b"/"):
            path = path + b"/" + name if path else name
            out.append(spelling.spell(name) if path in self.respelled else name)
        return b"/".join(out)

    def read(self, components: list[bytes], learns: bool = False) -> tuple[bytes, frozenset[bytes]] | None:
        """What `full` may have made these components of, and which respelled paths that goes by; None where
        they lie in no folder of this source, or end within a spelling. learns: whatever reads like a spelling
        is taken for one."""
        used, path, at = set(), b"", 0
        if not self.at_root:
            found = spelling.read(components) if learns or b"" in self.respelled else None
            if found is not None and found[0] == self.name:
                used.add(b"")
                at = found[1]
            elif components[0] == self.name:
                at = 1
            else:
                return None
        while at < len(components):
            found = spelling.read(components[at:]) if learns or self.respelled else None
            if found is not None:
                inside = path + b"/" + found[0] if path else found[0]
                if learns or inside in self.respelled:
                    used.add(inside)
                    path, at = inside, at + found[1]
                    continue
            elif learns and spelling.is_begun(components[at:]):
                return None
            path = path + b"/" + components[at] if path else components[at]
            at += 1
        return path, frozenset(used)


class Parsed(NamedTuple):
    """What a backup path stands for. area: None for versions and their markers.

    marker: `bak`, `pinned` or `pruned` below `versions/`, else empty. number: the version's, else 0.
    respelled: as in `SourcePlace`, of the paths that lead there.
    """

    area: Area | None
    source: bytes
    relative: bytes
    number: int = 0
    marker: bytes = b""
    respelled: frozenset[bytes] = frozenset()


def _escape_top(full: bytes, reserved: frozenset[bytes], siblings: frozenset[bytes]) -> bytes:
    top = full.partition(b"/")[0]
    return ESCAPED + b"/" + full if top in reserved or top in siblings else full


def is_version_name(component: bytes) -> bool:
    """Whether a component below `versions/` would be taken for one of the program's own names."""
    return component == ESCAPED or _VERSION_NAME.fullmatch(component) is not None


def stored(place: SourcePlace, relative: bytes, area: Area) -> bytes:
    """The backup path of a path's stored file in one of the three areas. Empty: the backup root itself."""
    full = place.full(relative)
    if area == Area.LIVE:
        return _escape_top(full, RESERVED_TOP, place.siblings)
    return _AREA_FOLDERS[Area(area)] + b"/" + _escape_top(full, _ESCAPED_ONLY, place.siblings)


def _version_folder(place: SourcePlace, relative: bytes) -> bytes:
    out = [VERSIONS]
    for depth, component in enumerate(place.full(relative).split(b"/")):
        if is_version_name(component) or (depth == 0 and component in place.siblings):
            out.append(ESCAPED)
        out.append(component)
    return b"/".join(out)


def version(place: SourcePlace, relative: bytes, number: int, marker: bytes = b"bak") -> bytes:
    """The backup path of a version, or of a marker beside it (`pinned`, `pruned`)."""
    return b"%s/v%d.%s" % (_version_folder(place, relative), number, marker)


def _unescape(components: list[bytes]) -> list[bytes] | None:
    out: list[bytes] = []
    rest = iter(components)
    for component in rest:
        if component == ESCAPED:
            escaped = next(rest, None)
            if escaped is None:
                return None
            component = escaped
        out.append(component)
    return out


def _unescape_top(components: list[bytes]) -> list[bytes] | None:
    if components[0] != ESCAPED:
        return components
    return components[1:] or None


def parse(backup_path: bytes, places: tuple[SourcePlace, ...], learns: bool = False) -> Parsed | None:
    """What a backup path stands for, or None where no path is stored under it.

    Answers by reading the name backwards and then asking the mapping: a name counts only if the mapping of
    what was read gives that very name again. learns: it is not known which names are respelled; whatever
    reads like a spelling is taken for one.
    """
    top, _, below = backup_path.partition(b"/")
    if top == OWN_FOLDER:
        return None
    if top == VERSIONS:
        return _parse_version(backup_path, below, places, learns)
    area = next((a for a, folder in _AREA_FOLDERS.items() if folder == top), Area.LIVE)
    components = _unescape_top((backup_path if area is Area.LIVE else below).split(b"/"))
    for place in places:
        found = place.read(components, learns) if components is not None else None
        if found is None:
            continue
        relative, respelled = found
        knowing = place._replace(respelled=respelled) if learns else place
        if stored(knowing, relative, area) == backup_path:
            return Parsed(area, place.name, relative, respelled=respelled)
    return None


def _parse_version(
    backup_path: bytes, below: bytes, places: tuple[SourcePlace, ...], learns: bool
) -> Parsed | None:
    folder, _, name = below.rpartition(b"/")
    match = _VERSION_NAME.fullmatch(name)
    components = _unescape(folder.split(b"/"))
    if match is None or components is None:
        return None
    number, marker = int(match[1]), match[2]
    for place in places:
        found = place.read(components, learns)
        if found is None or not found[0]:
            continue
        relative, respelled = found
        knowing = place._replace(respelled=respelled) if learns else place
        if version(knowing, relative, number, marker) == backup_path:
            return Parsed(None, place.name, relative, number, marker, respelled)
    return None
