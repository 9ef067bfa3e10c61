"""Where things lie: the mapping from source paths to backup paths is injective for every possible name, and
reversible; what the program reserves for itself is never given to a source path (design, section 3).

The strategies draw from a few names that are reserved somewhere, so that clashes would be met at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import layout
from pipeline.layout import RESERVED_TOP, Parsed, SourcePlace
from pipeline.model import treepath
from pipeline.model.record import Area

RULE = settings(max_examples=100, deadline=None)

Places: TypeAlias = tuple[SourcePlace, ...]


class Key(NamedTuple):
    """What gets a backup path of its own. area: None for versions and their markers."""

    place: SourcePlace
    relative: bytes
    area: Area | None
    number: int = 0
    marker: bytes = b""

    @property
    def path(self) -> bytes:
        if self.area is None:
            return layout.version(self.place, self.relative, self.number, self.marker)
        return layout.stored(self.place, self.relative, self.area)

    @property
    def parsed(self) -> Parsed:
        return Parsed(self.area, self.place.name, self.relative, self.number, self.marker)


Stored: TypeAlias = tuple[Places, list[tuple[Key, bytes]]]

RESERVED = sorted(RESERVED_TOP)
VERSION_NAMES = [b"v1.bak", b"v2.bak", b"v1.pinned", b"v1.pruned", b"v12.bak"]
NEARLY = [b"v0.bak", b"v01.bak", b"v1.bak2", b"V1.bak", b"v1.BAK", b"v.bak", b"_Escaped", b"v1.bak\n"]
ODD = [b"a", b"b", b"\n", b"\xff\xfe", b"\\", b"a" * 255, b"v" * 255, b"v1" + b"0" * 249 + b".bak"]
NAMES = st.sampled_from(RESERVED + VERSION_NAMES + NEARLY + ODD) | st.binary(min_size=1, max_size=3).filter(
    treepath.is_name
)
RELATIVES = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)


@st.composite
def places(draw: st.DrawFn) -> Places:
    """The sources of one backup: one at the root, perhaps with later ones beside it, or all in folders."""
    first, *more = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    if not draw(st.booleans()):
        return tuple(SourcePlace(name, False) for name in (first, *more))
    return with_first_at_root(first, *(name for name in more if can_lie_beside(name)))


def can_lie_beside(name: bytes) -> bool:
    """Whether a source of this name may lie beside one at the root; `sources.place` refuses reserved ones.

    One called `v1.bak` would share `versions/_escaped/v1.bak/` with a path of the first source.
    """
    return name not in RESERVED_TOP and not layout.is_version_name(name)


def with_first_at_root(first: bytes, *more: bytes) -> Places:
    beside = tuple(SourcePlace(name, False) for name in more)
    return (SourcePlace(first, True, frozenset(more)), *beside)


@st.composite
def backups(draw: st.DrawFn) -> tuple[Places, Key]:
    """The sources of a backup, and one thing that is stored in it."""
    sources = draw(places())
    place, relative = draw(st.sampled_from(sources)), draw(RELATIVES)
    area = draw(st.sampled_from([*Area, None]))
    if area is not None:
        return sources, Key(place, relative, area)
    marker = draw(st.sampled_from([b"bak", b"pinned", b"pruned"]))
    return sources, Key(place, relative, None, draw(st.sampled_from([1, 2, 12])), marker)


# -- every combination of a few names ---------------------------------------------------------------------

CLASHING = [b"_escaped", b"versions", b"_deleted", b"v1.bak", b"v2.pinned", b"docs", b"music", b"a"]
WORLDS: list[Places] = [
    with_first_at_root(b"docs"),
    with_first_at_root(b"docs", b"music", b"a"),
    with_first_at_root(b"_escaped", b"docs"),
    with_first_at_root(b"v1.bak", b"music"),
    tuple(SourcePlace(name, False) for name in (b"docs", b"music")),
    tuple(SourcePlace(name, False) for name in (b"_escaped", b"versions", b"a", b"v1.bak")),
]


def everything(sources: Places) -> Iterator[Key]:
    """All that could be stored for all paths of up to three of the clashing names."""
    for place in sources:
        for depth in (1, 2, 3):
            for components in product(CLASHING, repeat=depth):
                relative = b"/".join(components)
                yield from (Key(place, relative, area) for area in Area)
                yield from (Key(place, relative, None, n, b"bak") for n in (1, 2))
                yield from (Key(place, relative, None, 2, marker) for marker in (b"pinned", b"pruned"))


@pytest.fixture(scope="module", params=range(len(WORLDS)))
def stored(request: pytest.FixtureRequest) -> Stored:
    """A world's sources, all that could be stored in it, and where."""
    sources = WORLDS[request.param]
    return sources, [(key, key.path) for key in everything(sources)]


def test_no_two_things_get_the_same_backup_path(stored: Stored) -> None:
    """Injective over area, source, path, number and marker."""
    by_path: dict[bytes, Key] = {}
    for key, path in stored[1]:
        assert by_path.setdefault(path, key) == key


