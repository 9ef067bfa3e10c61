"""The local engine: worker processes of this machine, each behind a pipe of its own in each direction.

In: frames from the line. Out: their answers. Guarantees: a dead or silent worker is replaced, and its
batches go back to the line, the one that it was at as deadly; there are no more workers than handles for
them. Fails with StationError where no process can be started, or where they die one after the other.

Who closes what: a worker ends when its inbox is closed; `close` ends whatever still runs, or puts workers
that have nothing left to do into the reserve.
"""

from __future__ import annotations

import resource
import selectors
import time
from collections import deque
from functools import partial

from pipeline.model import message
from pipeline.model.errors import Problem, StationError
from pipeline.pool.channel import ALIVE, BEGUN, FAILED, Frame
from pipeline.pool.children import Child, Station, set_up, start_worker
from pipeline.pool.crew import Crew, Size, busy_ns
from pipeline.pool.forkserver import ForkServer
from pipeline.pool.hands import SILENCE_S, Desk, Tally
from pipeline.pool.reserve import Reserve

BATCHES_PER_WORKER = 2
WINDOW_BATCHES = 64
DEATHS_IN_A_ROW = 16
HANDLES_PER_WORKER = 4
HANDLES_OF_THE_REST = 44
"""What a process has open beside its workers' pipes, generously: the state, folders, logs, the walker."""


class _Worker:
    """A worker and the batches that it has been given and not yet answered, oldest first."""

    def __init__(self, child: Child, now_s: float) -> None:
        self.child = child
        self.given: deque[Frame] = deque()
        self.has_begun = False  # the first of them
        self.last_sign_s = now_s
        self.partial_bytes = 0
        self.files = self.size_bytes = 0


