"""The rules of retention as pure functions: which versions stay, by which rule, and what no rule may do.

`test_retention.py` has the same from outside, `test_pruner.py` that what is looked at is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import retention
from pipeline.model.record import Kind, Version, VersionStatus
from pipeline.retention import DAY_NS, Dated, Judged, Override, Policy, Retention

RULE = settings(max_examples=150, deadline=None)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MARCH = datetime(2025, 3, 2, 12, tzinfo=UTC)
HOUR_NS = DAY_NS // 24


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def version(number: int, pinned: bool = False, status: VersionStatus = VersionStatus.KEPT) -> Version:
    ended = None if status == VersionStatus.KEPT else 9
    return Version(b"docs\0a", number, 0, 3, b"d%d" % number, None, 0, int(pinned), status, ended)


def of_days(*stored: str, pinned: tuple[int, ...] = ()) -> list[Dated]:
    """Versions 1, 2, 3… stored at noon of these days, each replaced when the next one was stored, the last
    one now."""
    times = [ns(datetime.combine(date.fromisoformat(day), NOW.timetz())) for day in stored] + [ns(NOW)]
    return [
        Dated(version(number, number in pinned), times[number - 1], times[number], number + 1)
        for number in range(1, len(times))
    ]


def judge(versions: list[Dated], deleted_ns: int | None = None, **numbers: int) -> Judged:
    return retention.judge(versions, deleted_ns, ns(NOW), Policy(**numbers))


def kept(judged: Judged) -> set[int]:
    return {verdict.version.number for verdict in judged.verdicts if verdict.taken is None}


def said(judged: Judged) -> list[str]:
    """For each version, the rule that takes it, or those that keep it."""
    return [verdict.taken or " ".join(verdict.kept) for verdict in judged.verdicts]


# -- tables -----------------------------------------------------------------------------------------------


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
def test_a_limit_of_numbers(versions: list[Version], limit: int, gone: list[int]) -> None:
    """Beyond the limit the oldest go; pinned ones, and those that are gone already, aren't counted."""
    judged = judge([Dated(one, 0, 0, 1) for one in versions], max_versions_per_file=limit)
    assert [v.version.number for v in judged.verdicts if v.taken] == gone
    assert {v.taken for v in judged.verdicts if v.taken} <= {f"more than {limit} versions"}