def test_every_combination_can_be_read_back(stored: Stored) -> None:
    sources, keys = stored
    for key, path in keys:
        assert layout.parse(path, sources) == key.parsed


def test_no_stored_file_stands_where_another_needs_a_folder(stored: Stored) -> None:
    """A path that changes from file to folder or back never clashes with what is stored below `versions/`,
    nor one area with another. Only inside one area a file and what was below its name exclude each other:
    there the source itself can't have both at once."""
    by_path = {path: key for key, path in stored[1]}
    for key, path in stored[1]:
        while path := path.rpartition(b"/")[0]:
            upper = by_path.get(path)
            if upper is not None:
                assert upper.area is not None, (upper, key)
                assert (upper.place, upper.area) == (key.place, key.area), (upper, key)
                assert key.relative.startswith(upper.relative + b"/"), (upper, key)


# -- rules for every possible name ------------------------------------------------------------------------


@RULE
@given(backups())
def test_every_backup_path_tells_what_it_stands_for(backup: tuple[Places, Key]) -> None:
    """Reversible, and so injective: this is what `rebuild` lives on."""
    sources, key = backup
    assert layout.parse(key.path, sources) == key.parsed


@RULE
@given(places(), st.lists(NAMES, min_size=1, max_size=5).map(b"/".join))
def test_a_name_that_no_mapping_gives_stands_for_nothing(sources: Places, path: bytes) -> None:
    """Whatever `parse` answers, the mapping of the answer is the very name that was asked for."""
    parsed = layout.parse(path, sources)
    if parsed is not None:
        place = next(place for place in sources if place.name == parsed.source)
        assert Key(place, parsed.relative, parsed.area, parsed.number, parsed.marker).path == path


@RULE
@given(backups())
def test_reserved_names_stay_reserved(backup: tuple[Places, Key]) -> None:
    """The first component is a reserved one only where it is that area's folder, or an escape."""
    folders = {None: b"versions", Area.DUPLICATE: b"_duplicates", Area.DELETED: b"_deleted"}
    key = backup[1]
    components = key.path.split(b"/")
    if key.area in folders:
        assert components[0] == folders[key.area]
    elif components[0] in RESERVED_TOP:
        assert components[0] == b"_escaped"
        assert len(components) > 1
        assert components[1] in RESERVED_TOP | key.place.siblings
    if key.place.at_root:
        at_top = components[0] if key.area == Area.LIVE else components[1]
        assert at_top not in key.place.siblings


@RULE
@given(backups())
def test_escaping_makes_no_component_longer(backup: tuple[Places, Key]) -> None:
    """So names of 255 bytes stay possible."""
    key = backup[1]
    given_names = key.place.full(key.relative).split(b"/")
    ours = [*RESERVED_TOP, b"v%d.%s" % (key.number, key.marker)]
    assert set(key.path.split(b"/")) <= {*given_names, *ours}


@RULE
@given(places(), RELATIVES, st.integers(1, 10**6))
def test_a_version_file_is_never_a_folder_of_versions(sources: Places, relative: bytes, number: int) -> None:
    """The same with names below that are chosen to clash: the version's own, and what escapes it."""
    place = sources[0]
    version = layout.version(place, relative, number)
    for name in (b"v%d.bak" % number, b"v%d.bak/x" % number, b"_escaped", b"_escaped/v%d.bak" % number):
        inner = layout.version(place, relative + b"/" + name, 1)
        assert inner != version
        assert not inner.startswith(version + b"/")


@RULE
@given(places(), st.lists(NAMES, max_size=3).map(b"/".join))
def test_the_program_s_own_folder_stands_for_nothing(sources: Places, below: bytes) -> None:
    assert layout.parse(b".pipeline" + (b"/" + below if below else b""), sources) is None


# -- examples ---------------------------------------------------------------------------------------------

ONE = SourcePlace(b"docs", True)
FOLDER = SourcePlace(b"docs", False)
WITH_SIBLINGS = SourcePlace(b"docs", True, frozenset({b"music"}))
SIBLING = SourcePlace(b"music", False)


