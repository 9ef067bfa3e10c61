"""The rule of retention as a pure function: the oldest versions beyond the limit go, and nothing else does.

A pinned version (a suspect's old content) is never taken and never counted; what isn't on the disk any more
(pruned, lost) is neither. `test_retention.py` has the same from outside.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import retention
from pipeline.model.record import Version, VersionStatus

RULE = settings(max_examples=100, deadline=None)


def version(number: int, pinned: bool = False, status: VersionStatus = VersionStatus.KEPT) -> Version:
    ended = None if status == VersionStatus.KEPT else 9
    return Version(b"docs\0a", number, 0, 3, b"d%d" % number, None, 0, int(pinned), status, ended)


@st.composite
def version_lists(draw: st.DrawFn) -> list[Version]:
    """Versions of one path in any order, numbers with gaps."""
    numbers = draw(st.sets(st.integers(1, 40), max_size=15))
    return draw(
        st.permutations(
            [version(number, draw(st.booleans()), draw(st.sampled_from(VersionStatus))) for number in numbers]
        )
    )


def counted(versions: list[Version]) -> list[Version]:
    return sorted(v for v in versions if v.status == VersionStatus.KEPT and not v.pinned)


@pytest.mark.parametrize(
    ("versions", "limit", "gone"),
    [
        ([], 0, []),
        ([version(1)], 1, []),
        ([version(1)], 0, [1]),
        ([version(1), version(2), version(3)], 2, [1]),
        ([version(3), version(1), version(2)], 1, [1, 2]),
        ([version(9), version(10)], 1, [9]),
        ([version(1, pinned=True), version(2)], 1, []),
        ([version(1, pinned=True), version(2)], 0, [2]),
        ([version(1, pinned=True), version(2), version(3)], 1, [2]),
        ([version(1, status=VersionStatus.PRUNED), version(2), version(3)], 1, [2]),
        ([version(1, status=VersionStatus.LOST), version(2)], 1, []),
    ],
)
def test_which_versions_go(versions: list[Version], limit: int, gone: list[int]) -> None:
    assert [v.number for v in retention.expired(versions, limit)] == gone


@RULE
@given(version_lists(), st.integers(0, 20))
def test_the_newest_stay_and_the_oldest_go_first(versions: list[Version], limit: int) -> None:
    """Lowest number first, exactly as many as are too many, each older than all that stay."""
    gone = retention.expired(versions, limit)
    stay = [v for v in counted(versions) if v not in gone]
    assert [v.number for v in gone] == sorted(v.number for v in gone)
    assert len(stay) == min(limit, len(counted(versions)))
    assert all(old.number < new.number for old in gone for new in stay)


@RULE
@given(version_lists(), st.integers(0, 20))
def test_pinned_versions_are_neither_taken_nor_counted(versions: list[Version], limit: int) -> None:
    """The same versions go whether pinned ones, and those that are gone already, are there or not."""
    gone = retention.expired(versions, limit)
    assert not any(v.pinned or v.status != VersionStatus.KEPT for v in gone)
    assert gone == retention.expired(counted(versions), limit)


@RULE
@given(version_lists(), st.integers(0, 20), st.integers(0, 20))
def test_a_wider_limit_never_keeps_less(versions: list[Version], limit: int, more: int) -> None:
    assert set(retention.expired(versions, limit + more)) <= set(retention.expired(versions, limit))


@RULE
@given(version_lists(), st.integers(0, 20))
def test_order_of_the_input_means_nothing_and_once_is_enough(versions: list[Version], limit: int) -> None:
    """A function of the history alone; applied to what it left, it takes nothing more."""
    gone = retention.expired(versions, limit)
    assert retention.expired(sorted(versions), limit) == gone
    assert retention.expired([v for v in versions if v not in gone], limit) == []