MANY = {"max_versions_per_file": 99}
WITHIN, BOTH = "max_versions_per_file", "max_versions_per_file max_age_days"
OLD = "not the latest for more than 30 days"
RULES: dict[str, tuple[list[Dated], dict[str, int], list[str]]] = {
    "nothing is set": (of_days("2020-01-01", "2021-01-01"), MANY, [WITHIN, "newest"]),
    "age": (
        # 1 was replaced 59 days ago, 2 exactly 30 days ago, 3 now
        of_days("2025-01-01", "2026-01-01", "2026-01-30"), {**MANY, "max_age_days": 30},
        [OLD, BOTH, "newest"],
    ),
    "age, a day more": (
        of_days("2025-01-01", "2026-01-01", "2026-01-30"), {**MANY, "max_age_days": 29},
        ["not the latest for more than 29 days", "not the latest for more than 29 days", "newest"],
    ),
    "age of one day": (
        of_days("2026-02-01", "2026-02-27", "2026-02-28"), {**MANY, "max_age_days": 1},
        ["not the latest for more than 1 day", BOTH, "newest"],
    ),
    "the newest is never too old": (
        [Dated(version(1), 0, 0, 2)], {**MANY, "max_age_days": 1}, ["newest"],
    ),
    "pinned ones are neither taken nor counted": (
        of_days("2020-01-01", "2020-01-01", "2020-01-01", "2020-01-01", pinned=(2, 4)),
        {"max_versions_per_file": 1, "max_age_days": 1, "keep_daily": 1},
        ["more than 1 versions", "pinned", "newest keep_daily", "pinned"],
    ),
    "of a day the last one": (
        of_days("2020-01-01", "2020-01-02", "2020-01-02", "2020-01-05"),
        {"max_versions_per_file": 1, "keep_daily": 2},
        ["more than 1 versions", "more than 1 versions", "keep_daily", "newest keep_daily"],
    ),
    "days without a version don't count": (
        of_days("2019-01-01", "2020-01-01", "2020-06-01", "2021-01-01"),
        {"max_versions_per_file": 1, "keep_daily": 3},
        ["more than 1 versions", "keep_daily", "keep_daily", "newest keep_daily"],
    ),
    "weeks begin on Monday": (  # 2025-12-28 is a Sunday; the week of 2025-12-29 reaches into 2026
        of_days("2025-12-28", "2025-12-29", "2026-01-04", "2026-01-05"),
        {"max_versions_per_file": 0, "keep_weekly": 9},
        ["keep_weekly", "more than 0 versions", "keep_weekly", "keep_weekly"],
    ),
    "months and years, to the leap day": (
        of_days("2023-12-31", "2024-01-01", "2024-02-28", "2024-02-29", "2024-03-01"),
        {"max_versions_per_file": 0, "keep_monthly": 9, "keep_yearly": 9},
        ["keep_monthly keep_yearly", "keep_monthly", "more than 0 versions", "keep_monthly",
         "keep_monthly keep_yearly"],
    ),
    "a keep rule stands against age": (
        of_days("2024-01-01", "2024-02-01", "2025-01-01", "2026-02-01"),
        {**MANY, "max_age_days": 30, "keep_yearly": 2}, [OLD, OLD, "keep_yearly", "newest keep_yearly"],
    ),
    "the example in the README": (
        [
            Dated(version(1), ns(MARCH), ns(MARCH + timedelta(days=39)), 41),
            Dated(version(2), ns(MARCH + timedelta(days=39)), ns(MARCH + timedelta(days=43)), 45),
            Dated(version(3), ns(MARCH + timedelta(days=43)), ns(MARCH + timedelta(days=110)), 100),
        ],
        {"max_versions_per_file": 100, "max_age_days": 30, "keep_monthly": 12, "keep_yearly": 5},
        ["keep_monthly", OLD, "newest keep_monthly keep_yearly"],
    ),
    "no limit of numbers but 0 takes the newest": (
        of_days("2020-01-01"), {"max_versions_per_file": 0}, ["more than 0 versions"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_which_rule_takes_or_keeps(name: str) -> None:
    versions, numbers, expected = RULES[name]
    assert said(judge(versions, **numbers)) == expected


@pytest.mark.parametrize(
    ("days_ago", "numbers", "deleted", "expected"),
    [
        (
            61,
            {"deleted_max_age_days": 60, "keep_yearly": 9},
            True,
            ["deleted for more than 60 days", "pinned"],
        ),
        (61, {}, False, ["newest", "pinned"]),
        (60, {"deleted_max_age_days": 60}, False, ["newest", "pinned"]),
    ],
)
def test_what_goes_with_a_deleted_path(
    days_ago: int, numbers: dict[str, int], deleted: bool, expected: list[str]
) -> None:
    """All that counts, whatever keeps it else; not on the very day."""
    versions = of_days("2020-01-01", "2020-01-01", pinned=(2,))
    judged = judge(versions, ns(NOW - timedelta(days=days_ago)), **numbers)
    assert (judged.deleted is not None, said(judged)) == (deleted, expected)


def test_without_a_clock_time_takes_nothing() -> None:
    """Everything else goes on; what would be due is due when there is a clock again."""
    policy = Policy(2, max_age_days=1, deleted_max_age_days=1)
    judged = retention.judge(of_days("2020-01-01", "2020-01-02", "2020-01-03"), 0, None, policy)
    assert (judged.deleted, said(judged)) == (None, ["more than 2 versions", BOTH, "newest"])
    assert judged.due_ns == DAY_NS + 1


OVERRIDES = Retention(
    max_age_days=30,
    keep_daily=7,
    override=(
        Override("logs/", max_age_days=7, max_versions_per_file=2),
        Override("*.keep", max_age_days=0),
        Override("/logs/audit", max_age_days=99),
    ),
)


@pytest.mark.parametrize(
    ("path", "kind", "age", "versions"),
    [
        ("docs/a", Kind.FILE, 30, 10),
        ("docs/logs/a/b", Kind.LINK, 7, 2),
        ("docs/logs", Kind.FILE, 30, 10),
        ("docs/logs", Kind.FOLDER, 7, 2),
        ("docs/logs/a.keep", Kind.FILE, 0, 2),
        ("docs/logs/audit/a", Kind.FILE, 99, 2),
        ("docs/x/logs/audit/a", Kind.FILE, 7, 2),
        ("logs/a", Kind.FILE, 30, 10),
    ],
)
def test_the_last_override_that_matches_decides_key_by_key(
    path: str, kind: Kind, age: int, versions: int
) -> None:
    """Patterns are compared inside the source, and speak for what lies below a folder that they match."""
    policy = OVERRIDES.rules.of_path(path.encode().replace(b"/", b"\0"), kind)
    assert policy == Policy(versions, max_age_days=age, keep_daily=7)


def test_rules_are_told_apart() -> None:
    """What is known of the versions is of no use under other rules; how large a budget is changes nothing."""
    one, other = (Retention(override=(Override(pattern, keep_daily=1),)) for pattern in "ab")
    all_rules = (Retention(), Retention(keep_daily=1), Retention(max_versions_bytes=1), OVERRIDES, one, other)
    texts = [rules.rules.text() for rules in all_rules]
    assert len(set(texts)) == len(texts)
    assert Retention(max_versions_bytes=2).rules.text() == texts[2]
    assert Retention(max_versions_per_file=3).rules.only_counts and not OVERRIDES.rules.only_counts
    assert Retention(override=(Override("a", max_age_days=1),)).rules.asks_the_time


def test_when_a_version_was_stored_and_replaced() -> None:
    """By the runs of the contents; when one was stored that no history knows isn't known."""
    versions = [version(1), version(2), version(4)]
    found = retention.dated(versions, {2: 5, 5: 9, 3: 7}, lambda run: run * 100, lambda run: run * 100)
    assert [(one.stored_ns, one.replaced_ns, one.replaced_run) for one in found] == [
        (None, 500, 5),
        (500, 700, 7),
        (None, 900, 9),
    ]


# -- for all versions and policies ------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[Dated]:
    """Versions of one path in any order: numbers with gaps, times that mostly go on, many within a day."""
    numbers = sorted(draw(st.sets(st.integers(1, 40), max_size=12)))
    steps = st.sampled_from([0, HOUR_NS, 20 * HOUR_NS, 3 * DAY_NS, 40 * DAY_NS, 500 * DAY_NS, -DAY_NS])
    time, found = ns(NOW) - draw(st.integers(0, 2000)) * DAY_NS, []
    for run, number in enumerate(numbers, 2):
        stored_ns, time = time, time + draw(steps)
        status = draw(st.sampled_from([VersionStatus.KEPT] * 6 + [VersionStatus.PRUNED, VersionStatus.LOST]))
        found.append(Dated(version(number, draw(st.integers(0, 5)) == 0, status), stored_ns, time, run))
    return draw(st.permutations(found))


NUMBERS = st.integers(0, 4)
AGES = st.sampled_from([0, 1, 3, 30, 400])
POLICIES = st.builds(Policy, NUMBERS, AGES, NUMBERS, NUMBERS, NUMBERS, NUMBERS, AGES)
DELETED = st.none() | st.integers(0, 500).map(lambda days: ns(NOW) - days * DAY_NS)
KEEPS = ("keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")


@st.composite
def widened(draw: st.DrawFn, policy: Policy) -> Policy:
    """The policy with any of its numbers widened: a limit raised or switched off, a keep rule raised."""
    more: dict[str, int] = {}
    for name, number in policy._asdict().items():
        if name in (*KEEPS, "max_versions_per_file"):
            more[name] = number + draw(NUMBERS)
        elif number:
            more[name] = draw(st.sampled_from([0, number, number + 1, number + 100]))
    return policy._replace(**more)


@RULE
@given(st.data(), histories(), DELETED, POLICIES)
def test_wider_numbers_never_keep_less(
    data: st.DataObject, versions: list[Dated], deleted_ns: int | None, policy: Policy
) -> None:
    """Whichever numbers are widened together, what stayed stays."""
    wider = data.draw(widened(policy))
    before = retention.judge(versions, deleted_ns, ns(NOW), policy)
    after = retention.judge(versions, deleted_ns, ns(NOW), wider)
    assert kept(before) <= kept(after)
    assert (after.deleted is None) >= (before.deleted is None)


@RULE
@given(histories(), DELETED, POLICIES)
def test_what_stays_under_every_policy(versions: list[Dated], deleted_ns: int | None, policy: Policy) -> None:
    """Pinned ones; the newest, but for a limit of 0 and with a deleted path; of what is not on the disk
    nothing is said; and each verdict says why."""
    judged = retention.judge(versions, deleted_ns, ns(NOW), policy)
    on_disk = {
        one.version.number: one.version for one in versions if one.version.status == VersionStatus.KEPT
    }
    assert [verdict.version.number for verdict in judged.verdicts] == sorted(on_disk)
    assert {number for number, one in on_disk.items() if one.pinned} <= kept(judged)
    newest = retention.newest(on_disk.values())
    if newest is not None and policy.max_versions_per_file and judged.deleted is None:
        assert newest in kept(judged)
    assert all(bool(verdict.taken) != bool(verdict.kept) for verdict in judged.verdicts)


@RULE
@given(histories(), DELETED, POLICIES, st.randoms())
def test_order_means_nothing_and_once_is_enough(
    versions: list[Dated], deleted_ns: int | None, policy: Policy, random: Any
) -> None:
    """A function of the set of versions, in which pinned ones don't change what becomes of the others;
    applied to what it has left, it takes nothing more."""
    judged = retention.judge(versions, deleted_ns, ns(NOW), policy)
    mixed = random.sample(versions, len(versions))
    assert retention.judge(mixed, deleted_ns, ns(NOW), policy) == judged
    unpinned = retention.judge([v for v in versions if not v.version.pinned], deleted_ns, ns(NOW), policy)
    assert set(unpinned.verdicts) <= set(judged.verdicts)
    left = [one for one in versions if one.version.number in kept(judged)]
    again = retention.judge(left, deleted_ns, ns(NOW), policy)
    assert again.deleted is not None or kept(again) == kept(judged)


@RULE
@given(histories(), DELETED, POLICIES)
def test_nothing_becomes_due_before_it_is_said(
    versions: list[Dated], deleted_ns: int | None, policy: Policy
) -> None:
    """With the time that it names, a verdict tells when the next look is worth it: until then all stays as it
    is, and then something goes."""
    judged = retention.judge(versions, deleted_ns, ns(NOW), policy)
    left = [one for one in versions if one.version.number in kept(judged)]
    if judged.deleted is not None:
        return
    if judged.due_ns is None:
        assert kept(retention.judge(left, deleted_ns, 1 << 62, policy)) == kept(judged)
        return
    assert judged.due_ns > ns(NOW)
    assert kept(retention.judge(left, deleted_ns, judged.due_ns - 1, policy)) == kept(judged)
    then = retention.judge(left, deleted_ns, judged.due_ns, policy)
    assert then.deleted is not None or kept(then) < kept(judged)


MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2261, 12, 31), timezones=st.just(UTC))
PERIODS: Mapping[str, Any] = {
    "keep_daily": lambda moment: moment.date(),
    "keep_weekly": lambda moment: moment.isocalendar()[:2],
    "keep_monthly": lambda moment: (moment.year, moment.month),
    "keep_yearly": lambda moment: moment.year,
}


@RULE
@given(MOMENTS, st.integers(-400 * 24, 400 * 24), st.sampled_from(sorted(PERIODS)))
def test_periods_are_those_of_the_calendar(moment: datetime, hours: int, rule: str) -> None:
    """Of two versions both stay where the calendar puts them into two periods, else only the second."""
    other = moment + timedelta(hours=hours)
    two = [Dated(version(1), ns(moment), 0, 2), Dated(version(2), ns(other), 0, 3)]
    period_of = PERIODS[rule]
    expected = {1, 2} if period_of(moment) != period_of(other) else {2}
    assert kept(judge(two, **{"max_versions_per_file": 0, rule: 2})) == expected


@RULE
@given(st.lists(st.integers(1, 100)), st.integers(0, 500), st.integers(0, 1000), st.integers(0, 1000))
def test_a_budget_takes_the_oldest_and_no_more_than_it_must(
    sizes: list[int], others: int, budget: int, more: int
) -> None:
    """Until the rest fits, or nothing is left that may go; more room never keeps less."""
    used = sum(sizes) + others
    gone = list(retention.over_budget(sizes, lambda size: size, used, budget))
    assert gone == sizes[: len(gone)]
    assert used - sum(gone) <= budget or len(gone) == len(sizes)
    assert not gone or used - sum(gone[:-1]) > budget
    assert len(list(retention.over_budget(sizes, lambda size: size, used, budget + more))) <= len(gone)


def test_what_no_history_knows_is_kept_by_every_keep_rule() -> None:
    """After a rebuild: their days could be any."""
    unknown = [Dated(version(number), None, 10**18, 9) for number in (1, 2, 3)]
    judged = retention.judge(unknown, None, 10**18, Policy(max_versions_per_file=1, keep_monthly=1))
    assert [verdict.taken for verdict in judged.verdicts] == [None, None, None]