class Local:
    """size: of the crew. reserve: where workers are taken from and put back to, up to the crew's least
    size."""

    def __init__(
        self,
        server: ForkServer,
        station: Station,
        size: Size,
        reserve: Reserve | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._server = server
        self._station = station
        self._reserve = reserve
        self._silence_s = silence_s
        self._least, most = _affordable(size.least), _affordable(size.most)
        self._crew = Crew(most, time.monotonic(), busy_ns)
        self._workers: dict[int, _Worker] = {}
        self._started = 0
        self._deaths = 0  # since a worker has last answered
        self._selector: selectors.BaseSelector
        self._desk: Desk
        self.given_up = station.kind.given_up
        self.window_batches = WINDOW_BATCHES + 8 * most
        self.is_waiting = False

    def start(self, selector: selectors.BaseSelector, desk: Desk) -> None:
        self._selector, self._desk = selector, desk
        for _ in range(self._least):
            self._start_worker()

    @property
    def bytes_in_progress(self) -> int:
        return sum(worker.partial_bytes for worker in self._workers.values())

    def tallies(self) -> list[Tally]:
        return [
            Tally(str(number), worker.files, worker.size_bytes + worker.partial_bytes)
            for number, worker in self._workers.items()
        ]

    def take_problems(self) -> list[Problem]:
        return []

    def close(self, is_done: bool) -> None:
        """Nothing is lost by it: only the parent owns anything."""
        children = [w.child for w in self._workers.values() if not (is_done and self._may_rest(w))]
        for child in children:
            child.kill()
        for child in children:
            child.release()
        self._workers.clear()

    def _may_rest(self, worker: _Worker) -> bool:
        """Whether it went into the reserve: not with anything given or said that nobody has taken."""
        if self._reserve is None or worker.given or self._least <= 0 or worker.child.process.has_ended():
            return False
        self._least -= 1
        self._reserve.put(worker.child)
        return True

    # -- giving out ---------------------------------------------------------------------------------------

    def give(self, frame: Frame) -> bool:
        """To the worker that has least to do. What its pipe can't take yet is sent as soon as it can."""
        number, worker = min(self._workers.items(), key=lambda one: len(one[1].given))
        if len(worker.given) >= BATCHES_PER_WORKER:
            return False
        worker.given.append(frame)
        worker.last_sign_s = time.monotonic()
        outbox = worker.child.outbox
        assert outbox is not None, "workers have one"
        outbox.put(frame)
        if not outbox.is_empty and outbox.handle not in self._selector.get_map():
            self._selector.register(outbox.handle, selectors.EVENT_WRITE, partial(self._flush, number))
        return True

    def _flush(self, number: int) -> None:
        worker = self._workers.get(number)
        if worker is None or worker.child.outbox is None:
            return
        worker.child.outbox.flush()
        if worker.child.outbox.is_empty:
            self._stop_watching(worker.child.outbox.handle)

    # -- taking back --------------------------------------------------------------------------------------

    def _has_said(self, number: int) -> None:
        if (worker := self._workers.get(number)) is not None:
            self._from_worker(worker, worker.child.inbox.take())

    def _has_ended(self, number: int) -> None:
        if (worker := self._workers.get(number)) is not None:
            self._worker_ended(number, worker)

    def _from_worker(self, worker: _Worker, frames: list[Frame]) -> None:
        for frame in frames:
            worker.last_sign_s = time.monotonic()
            if frame.number == ALIVE:
                worker.partial_bytes += frame.size_bytes
            elif frame.number == BEGUN:
                worker.has_begun = True
            elif frame.number == FAILED:
                raise StationError(*message.decode_words(frame.payload))
            else:
                worker.partial_bytes, worker.has_begun = 0, False
                worker.files += frame.files
                worker.size_bytes += frame.size_bytes
                self._deaths = 0
                self._desk.answered(worker.given.popleft(), frame.payload)
        if worker.child.inbox.is_closed:
            self._stop_watching(worker.child.inbox.handle)  # its sentinel tells the rest

    # -- deaths -------------------------------------------------------------------------------------------

    def _worker_ended(self, number: int, worker: _Worker) -> None:
        """Take what it had finished, replace it, and hand back what it had not."""
        self._from_worker(worker, worker.child.inbox.take_rest())
        del self._workers[number]
        self._unregister(worker.child)
        worker.child.release()
        self._deaths += 1
        if self._deaths > DEATHS_IN_A_ROW:
            raise StationError(
                f"{self._deaths} workers died one after the other without an answer",
                "Something kills them as they start: too little memory? What was committed stays valid.",
            )
        self._start_worker()
        first = worker.given.popleft() if worker.has_begun else None
        self._desk.take_back(worker.given)
        if first is not None:
            self._desk.killed(first)

    def look_after(self, now_s: float, stood_still: bool) -> None:
        self._look_for_silence(now_s, stood_still)
        self._look_for_waiting()

    def _look_for_silence(self, now_s: float, stood_still: bool) -> None:
        for number, worker in list(self._workers.items()):
            if stood_still:
                worker.last_sign_s = now_s
            elif worker.given and now_s - worker.last_sign_s > self._silence_s:
                worker.child.kill()
                self._worker_ended(number, worker)  # not by its sentinel: it may hang in the kernel

    def _look_for_waiting(self) -> None:
        """One at a time starts fast; where all wait for their reads, more of them wait at once."""
        at_work = [worker.child.process.pid for worker in self._workers.values() if worker.given]
        now_s, own_s = time.monotonic(), time.process_time()
        for _ in range(self._crew.missing(at_work, len(self._workers), self._desk.has_work, now_s, own_s)):
            self._start_worker()

    # -- processes ----------------------------------------------------------------------------------------

    def _start_worker(self) -> None:
        self._started += 1
        number = self._started
        child = self._reserve.take() if self._reserve is not None else None
        if child is None:
            child = start_worker(self._server)
        set_up(child, self._station, number)
        self._workers[number] = _Worker(child, time.monotonic())
        said, ended = partial(self._has_said, number), partial(self._has_ended, number)
        self._selector.register(child.inbox.handle, selectors.EVENT_READ, said)
        self._selector.register(child.process.sentinel, selectors.EVENT_READ, ended)

    def _unregister(self, child: Child) -> None:
        self._stop_watching(child.inbox.handle)
        self._stop_watching(child.process.sentinel)
        if child.outbox is not None:
            self._stop_watching(child.outbox.handle)

    def _stop_watching(self, handle: int) -> None:
        if handle in self._selector.get_map():
            self._selector.unregister(handle)


def _affordable(workers: int) -> int:
    """As many of them as there may be handles for (RLIMIT_NOFILE)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return workers
    return max(1, min(workers, (limit - HANDLES_OF_THE_REST) // HANDLES_PER_WORKER))
