"""Workers that stay between one line and the next: a process that is there already costs nothing to start.

In: workers that have answered all that they were given. Out: the same, for the next line. Guarantees: a
worker that rests holds nothing of the backup or the sources open, so that their disks can be unmounted
meanwhile; one that has died is never handed out. Who closes what: a line puts its workers here instead of
ending them; `close` ends those that are here.
"""

from __future__ import annotations

from pipeline.pool.channel import REST, Frame
from pipeline.pool.children import Child
from pipeline.pool.forkserver import ForkServer


class Reserve:
    """server: where processes come from, one for all runs."""

    def __init__(self, server: ForkServer) -> None:
        self.server = server
        self._resting: list[Child] = []

    def take(self) -> Child | None:
        """A worker that is alive, with nothing to do and nothing open."""
        while self._resting:
            child = self._resting.pop()
            if not child.process.has_ended():
                return child
            child.release()
        return None

    def put(self, child: Child) -> None:
        """It must have answered everything."""
        assert child.outbox is not None, "workers have one"
        child.outbox.put(Frame(REST, 0, 0, b""))
        self._resting.append(child)

    def close(self) -> None:
        for child in self._resting:
            child.kill()
        for child in self._resting:
            child.release()
        self._resting.clear()
