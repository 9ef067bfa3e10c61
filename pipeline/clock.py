"""Whether the clock of a run can be trusted with deciding what is old. Pure.

In: what the clocks show, and what they showed when they were trusted last. Out: why not, in words, and what
is to be remembered for the next run. Guarantees: a clock that has gone ahead by more than a day more than the
machine has been up meanwhile is not trusted, and neither is one that lies before the start of an earlier run
(that one's clock was wrong then, or this one's is); what was trusted last stays what is compared with until a
clock is trusted again, by this rule or by a person. Across boots nothing is known of the time in between: a
clock that was set ahead while the machine was down is not noticed.
"""

from __future__ import annotations

from typing import NamedTuple

HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS
_SO = (
    "rules of time take nothing; if the clock is right, say so once with"
    " `python -m pipeline prune --accept-clock`"
)


class Clocks(NamedTuple):
    """What they show. wall_ns: since 1970. boot_ns: for how long this boot has lasted, sleep included."""

    wall_ns: int
    boot_ns: int
    boot_id: str


class Known(NamedTuple):
    """trusted: what was trusted last, None if nothing was yet. latest_ns: the latest start of a run since a
    person last said that the clock is right."""

    trusted: Clocks | None = None
    latest_ns: int | None = None


def doubt(now: Clocks, known: Known) -> str | None:
    """Why the clock is not to be trusted; None if it is."""
    then = known.trusted
    if then is not None and then.boot_id and then.boot_id == now.boot_id:
        ahead_ns = (now.wall_ns - then.wall_ns) - (now.boot_ns - then.boot_ns)
        if ahead_ns > DAY_NS:
            return (
                f"the clock has jumped ahead by {ahead_ns // HOUR_NS} hours while the machine was up: {_SO}"
            )
    if known.latest_ns is not None and now.wall_ns < known.latest_ns:
        return f"the clock lies before the start of an earlier run: {_SO}"
    return None


def remember(now: Clocks, known: Known, is_trusted: bool) -> Known:
    """For the next run. is_trusted: by the rule, or by a person's word."""
    if is_trusted:
        return Known(now, now.wall_ns)
    return Known(known.trusted, max(now.wall_ns, known.latest_ns or now.wall_ns))
