"""Extended attributes as one value: the same attributes are the same bytes, whatever their order was."""

from __future__ import annotations

from itertools import combinations
from unittest.mock import Mock

import pytest
from everything import GROUP, USER, access_list
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model import attributes
from pipeline.model.plan import Action, OpenFolder, Plan, SetMetadata
from pipeline.model.record import Kind, Record
from pipeline.store import journal
from pipeline.store.operation import Describe, OpenUp, Operation
from pipeline.store.reading import Remembered

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


RIGHTS = st.integers(0, 7)
NAMED = st.lists(st.tuples(st.sampled_from([USER, GROUP]), st.integers(10, 12), RIGHTS), max_size=4)
PEOPLE = [
    (uid, frozenset(groups))
    for uid in (10, 11, 12, 99)
    for n in range(3)
    for groups in combinations((5, 10, 11, 12), n)
]


def allowed_by_list(
    own: tuple[int, int, int], named: list[tuple[int, int, int]], who: tuple[int, frozenset[int]]
) -> list[int]:
    """acl(5), "Access check algorithm", for who isn't the owner: the sets of rights of which any grants.
    own: of the owning group, 5, the mask, and others."""
    (group, mask, other), (uid, groups) = own, who
    users = [rights for tag, number, rights in named if tag == USER and number == uid]
    if users:
        return [rights & mask for rights in users]
    members = [rights for tag, number, rights in named if tag == GROUP and number in groups]
    members += [group] if 5 in groups else []
    return [rights & mask for rights in members] or [other]


@given(RIGHTS, RIGHTS, RIGHTS, NAMED, RIGHTS)
def test_nobody_gets_more_without_a_list(
    group: int, mask: int, other: int, named: list[tuple[int, int, int]], owner: int
) -> None:
    """What can't have its list is open to nobody to whom the list would have closed it. (The mode's group
    bits are the mask.)"""
    named = list({one[:2]: one for one in named}.values())
    mode = attributes.mode_without(
        access_list(owner, group, mask, other, *named), owner << 6 | mask << 3 | other
    )
    assert mode >> 6 == owner
    for who in PEOPLE:
        granted = mode >> 3 & 7 if 5 in who[1] else mode & 7
        for right in (4, 2, 1):
            assert not granted & right or any(
                one & right for one in allowed_by_list((group, mask, other), named, who)
            )
    if not named:
        assert mode == owner << 6 | (group & mask) << 3 | other


def test_a_list_that_can_t_be_one() -> None:
    """Grants nothing, as whoever made it meant something else."""
    for value in (b"", b"\x02\0\0\0", b"\x02\0\0\0\x01\0\x07"):
        assert attributes.mode_without(value, 0o1777) == 0o1700


@given(st.binary(min_size=1, max_size=20))
def test_bytes_that_nobody_packed(data: bytes) -> None:
    try:
        pairs = attributes.unpack(data)
    except ValueError:
        return
    assert all(type(name) is type(value) is bytes for name, value in pairs)


def test_what_is_remembered_is_bounded() -> None:
    """Promise 6, flat memory, for attributes by their identity: those that come again are read once, as long
    as they fit."""
    read: list[bytes] = []

    def one(name: bytes) -> bytes:
        read.append(name)
        return name * 1000

    remembered = Remembered(one, most_bytes=10_000)
    assert [remembered(name) for name in (b"a", b"b", b"a", b"b")] == [b"a" * 1000, b"b" * 1000] * 2
    assert read == [b"a", b"b"]
    for number in range(1_000):
        remembered(b"%d" % number)
        assert sum(map(len, remembered._kept.values())) <= 10_000
    assert remembered(b"large" * 10) == b"large" * 10_000
    assert sum(map(len, remembered._kept.values())) <= 10_000


def test_a_group_holds_what_stored_files_get(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 6 for groups of operations: they hold no attributes that no stored file gets, and close by the
    bytes of those that they hold."""
    monkeypatch.setattr(journal, "GROUP_BYTES", 1_000)
    packed = attributes.pack([(b"user.a", b"x" * 600), (b"trusted.a", b"x" * 60_000)])
    applied: list[Operation] = []
    state = Mock(attributes=lambda name: packed if name else b"")
    files = Mock(apply=lambda group: applied.extend(group) or [], take_problems=list)
    staging = Mock(inode=lambda at: 7, separate=lambda *_: None)
    group = journal.Journal(
        state, staging, files, lambda coming, done: None, 1, lambda event: None, False, False
    )
    file = Record(b"docs\0a", Kind.FILE, 0o644, 0, 0, 5, 5, 7, 0, b"d", None, 0, None, 1, 0, 1, 0, 1, b"name")
    folder = file._replace(path=b"docs\0b", kind=Kind.FOLDER, digest=None)
    group.execute(Plan(Action.METADATA, file.path, "", (SetMetadata(b"a"),), file, file))
    assert not applied
    group.execute(Plan(None, folder.path, "", (OpenFolder(b"b", 0o755, 0, 0),), folder, folder))
    assert [type(operation) for operation in applied] == [Describe, OpenUp]
    assert {operation.attributes for operation in applied} == {attributes.pack([(b"user.a", b"x" * 600)])}  # type: ignore[union-attr]