@pytest.mark.parametrize(
    ("place", "relative", "area", "path"),
    [
        # one source lies at the root, several in folders of their own
        (ONE, b"a/b", Area.LIVE, b"a/b"),
        (FOLDER, b"a/b", Area.LIVE, b"docs/a/b"),
        (ONE, b"a/b", Area.DUPLICATE, b"_duplicates/a/b"),
        (FOLDER, b"a/b", Area.DUPLICATE, b"_duplicates/docs/a/b"),
        (ONE, b"a/b", Area.DELETED, b"_deleted/a/b"),
        (FOLDER, b"a/b", Area.DELETED, b"_deleted/docs/a/b"),
        (ONE, b"", Area.LIVE, b""),
        (FOLDER, b"", Area.LIVE, b"docs"),
        # reserved at the top
        (ONE, b"versions", Area.LIVE, b"_escaped/versions"),
        (ONE, b"versions/a/v1.bak", Area.LIVE, b"_escaped/versions/a/v1.bak"),
        (ONE, b"_duplicates/x", Area.LIVE, b"_escaped/_duplicates/x"),
        (ONE, b"_deleted/x", Area.LIVE, b"_escaped/_deleted/x"),
        (ONE, b".pipeline/state.db", Area.LIVE, b"_escaped/.pipeline/state.db"),
        (ONE, b"_escaped", Area.LIVE, b"_escaped/_escaped"),
        (ONE, b"_escaped/versions", Area.LIVE, b"_escaped/_escaped/versions"),
        (SourcePlace(b"versions", False), b"a", Area.LIVE, b"_escaped/versions/a"),
        # … and only there
        (ONE, b"a/versions", Area.LIVE, b"a/versions"),
        (ONE, b"a/_escaped/b", Area.LIVE, b"a/_escaped/b"),
        (FOLDER, b"versions/a", Area.LIVE, b"docs/versions/a"),
        (ONE, b"versions/a", Area.DELETED, b"_deleted/versions/a"),
        (ONE, b"_deleted/a", Area.DELETED, b"_deleted/_deleted/a"),
        (ONE, b"_escaped/a", Area.DUPLICATE, b"_duplicates/_escaped/_escaped/a"),
        (ONE, b"v1.bak", Area.LIVE, b"v1.bak"),
        # the first source made a folder with the later one's name
        (WITH_SIBLINGS, b"music/a", Area.LIVE, b"_escaped/music/a"),
        (WITH_SIBLINGS, b"music/a", Area.DELETED, b"_deleted/_escaped/music/a"),
        (SIBLING, b"a", Area.LIVE, b"music/a"),
        (SIBLING, b"a", Area.DELETED, b"_deleted/music/a"),
        (SIBLING, b"music/a", Area.LIVE, b"music/music/a"),
    ],
)
def test_where_stored_files_lie(place: SourcePlace, relative: bytes, area: Area, path: bytes) -> None:
    assert layout.stored(place, relative, area) == path
    assert layout.parse(path, (place,)) == Parsed(area, place.name, relative)


@pytest.mark.parametrize(
    ("place", "relative", "number", "marker", "path"),
    [
        (ONE, b"one.txt", 1, b"bak", b"versions/one.txt/v1.bak"),
        (ONE, b"a/b", 12, b"bak", b"versions/a/b/v12.bak"),
        (FOLDER, b"a", 1, b"bak", b"versions/docs/a/v1.bak"),
        (ONE, b"a", 3, b"pinned", b"versions/a/v3.pinned"),
        (ONE, b"a", 3, b"pruned", b"versions/a/v3.pruned"),
        (ONE, b"v1.bak", 1, b"bak", b"versions/_escaped/v1.bak/v1.bak"),
        (ONE, b"a/v1.bak/v2.pinned", 2, b"bak", b"versions/a/_escaped/v1.bak/_escaped/v2.pinned/v2.bak"),
        (ONE, b"a/v7.pruned", 1, b"bak", b"versions/a/_escaped/v7.pruned/v1.bak"),
        (ONE, b"_escaped/a", 1, b"bak", b"versions/_escaped/_escaped/a/v1.bak"),
        (ONE, b"versions", 1, b"bak", b"versions/versions/v1.bak"),
        (ONE, b"a/v0.bak", 1, b"bak", b"versions/a/v0.bak/v1.bak"),
        (ONE, b"a/v01.bak", 1, b"bak", b"versions/a/v01.bak/v1.bak"),
        (WITH_SIBLINGS, b"music/a", 1, b"bak", b"versions/_escaped/music/a/v1.bak"),
        (SIBLING, b"a", 1, b"bak", b"versions/music/a/v1.bak"),
    ],
)
def test_where_versions_lie(
    place: SourcePlace, relative: bytes, number: int, marker: bytes, path: bytes
) -> None:
    assert layout.version(place, relative, number, marker) == path
    assert layout.parse(path, (place,)) == Parsed(None, place.name, relative, number, marker)


@pytest.mark.parametrize(
    "path",
    [
        b".pipeline", b".pipeline/state.db", b"versions", b"versions/a", b"versions/v1.bak", b"_duplicates",
        b"versions/a/v0.bak", b"versions/a/v1.txt", b"versions/_escaped/v1.bak", b"versions/_escaped",
        b"versions/_escaped/a/v1.bak", b"_deleted", b"_escaped", b"_escaped/a", b"_deleted/_escaped/a",
    ],
)  # fmt: skip
def test_names_that_stand_for_nothing(path: bytes) -> None:
    assert layout.parse(path, (ONE,)) is None


def test_what_is_called_like_a_version() -> None:
    """Exactly what `version` makes, and the escape: another spelling of the number is an ordinary name."""
    assert all(map(layout.is_version_name, [b"_escaped", *VERSION_NAMES]))
    assert not any(map(layout.is_version_name, [b"versions", b"a", *NEARLY]))
