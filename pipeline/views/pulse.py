"""When it is time to tell how far a command is.

In: the moment at which it began. Out: elapsed seconds, a few times a second. Guarantees: asking costs next to
nothing, so it can be asked after every batch.
"""

from __future__ import annotations

import time

_INTERVAL_S = 0.2


class Pulse:
    """began_s: on the monotonic clock."""

    def __init__(self, began_s: float) -> None:
        self._began_s = began_s
        self._told_s = 0.0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def due_s(self) -> float | None:
        """The elapsed time where something should be told now, else None."""
        elapsed_s = self.elapsed_s
        if elapsed_s - self._told_s < _INTERVAL_S:
            return None
        self._told_s = elapsed_s
        return elapsed_s
