"""Which versions of a path go, and which rule takes or keeps each. Pure.

In: the versions of a path with their times, how long the path has been deleted, the time that counts as now,
and the path's policy. Out: for each version on the disk a verdict.

A version *counts* while it is on the disk and isn't pinned. All rules are about those that count: what is
pinned is never taken, and stands for no place, no day and no byte. A version's *time* is the start of the
run that stored it. It *was replaced* at the start of the run that gave the path its next content; until then
it was the latest one, also in `_deleted/`. (Where no history knows the run that stored it, after a rebuild,
its day could be any, so every keep rule keeps it; it was replaced by the run that rebuilt. The same is true
of what a run stored whose clock was in doubt; what it replaced was replaced by the next one that wasn't.) The
*newest* is the one with the highest number. *Now* is the start of the run; without a clock that can be
trusted there is none: the rules that ask for it take nothing, and where there are keep rules, nothing takes
anything.

The rules, in the order in which the first one that speaks decides:

1. `deleted_max_age_days`: a path that left its source longer ago goes as a whole: what lies in `_deleted/`,
   and all versions that count, whatever the other rules say.
2. `keep_daily`, `keep_weekly`, `keep_monthly`, `keep_yearly`: of the last N days (ISO weeks, months, years;
   UTC) that have a version, the one with the highest number stays.
3. `max_versions_per_file`: all but the N with the highest numbers go. What a keep rule keeps is among those N
   if its number is, and stays beside them if not.
4. The newest stays.
5. `max_age_days`: one that was replaced longer ago goes.
6. `max_versions_bytes`, over the whole backup, after all others: while the versions that count are larger
   together, the one goes that was replaced by the earliest run (within a run in scan order), also where a
   keep rule has kept it; but never the newest of its path, nor what has no bytes of its own (links).

Guarantees: verdicts depend on the set of versions, not on its order. Widening any numbers of rules 1 to 5
together (a limit that is raised or switched off, a keep rule that is raised) never makes a version go that
stayed, and neither does more room under rule 6. What other rules keep more does use up that room, though:
rule 6 then takes older ones. Applied to what it has left, nothing goes any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, NamedTuple, TypeVar

from msgspec import Meta, Struct

from pipeline.filters import Filter, Line, compile_pattern
from pipeline.model import treepath
from pipeline.model.record import Kind, Version, VersionStatus

DAY_NS = 86_400 * 10**9
PINNED, NEWEST = "pinned", "newest"
T = TypeVar("T")
NotNegative = Annotated[int, Meta(ge=0)]


class Policy(NamedTuple):
    """The rules of one path. 0 switches a rule off, but for `max_versions_per_file`."""

    max_versions_per_file: int = 10
    max_age_days: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    deleted_max_age_days: int = 0

    @property
    def asks_the_time(self) -> bool:
        return bool(self.max_age_days or self.deleted_max_age_days or self.keeps)

    @property
    def keeps(self) -> bool:
        """Whether a rule names versions by their times."""
        return bool(self.keep_daily or self.keep_weekly or self.keep_monthly or self.keep_yearly)


class Override(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """As the configuration has it: other numbers for the paths that a gitignore pattern matches, or that lie
    below a folder that it matches. None: as everywhere."""

    pattern: str
    max_versions_per_file: NotNegative | None = None
    max_age_days: NotNegative | None = None
    keep_daily: NotNegative | None = None
    keep_weekly: NotNegative | None = None
    keep_monthly: NotNegative | None = None
    keep_yearly: NotNegative | None = None
    deleted_max_age_days: NotNegative | None = None

    def __post_init__(self) -> None:
        """Raises ValueError."""
        pattern = compile_pattern(self.line)
        if pattern is None or not pattern.excludes:
            raise ValueError("its pattern matches nothing")
        if not self.numbers:
            raise ValueError("sets no number")

    @property
    def line(self) -> Line:
        return Line(self.pattern, "retention.override")

    @property
    def numbers(self) -> dict[str, int]:
        fields = {name: getattr(self, name) for name in Policy._fields}
        return {name: number for name, number in fields.items() if number is not None}


class Retention(Struct, frozen=True, forbid_unknown_fields=True):
    """As the configuration has it: a `Policy`, and what is about more than one path."""

    max_versions_per_file: NotNegative = 10
    max_age_days: NotNegative = 0
    keep_daily: NotNegative = 0
    keep_weekly: NotNegative = 0
    keep_monthly: NotNegative = 0
    keep_yearly: NotNegative = 0
    deleted_max_age_days: NotNegative = 0
    max_versions_bytes: NotNegative = 0
    override: tuple[Override, ...] = ()

    @property
    def rules(self) -> Rules:
        """As they are applied."""
        policy = Policy(*(getattr(self, name) for name in Policy._fields))
        overrides = tuple((Filter((one.line,)), one) for one in self.override)
        return Rules(policy, self.max_versions_bytes, overrides)


class Rules(NamedTuple):
    """All that a configuration says about versions. The last override that matches decides, key by key."""

    policy: Policy = Policy()
    max_bytes: int = 0
    overrides: tuple[tuple[Filter, Override], ...] = ()

    @property
    def only_counts(self) -> bool:
        """Whether there is nothing but one `max_versions_per_file` for all."""
        return self == Rules(Policy(self.policy.max_versions_per_file))

    @property
    def asks_the_time(self) -> bool:
        return any(policy.asks_the_time for policy in self._policies)

    @property
    def keeps(self) -> bool:
        """Whether there is a rule that names versions by their times."""
        return any(policy.keeps for policy in self._policies)

    @property
    def _policies(self) -> tuple[Policy, ...]:
        return (self.policy, *(Policy(**override.numbers) for _, override in self.overrides))

    def text(self) -> str:
        """What tells these rules from others, but for how many bytes may be used."""
        overrides = [(override.pattern, override.numbers) for _, override in self.overrides]
        return repr((tuple(self.policy), bool(self.max_bytes), overrides))

    def of_path(self, path: bytes, kind: int) -> Policy:
        """The policy of a tree path. kind: of what it is now, or was when it was deleted."""
        policy, relative = self.policy, treepath.relative(path)
        for matcher, override in self.overrides:
            if matcher.excludes_known(relative, kind == Kind.FOLDER):
                policy = policy._replace(**override.numbers)
        return policy


class Dated(NamedTuple):
    """A version with its times, in nanoseconds since 1970. stored_ns: None where no history knows it."""

    version: Version
    stored_ns: int | None
    replaced_ns: int
    replaced_run: int


class Verdict(NamedTuple):
    """taken: the rule that takes the version, in words; None: it stays, and `kept` names the rules that keep
    it, or the limits that it is within. due_ns: when a rule of time takes it, if nothing else comes first."""

    version: Version
    taken: str | None
    kept: tuple[str, ...] = ()
    due_ns: int | None = None


class Judged(NamedTuple):
    """The verdicts of a path, lowest number first. deleted: why what lies in `_deleted/` goes, None if it
    stays. due_ns: when a rule of time takes the next of it all."""

    verdicts: tuple[Verdict, ...]
    deleted: str | None = None
    due_ns: int | None = None


def dated(
    versions: Iterable[Version],
    first_runs: Mapping[int, int],
    start_of: Callable[[int], int],
    stored_in: Callable[[int], int | None],
) -> list[Dated]:
    """Versions with their times. first_runs: for the numbers of the path's contents, its latest one among
    them, the first run that had each. start_of: when a run began. stored_in: when what it stored was stored,
    None where that isn't known."""
    found, numbers = [], sorted(first_runs)
    for version in versions:
        later = next((number for number in numbers if number > version.number), numbers[-1])
        replaced_run = first_runs[later]
        stored_run = first_runs.get(version.number)
        stored_ns = stored_in(stored_run) if stored_run is not None else None
        found.append(Dated(version, stored_ns, start_of(replaced_run), replaced_run))
    return found


