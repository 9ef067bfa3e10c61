"""Extended attributes as one value: the same attributes are the same bytes, whatever their order was."""

from __future__ import annotations

import pytest
from everything import GROUP, USER, access_list
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model import attributes

NAMES = st.sampled_from([b"user.a", b"user.b", b"trusted.a", b"security.capability", attributes.ACCESS_LIST])
SETS = st.dictionaries(NAMES, st.binary(max_size=8))


@given(SETS, st.randoms())
def test_the_same_in_any_order(found: dict[bytes, bytes], chance: object) -> None:
    pairs = list(found.items())
    chance.shuffle(pairs)  # type: ignore[attr-defined]
    packed = attributes.pack(pairs)
    assert packed == attributes.pack(found.items())
    assert dict(attributes.unpack(packed)) == found
    assert bool(packed) == bool(found) == (attributes.identity(packed) is not None)


@given(SETS, SETS)
def test_identities_tell_apart(one: dict[bytes, bytes], other: dict[bytes, bytes]) -> None:
    packed = [attributes.pack(found.items()) for found in (one, other)]
    assert (attributes.identity(packed[0]) == attributes.identity(packed[1])) == (one == other)


@given(SETS, SETS)
def test_what_agrees(wanted: dict[bytes, bytes], found: dict[bytes, bytes]) -> None:
    """All that is wanted is there; what else is there is the system's own matter."""
    others = {name for name in found.keys() - wanted.keys() if attributes.is_replaced(name)}
    agrees = all(found.get(name) == value for name, value in wanted.items()) and not others
    assert attributes.agree(attributes.pack(wanted.items()), attributes.pack(found.items())) == agrees


@given(SETS)
def test_what_a_stored_file_gets(found: dict[bytes, bytes]) -> None:
    """Nothing in a backup runs with rights of its own, or is marked for the system that it came from."""
    stored = dict(attributes.for_stored(attributes.pack(found.items())))
    expected = {n: v for n, v in found.items() if n.startswith(b"user.") or n == attributes.ACCESS_LIST}
    assert stored == expected


@pytest.mark.parametrize("group", range(8))
def test_what_a_list_grants_the_owning_group(group: int) -> None:
    """Not what the mode says, whose group bits are the mask of the list."""
    assert attributes.group_permissions(access_list(7, group, 7, 0, (USER, 5, 7), (GROUP, 6, 7))) == group


def test_a_list_that_can_t_be_one() -> None:
    """Grants nothing, as whoever made it meant something else."""
    for value in (b"", b"\x02\0\0\0", b"\x02\0\0\0\x01\0\x07"):
        assert attributes.group_permissions(value) == 0


@given(st.binary(min_size=1, max_size=20))
def test_bytes_that_nobody_packed(data: bytes) -> None:
    try:
        pairs = attributes.unpack(data)
    except ValueError:
        return
    assert all(type(name) is type(value) is bytes for name, value in pairs)
