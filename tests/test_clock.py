"""When a clock is trusted with deciding what is old: the decision, and what the state remembers for it."""

from __future__ import annotations

import sqlite3

import pytest

from pipeline.clock import DAY_NS, HOUR_NS, Clocks
from pipeline.store.clocks import judge_clock
from pipeline.store.schema import SCHEMA
from pipeline.store.state import State

START_NS = 1_700_000_000 * 10**9
AHEAD, BEFORE = "jumped ahead", "before the start of an earlier run"


def at(hours: float, up_hours: float, boot: str = "one") -> Clocks:
    """What the clocks show so long after the start."""
    return Clocks(START_NS + int(hours * HOUR_NS), DAY_NS + int(up_hours * HOUR_NS), boot)


# Each: clocks of a run, whether a person accepts them, and the doubt that there is.
RUNS: dict[str, list[tuple[Clocks, bool, str | None]]] = {
    "time goes by": [(at(0, 0), False, None), (at(900, 900), False, None), (at(901, 900), False, None)],
    "a day ahead is nothing, more is": [
        (at(0, 0), False, None), (at(25, 1), False, None), (at(50, 1.9), False, AHEAD),
    ],
    "refused until it is right": [
        (at(0, 0), False, None), (at(99, 1), False, AHEAD), (at(100, 2), False, AHEAD),
        (at(3, 3), False, BEFORE), (at(100.5, 100.5), False, None),
    ],
    "refused until a person accepts it": [
        (at(0, 0), False, None), (at(99, 1), False, AHEAD), (at(99, 1), True, None),
        (at(100, 2), False, None),
    ],
    "back, and accepted": [
        (at(50, 0), False, None), (at(40, 1), False, BEFORE), (at(41, 2), True, None),
        (at(42, 3), False, None), (at(41, 3), False, BEFORE),
    ],
    "a clock that comes right after the start of a boot": [
        (at(0, 0), False, None), (at(-900_000, 0, "two"), False, BEFORE), (at(9, 1, "two"), False, None),
        (at(99, 2, "two"), False, AHEAD),
    ],
    "another boot, of which nothing is known": [(at(0, 0), False, None), (at(9000, 0, "two"), False, None)],
    "no boots are told apart": [(at(0, 0, ""), False, None), (at(9000, 1, ""), False, None)],
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_which_clocks_are_trusted(name: str) -> None:
    """By what the state remembers of the runs before."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    state = State(connection)
    for number, (clocks, accepted, expected) in enumerate(RUNS[name]):
        doubt = judge_clock(state, clocks, accepted)
        state.begin_run(clocks.wall_ns, "full", clocks.boot_id)
        state.commit()
        assert (doubt is None) == (expected is None) and (expected or "") in (doubt or ""), (number, doubt)


def test_a_state_that_remembers_nothing_has_its_runs() -> None:
    """Of an older program, or made anew: a clock that lies before one of them is noticed all the same."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    state = State(connection)
    for start in (START_NS + 9, START_NS):
        state.begin_run(start, "full", "")
    for kept in (None, "", "{", "[1]", '["clocks",3]', 7):
        if kept is not None:
            state.set_setting("clocks", kept)
        assert BEFORE in (judge_clock(state, at(0, 0), False) or ""), kept
