"""The clocks of this machine, and what the state remembers of them.

In: an open state. Out: the answer of `pipeline.clock`, which decides. Guarantees: both clocks are read at the
same instant; what is remembered is one setting, so a run writes it together with its number. A state that
remembers nothing (of an older program, or made anew) has the starts of its runs. Fails as the state does.
"""

from __future__ import annotations

import time
from contextlib import suppress

import msgspec

from pipeline import clock
from pipeline.clock import Clocks, Known
from pipeline.store.state import State
from pipeline.store.system import boot_id

_SETTING = "clocks"
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def read_clocks() -> Clocks:
    return Clocks(time.time_ns(), time.clock_gettime_ns(_BOOT_CLOCK), boot_id())


def judge_clock(state: State, now: Clocks, is_accepted: bool) -> str | None:
    """Why the clock is not to be trusted, None if it is. To be asked before the run has its number. What the
    next run compares with is kept, not yet committed. is_accepted: a person says that the clock is right."""
    known = _known(state)
    doubt = clock.doubt(now, known)
    if doubt is not None and is_accepted:
        doubt = None
        # It was the clock of the runs before that was wrong, in this boot or by their word.
        state.put(
            "UPDATE runs SET has_doubted_clock = 1 WHERE boot_id = ? OR started_ns > ?",
            (now.boot_id, now.wall_ns),
        )
    to_keep = clock.remember(now, known, doubt is None)
    state.set_setting(_SETTING, msgspec.json.encode(to_keep).decode())
    return doubt


def first_setting(now: Clocks) -> tuple[str, str]:
    """Key and value of what is remembered in a state that is made anew."""
    return _SETTING, msgspec.json.encode(Known(now, now.wall_ns)).decode()


def _known(state: State) -> Known:
    with suppress(msgspec.DecodeError, TypeError):  # nothing is kept, or nothing that can be
        return msgspec.json.decode(state.setting(_SETTING), type=Known)
    return Known(None, state.execute("SELECT max(started_ns) FROM runs").fetchone()[0])
