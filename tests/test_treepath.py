"""Tree paths: plain comparison of two of them is scan order, and what is shown of them is one safe line.

The state database, the scanner's merge and "first" in every rule rely on that order (promise 4).
"""

from __future__ import annotations

import unicodedata
from typing import TypeAlias

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.model import treepath

RULE = settings(max_examples=100, deadline=None)

Components: TypeAlias = tuple[bytes, ...]

NASTY = [
    b"a", b"b", b"a.b", b"a-b", b"a b", b"A", b"a\n", b"\x01", b"\x1b[31m", b"\xff", b"\xc2\x85", b"\x85",
    b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\\", b"\\x0a", b"\x7f", b"-", b"...", b"\xc3\xa9", b"e\xcc\x81",
]  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(NASTY),
    st.binary(min_size=1, max_size=5),
    st.text(min_size=1, max_size=5).map(lambda text: text.encode("utf-8", "surrogatepass")),
).filter(treepath.is_name)
PATHS = st.lists(NAMES, min_size=1, max_size=5).map(tuple)


def joined(components: Components) -> bytes:
    path = components[0]
    for name in components[1:]:
        path = treepath.join(path, name)
    return path


def depth_first(paths: set[Components]) -> list[Components]:
    """The order of a walk, said naively: names by their bytes, a folder's content directly after it."""
    order: list[Components] = []
    for name in sorted({path[0] for path in paths}):
        if (name,) in paths:
            order.append((name,))
        below = {path[1:] for path in paths if path[0] == name and len(path) > 1}
        order += [(name, *rest) for rest in depth_first(below)]
    return order


def unescaped(text: str) -> bytes:
    r"""Undo `escaped`: every backslash there begins `\xNN`."""
    out, rest = b"", text
    while rest:
        if rest[0] == "\\":
            assert rest[1] == "x"
            out, rest = out + bytes.fromhex(rest[2:4]), rest[4:]
        else:
            out, rest = out + rest[0].encode(), rest[1:]
    return out


def assert_one_safe_line(text: str) -> None:
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") for c in text)
    assert text.splitlines() == ([text] if text else [])
    assert text.encode("utf-8").decode("utf-8") == text


# -- order ------------------------------------------------------------------------------------------------


@RULE
@given(st.sets(PATHS, max_size=12))
def test_comparison_is_the_order_of_a_walk(paths: set[Components]) -> None:
    """Depth first, names compared as bytes, a folder's content directly after the folder."""
    assert sorted(map(joined, paths)) == [joined(path) for path in depth_first(paths)]


@RULE
@given(st.sets(PATHS, max_size=12))
def test_the_order_is_that_of_slashes_read_as_the_smallest_byte(paths: set[Components]) -> None:
    """The same rule in the design's own words."""

    def with_smallest_slash(path: Components) -> list[int]:
        return [-1 if byte == ord("/") else byte for byte in b"/".join(path)]

    assert sorted(map(joined, paths)) == list(map(joined, sorted(paths, key=with_smallest_slash)))


def test_a_slash_would_sort_otherwise() -> None:
    """Why paths aren't joined by `/`: `a-b` must come after all that is in the folder `a`."""
    paths = [("s", "a"), ("s", "a", "z"), ("s", "a-b"), ("s", "a.b")]
    encoded = [joined(tuple(name.encode() for name in path)) for path in paths]
    assert sorted(encoded) == encoded
    assert sorted(treepath.with_slashes(path) for path in encoded) != [
        treepath.with_slashes(path) for path in encoded
    ]


@RULE
@given(PATHS, PATHS)
def test_below_is_the_range_of_what_lies_below(folder: Components, other: Components) -> None:
    """`below` and `is_below` say the same, and both mean: the components begin with the folder's."""
    low, high = treepath.below(joined(folder))
    is_inside = len(other) > len(folder) and other[: len(folder)] == folder
    assert (low < joined(other) < high) == is_inside
    assert treepath.is_below(joined(other), joined(folder)) == is_inside


@RULE
@given(PATHS, PATHS)
def test_everything_below_a_folder_is_in_its_range(folder: Components, inner: Components) -> None:
    """The same for paths that do lie below, which two random paths seldom do."""
    low, high = treepath.below(joined(folder))
    assert low < joined(folder + inner) < high
    assert treepath.is_below(joined(folder + inner), joined(folder))


@pytest.mark.parametrize(
    ("path", "folder", "expected"),
    [
        (b"s\0a", b"s", True),
        (b"s\0a\0b", b"s\0a", True),
        (b"s\0a\0b", b"s", True),
        (b"s\0a", b"s\0a", False),
        (b"s", b"s\0a", False),
        (b"s\0ab", b"s\0a", False),
        (b"s\0a\x01", b"s\0a", False),
        (b"s\0a/b", b"s\0a", False),
        (b"s2\0a", b"s", False),
    ],
)
def test_is_below(path: bytes, folder: bytes, expected: bool) -> None:
    assert treepath.is_below(path, folder) is expected


# -- parts ------------------------------------------------------------------------------------------------


@RULE
@given(PATHS)
def test_the_parts_of_a_path(path: Components) -> None:
    assert treepath.source_name(joined(path)) == path[0]
    assert treepath.relative(joined(path)) == b"/".join(path[1:])
    assert treepath.with_slashes(joined(path)) == b"/".join(path)
    assert treepath.text(joined(path)).encode("utf-8", "surrogateescape") == b"/".join(path[1:])


@pytest.mark.parametrize("name", [b"a", b"...", b".a", b" ", b"\n", b"\xff", b"a" * 255])
def test_what_can_be_a_name(name: bytes) -> None:
    assert treepath.is_name(name)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0"])
def test_what_can_not_be_a_name(name: bytes) -> None:
    assert not treepath.is_name(name)


# -- what is shown ----------------------------------------------------------------------------------------


@RULE
@given(st.binary(max_size=12))
def test_escaped_is_one_safe_line_for_any_bytes(name: bytes) -> None:
    """A log line is always one line, and no name can control a terminal."""
    assert_one_safe_line(treepath.escaped(name))


@RULE
@given(PATHS)
def test_shown_is_one_safe_line_for_any_path(path: Components) -> None:
    assert_one_safe_line(treepath.shown(joined(path)))


@RULE
@given(st.one_of(NAMES, st.binary(max_size=8)))
def test_escaped_can_be_undone(name: bytes) -> None:
    """So two names are never shown as the same one."""
    assert unescaped(treepath.escaped(name)) == name


@RULE
@given(PATHS, PATHS)
def test_two_paths_are_never_shown_alike(one: Components, other: Components) -> None:
    assume(one != other)
    assert treepath.shown(joined(one)) != treepath.shown(joined(other))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"one.txt", "one.txt"),
        (b"a/b", "a/b"),
        (b"a\nb", r"a\x0ab"),
        (b"\x1b[2J", r"\x1b[2J"),
        (b"\x7f", r"\x7f"),
        (b"a\\b", r"a\x5cb"),
        (b"\\x0a", r"\x5cx0a"),
        (b"\xff\xfe", r"\xff\xfe"),
        (b"\xc2\x85", r"\xc2\x85"),
        (b"\xe2\x80\xa8", r"\xe2\x80\xa8"),
        (b"\xe2\x80\xa9", r"\xe2\x80\xa9"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),
        ("é, 日本, 🙂".encode(), "é, 日本, 🙂"),
        (b"[bold]", "[bold]"),
    ],
)
def test_how_names_are_shown(name: bytes, shown: str) -> None:
    assert treepath.escaped(name) == shown