def judge(versions: Iterable[Dated], deleted_ns: int | None, now_ns: int | None, policy: Policy) -> Judged:
    """Rules 1 to 5. deleted_ns: since when the path has been deleted, None if it is in its source."""
    found = sorted(one for one in versions if one.version.status == VersionStatus.KEPT)
    if deleted_ns is not None and _is_older(deleted_ns, now_ns, policy.deleted_max_age_days):
        why = f"deleted for more than {_days(policy.deleted_max_age_days)}"
        all_of_it = (Verdict(v, None, (PINNED,)) if v.pinned else Verdict(v, why) for v, *_ in found)
        return Judged(tuple(all_of_it), why)
    counted = [one for one in found if not one.version.pinned]
    named = _named(counted, policy)
    rank = {one.version.number: rank for rank, one in enumerate(reversed(counted))}
    verdicts = tuple(
        _verdict(one, rank.get(one.version.number), named.get(one.version.number, ()), now_ns, policy)
        for one in found
    )
    due = [verdict.due_ns for verdict in verdicts if verdict.due_ns is not None]
    if deleted_ns is not None and policy.deleted_max_age_days:
        due.append(_due(deleted_ns, policy.deleted_max_age_days))
    return Judged(verdicts, None, min(due, default=None))


def _verdict(
    one: Dated, rank: int | None, named: tuple[str, ...], now_ns: int | None, policy: Policy
) -> Verdict:
    """rank: how many of those that count are newer; None for a pinned one."""
    version, limit, days = one.version, policy.max_versions_per_file, policy.max_age_days
    if rank is None:
        return Verdict(version, None, (PINNED,))
    if rank >= limit and not named:
        return Verdict(version, more_than(limit))
    if named or rank == 0:
        return Verdict(version, None, (NEWEST, *named) if rank == 0 < limit else named)
    if _is_older(one.replaced_ns, now_ns, days):
        return Verdict(version, f"not the latest for more than {_days(days)}")
    within = ("max_versions_per_file", *(("max_age_days",) if days else ()))
    return Verdict(version, None, within, _due(one.replaced_ns, days) if days else None)


