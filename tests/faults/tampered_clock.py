"""A clock that goes wrong, for the program and all of its processes.

In: a backup, how far the clock is off. Out: the variables of a call. Guarantees: what the kernel stamps on
files stays right; every process of the call, the fork server and its children too, sees the same shift.
"""

from __future__ import annotations

from pathlib import Path

from harness import REPOSITORY

SITE = """
import os, time
_shift_ns = int(os.environ["CLOCK_SHIFT_S"]) * 10**9
_time_ns, _gmtime = time.time_ns, time.gmtime
time.time_ns = lambda: _time_ns() + _shift_ns
time.time = lambda: time.time_ns() / 1e9
"""
DAY_S = 86_400
YEARS_S = 3_652 * DAY_S


def shifted(folder: Path, shift_s: int) -> dict[str, str]:
    """The variables of a call whose clock is off. folder: for the module that every process imports."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITE)
    return {"PYTHONPATH": f"{folder}:{REPOSITORY}", "CLOCK_SHIFT_S": str(shift_s)}
