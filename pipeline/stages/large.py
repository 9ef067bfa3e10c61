"""One pass over a large file: read, hashed and written at the same time where there is a processor for it.

In: an open file, and who takes its pieces. Out: its digest and how many bytes that were. Guarantees: the hash
is of the very bytes that were handed on (promise 3), in their order. A helper thread hashes one half of the
buffer while the other is read; it is used only while the machine has idle processors, since with all of them
busy it costs a tenth and gains nothing. Fails with OSError, as reading does, and as the taker does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.stages import digest
from pipeline.store.pieces import pieces

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_BUFFER_BYTES = 4 << 20
_LOOK_BYTES, _LOOK_S = 16 << 20, 1.0
"""How often it is looked whether a processor is idle, and a sign of life is given, at the least."""
_HUGE_BYTES = 1 << 30
_MOST_THREADS = 4
"""For BLAKE3, with a file that is worth starting them: by four, reading is what takes the time."""


class LargeFiles:
    """alive: told now and then how many bytes were read since."""

    def __init__(self, algorithm: str, alive: Callable[[int], None]) -> None:
        self._algorithm = algorithm
        self._alive = alive
        self._buffer: bytearray | None = None
        self._helper: ThreadPoolExecutor | None = None

    def close(self) -> None:
        if self._helper is not None:
            self._helper.shutdown()

    def read(
        self, handle: int, size_bytes: int, take: Callable[[memoryview, bool], None] | None
    ) -> tuple[bytes, int]:
        """Hash at most `size_bytes`, and hand each piece to `take`, with whether it is a hole."""
        if self._buffer is None:
            from concurrent.futures import ThreadPoolExecutor

            self._buffer = bytearray(_BUFFER_BYTES)
            self._helper = ThreadPoolExecutor(1, "hashing")
        assert self._helper is not None, "made together"
        threads = min(1 + idle_processors(), _MOST_THREADS) if size_bytes >= _HUGE_BYTES else 1
        state = digest.hasher(self._algorithm, threads)()
        idle = was_idle = False
        offset, looked_at, looked_s = 0, 0, time.monotonic()
        running: Future[object] | None = None
        try:
            for piece, is_hole in pieces(handle, self._buffer, size_bytes):
                if running is not None:
                    running.result()
                    running = None
                if offset - looked_at >= _LOOK_BYTES or time.monotonic() - looked_s >= _LOOK_S:
                    is_idle = idle_processors() > 0  # before somebody is woken by the sign
                    idle, was_idle = is_idle and was_idle, is_idle  # not only for a moment
                    self._alive(offset - looked_at)
                    looked_at, looked_s = offset, time.monotonic()
                if idle:
                    running = self._helper.submit(state.update, piece)
                else:
                    state.update(piece)
                if take is not None:
                    take(piece, is_hole)
                offset += len(piece)
        finally:
            if running is not None:
                running.result()  # before anybody else uses the buffer
        return state.digest(), offset


def processors() -> int:
    """How many of them this process may use; how many there are, where systems don't tell that."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def idle_processors() -> int:
    """How many processors have nothing to do at this moment (the fourth field of proc_loadavg(5)); 0 where
    that can't be told."""
    try:
        running = Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0]
        return max(0, processors() - int(running))
    except (OSError, ValueError, IndexError):
        return 0
