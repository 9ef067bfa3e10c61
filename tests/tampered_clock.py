"""A clock that goes wrong, for the program and all of its processes.

In: a backup, how far the clock is off, and for how much of that the machine has been up. Out: the variables
of a call. Guarantees: what the kernel stamps on files stays right; every process of the call, the fork server
and its children too, sees the same shift.
"""

from __future__ import annotations

from pathlib import Path

from harness import REPOSITORY

SITE = """
import os, time
_shift_ns = int(os.environ["CLOCK_SHIFT_S"]) * 10**9
_up_ns = int(os.environ["UP_SHIFT_S"]) * 10**9
_time_ns, _clock_ns = time.time_ns, time.clock_gettime_ns
time.time_ns = lambda: _time_ns() + _shift_ns
time.time = lambda: time.time_ns() / 1e9
time.clock_gettime_ns = lambda which: _clock_ns(which) + _up_ns * (which == time.CLOCK_BOOTTIME)
"""
DAY_S = 86_400
YEARS_S = 3_652 * DAY_S


def shifted(folder: Path, shift_s: int, up_s: int = 0) -> dict[str, str]:
    """The variables of a call whose clock is off. folder: for the module that every process imports."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITE)
    shifts = {"CLOCK_SHIFT_S": str(shift_s), "UP_SHIFT_S": str(up_s)}
    return {"PYTHONPATH": f"{folder}:{REPOSITORY}", **shifts}
