"""Names that a file system can't hold, or can't tell from others: each gets a spelling of its own that any
file system can hold and that can be read again (design, section 3: injective for every name, reversible)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import layout, spelling
from pipeline.layout import Parsed, SourcePlace
from pipeline.model import treepath
from pipeline.model.record import Area
from pipeline.store.limits import folded

RULE = settings(max_examples=200, deadline=None)
LETTERS = st.sampled_from(["a", "A", "é", "e\u0301", "É", "ß", "ſ", "K", "\u212a", "%", ".", " ", ":", "%61"])
NAMES = (
    st.lists(LETTERS, min_size=1, max_size=6).map(lambda parts: "".join(parts).encode())
    | st.binary(min_size=1, max_size=255)
).filter(lambda name: treepath.is_name(name) and len(name) <= 255)
FORBIDDEN = frozenset(b'<>:"|?*\\/')


@RULE
@given(NAMES)
def test_any_file_system_can_hold_it(name: bytes) -> None:
    """No component is longer than the shortest limit that is common (143 bytes, eCryptfs), holds anything but
    printable ASCII, or ends with what Windows drops; and none is like a name of the program's own."""
    for component in spelling.spell(name).split(b"/"):
        assert 0 < len(component) <= 128
        assert component.isascii() and component.decode().isprintable() and component == component.lower()
        assert not FORBIDDEN & set(component) and component[-1] not in b". "
        assert component not in layout.RESERVED_TOP and not layout.is_version_name(component)


@RULE
@given(NAMES, NAMES)
def test_each_has_its_own(one: bytes, other: bytes) -> None:
    """Also where neither case nor composition counts."""
    spelled = [folded(spelling.spell(name)) for name in (one, other)]
    assert (spelled[0] == spelled[1]) == (one == other)


@RULE
@given(NAMES, st.lists(NAMES, max_size=2))
def test_it_can_be_read_again(name: bytes, after: list[bytes]) -> None:
    """Whatever follows below; and nothing else than `spell` makes is a spelling."""
    components = spelling.spell(name).split(b"/")
    assert spelling.read([*components, *after]) == (name, len(components))
    assert spelling.looks_spelled(components[0])
    assert spelling.read([name]) is None or spelling.spell(spelling.read([name])[0]) == name  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        (b"README.md", b"%52%45%41%44%4d%45.md"),
        (b"notes: 2", b"%6eotes%3a 2"),
        (b"ends.", b"%65nds%2e"),
        (b"%41", b"%2541"),
        ("é".encode(), b"%c3%a9"),
        (b"A" * 43, b"%41" * 42 + b"%/%41"),
    ],
)
def test_how_it_looks(name: bytes, spelled: bytes) -> None:
    assert spelling.spell(name) == spelled


@RULE
@given(st.text("Aa1.%\u0416", min_size=43, max_size=127).map(str.encode), st.binary(min_size=1, max_size=130))
def test_a_way_to_a_name_is_no_name(name: bytes, other: bytes) -> None:
    """The folders that a long spelling makes stand for nothing; nothing but these is taken for them."""
    pieces = spelling.spell(name).split(b"/")
    for count in range(1, len(pieces)):
        assert spelling.is_begun(pieces[:count])
        assert layout.parse(b"/".join(pieces[:count]), (SourcePlace(b"s", True),), learns=True) is None
    for whole in (pieces, [other], [*pieces[:-1], b"100%"]):
        assert not spelling.is_begun(whole)


@pytest.mark.parametrize("text", [b"", b"%", b"%4", b"%4A", b"%61%62", b"a", b"%2f", b"%00", b"%2e", b"%61%"])
def test_what_spells_nothing(text: bytes) -> None:
    assert spelling.read([text]) is None


PLAIN = NAMES.filter(lambda name: not spelling.looks_spelled(name))


@RULE
@given(
    st.lists(st.tuples(PLAIN, st.booleans()), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.sampled_from([*Area, None]),
)
def test_respelled_paths_have_a_place(
    path: list[tuple[bytes, bool]], at_root: bool, own_too: bool, area: Area | None
) -> None:
    """Where some names of a path are respelled, its backup path is read again by whoever knows which, and by
    whoever knows only that there are such names, as a rebuild does."""
    names = [name for name, _ in path]
    respelled = {b"/".join(names[: n + 1]) for n, (_, is_respelled) in enumerate(path) if is_respelled}
    if own_too and not at_root:
        respelled.add(b"")
    relative = b"/".join(names)
    knowing = SourcePlace(b"Docs", at_root, respelled=respelled)
    at = layout.version(knowing, relative, 2) if area is None else layout.stored(knowing, relative, area)
    number, marker = (2, b"bak") if area is None else (0, b"")
    parsed = Parsed(area, b"Docs", relative, number, marker, frozenset(respelled))
    assert layout.parse(at, (knowing,)) == parsed
    assert layout.parse(at, (SourcePlace(b"Docs", at_root),), learns=True) == parsed
    if respelled:
        unknowing = layout.parse(at, (SourcePlace(b"Docs", at_root),))
        assert unknowing is None or unknowing.relative != relative
