"""Ctrl-C and SIGTERM: once to stop after what is under way, twice to stop at once.

In: signals. Out: a callable that tells whether to stop, and a call for whoever sleeps. Guarantees: the
handlers that were there before are put back. The second signal raises KeyboardInterrupt wherever the main
thread is.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NOTICE = "Stopping after the current group; press Ctrl-C again to stop at once.\n"


@contextmanager
def stop_on_signals(
    notice: str = _NOTICE, wake: Callable[[], None] = lambda: None
) -> Iterator[Callable[[], bool]]:
    """Within it, the first signal makes the callable answer true, prints the notice and calls `wake`."""
    signals_seen = 0

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal signals_seen
        signals_seen += 1
        if signals_seen > 1:
            raise KeyboardInterrupt
        # Not through Python's stream: the signal may have come in the middle of a write to it.
        start = "\n" if sys.stderr.isatty() else ""
        os.write(2, (start + notice).encode())
        wake()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: signals_seen > 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