def more_than(limit: int) -> str:
    """Why `max_versions_per_file` takes a version."""
    return f"more than {limit} versions"


def newest(versions: Iterable[Version]) -> int | None:
    """The number of the newest of those that count."""
    counted = (v.number for v in versions if v.status == VersionStatus.KEPT and not v.pinned)
    return max(counted, default=None)


def over_budget(
    oldest_first: Iterable[T], size_of: Callable[[T], int], used_bytes: int, max_bytes: int
) -> Iterator[T]:
    """Rule 6: of the versions that may go, those that have to until the rest fits."""
    for one in oldest_first:
        if used_bytes <= max_bytes:
            return
        used_bytes -= size_of(one)
        yield one


def _is_older(since_ns: int, now_ns: int | None, days: int) -> bool:
    return bool(days) and now_ns is not None and now_ns >= _due(since_ns, days)


def _due(since_ns: int, days: int) -> int:
    """The first moment of more than so many days."""
    return since_ns + days * DAY_NS + 1


def _days(days: int) -> str:
    return f"{days} day{'' if days == 1 else 's'}"


# -- days, weeks, months, years ---------------------------------------------------------------------------


def _named(counted: list[Dated], policy: Policy) -> dict[int, tuple[str, ...]]:
    """By number, the keep rules that name a version. counted: lowest number first."""
    named: dict[int, tuple[str, ...]] = {}
    keeps = {
        "keep_daily": (policy.keep_daily, _day),
        "keep_weekly": (policy.keep_weekly, _week),
        "keep_monthly": (policy.keep_monthly, _month),
        "keep_yearly": (policy.keep_yearly, _year),
    }
    for rule, (count, period_of) in keeps.items():
        if count:
            last: dict[int, int] = {}
            for one in counted:
                if one.stored_ns is None:
                    named[one.version.number] = (*named.get(one.version.number, ()), rule)
                else:
                    last[period_of(one.stored_ns // DAY_NS)] = one.version.number
            for period in sorted(last)[-count:]:
                named[last[period]] = (*named.get(last[period], ()), rule)
    return named


def _day(days: int) -> int:
    """Periods are numbered; later ones have higher numbers. days: since 1970."""
    return days


def _week(days: int) -> int:
    """ISO weeks begin on a Monday, and 1 January 1970 was a Thursday."""
    return (days + 3) // 7


def _month(days: int) -> int:
    """In the calendar, whose years are counted from March here, so that a leap day is the last of its year
    and months begin every 30.6 days."""
    era, day = divmod(days + 719_468, 146_097)  # of 400 years, from 1 March of the year 0
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    month = (5 * (day - (365 * year + year // 4 - year // 100)) + 2) // 153
    return (era * 400 + year) * 12 + month + 2  # from January on, counted from 0


def _year(days: int) -> int:
    return _month(days) // 12
