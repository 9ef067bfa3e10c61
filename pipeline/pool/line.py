"""The line: one walker (for a run, the scanner), many workers, results in the walker's order.

In: two stations. Out: the results of each batch, strictly in the order in which the walker sent them.
Guarantees: every batch is answered exactly once, also when workers die; what is in flight is bounded (the
window), and so is what waits to be put in order (promise 6); a dead or silent worker is replaced, and its
batches are given out again, the one that it was at file by file; a file that kills two workers becomes a
PROBLEM. Fails with StationError where the walker dies or falls silent, or no process can be started.

Who closes what: the walker ends by itself after its END frame; a worker ends when its inbox is closed;
`close` ends whatever still runs, or puts workers that have nothing left to do into the reserve. The parent
waits on all pipes and on the processes' sentinels together.
"""

from __future__ import annotations

import resource
import selectors
import time
from collections import deque
from collections.abc import Iterator

from pipeline.model import message
from pipeline.model.errors import StationError
from pipeline.model.message import Results
from pipeline.pool.channel import ALIVE, BEGUN, END, FAILED, Frame
from pipeline.pool.children import Child, Station, set_up, start_walker, start_worker
from pipeline.pool.crew import Crew, Size, busy_ns
from pipeline.pool.forkserver import ForkServer, starting_processes
from pipeline.pool.reserve import Reserve
from pipeline.pool.retry import Retry

BATCHES_PER_WORKER = 2
WAITING_BATCHES = 64
WINDOW_BATCHES = 64
SILENCE_S = 300.0
DEATHS_IN_A_ROW = 16
TICK_S = 0.2
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


class Line:
    """The running stations. Use it as a context manager, and iterate over `results`. size: of the crew.

    reserve: where workers are taken from and put back to, up to the crew's least size.
    """

    def __init__(
        self,
        server: ForkServer,
        walker: Station,
        worker: Station,
        size: Size,
        reserve: Reserve | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._server = server
        self._station = worker
        self._reserve = reserve
        self._silence_s = silence_s
        with starting_processes():  # too few handles
            self._selector = selectors.DefaultSelector()
        self._waiting: deque[Frame] = deque()  # from the walker, not yet given out
        self._done: dict[int, bytes] = {}  # answered, waiting for their turn
        self._retries: dict[int, Retry] = {}  # batches that are given out again file by file
        self._next = 0  # the batch whose turn it is
        self._total: int | None = None  # how many batches there are, once the walker has said END
        self._least, most = _affordable(size.least), _affordable(size.most)
        self._crew = Crew(most, time.monotonic(), busy_ns)
        self._window = WINDOW_BATCHES + 8 * most
        self._workers: dict[int, _Worker] = {}
        self._started = 0
        self._deaths = 0  # since a worker has last answered
        self.files_found = 0
        self._walker: Child | None = None
        self._walker_sign_s = self._looked_s = time.monotonic()
        try:
            self._walker = start_walker(server, walker)
            self._register(self._walker, "walker")
            for _ in range(self._least):
                self._start_worker()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def walk_has_ended(self) -> bool:
        return self._total is not None

    @property
    def bytes_in_progress(self) -> int:
        """Bytes read of files that are not yet answered."""
        return sum(worker.partial_bytes for worker in self._workers.values())

    def results(self) -> Iterator[Results | None]:
        """Each batch's results in scan order; None now and then, so that the caller can look around."""
        while self._total is None or self._next < self._total:
            self._give_out()
            for key, _ in self._selector.select(TICK_S):
                self._on_event(*key.data)
            self._look_for_silence()
            self._look_for_waiting()
            yield None
            while self._next in self._done:
                payload = self._done.pop(self._next)
                self._next += 1
                self._give_out()  # before the caller takes its time
                yield message.decode_results(payload)

    def close(self) -> None:
        """End what still runs. Nothing is lost by it: only the parent owns anything."""
        children = [worker.child for worker in self._workers.values() if not self._may_rest(worker)]
        if self._walker is not None:
            children.append(self._walker)
        for child in children:
            child.kill()
        for child in children:
            child.release()
        self._workers.clear()
        self._walker = None
        self._selector.close()

    def _may_rest(self, worker: _Worker) -> bool:
        """Whether it went into the reserve: not with anything given or said that nobody has taken."""
        is_done = self._total is not None and self._next >= self._total and not worker.given
        if self._reserve is None or not is_done or self._least <= 0 or worker.child.process.has_ended():
            return False
        self._least -= 1
        self._reserve.put(worker.child)
        return True

    # -- giving out ---------------------------------------------------------------------------------------

    def _give_out(self) -> None:
        """Hand waiting batches to the workers that have least to do, within the window."""
        while self._has_work():
            worker = min(self._workers.values(), key=lambda w: len(w.given))
            if len(worker.given) >= BATCHES_PER_WORKER:
                break
            frame = self._waiting.popleft()
            worker.given.append(frame)
            worker.last_sign_s = time.monotonic()
            assert worker.child.outbox is not None, "workers have one"
            worker.child.outbox.put(frame)
        self._watch_outboxes()
        self._listen_to_walker()

    def _watch_outboxes(self) -> None:
        for number, worker in self._workers.items():
            outbox = worker.child.outbox
            assert outbox is not None, "workers have one"
            watched = outbox.handle in self._selector.get_map()
            if outbox.is_empty:
                self._stop_watching(outbox.handle)
            elif not watched:
                self._selector.register(outbox.handle, selectors.EVENT_WRITE, ("outbox", number))

    @property
    def _is_listening(self) -> bool:
        return self._walker is not None and self._walker.inbox.handle in self._selector.get_map()

    def _listen_to_walker(self) -> None:
        """Only while there is room: a full pipe makes the walker wait."""
        if self._walker is None:
            return
        handle, listening = self._walker.inbox.handle, self._is_listening
        if listening and len(self._waiting) >= WAITING_BATCHES:
            self._selector.unregister(handle)
        elif not listening and len(self._waiting) < WAITING_BATCHES:
            self._walker_sign_s = time.monotonic()  # it may have waited for us
            self._selector.register(handle, selectors.EVENT_READ, ("walker", 0))

    # -- taking back --------------------------------------------------------------------------------------

    def _on_event(self, what: str, number: int) -> None:
        if what in ("walker", "walker ended"):
            if self._walker is None:
                return
            if what == "walker ended":
                self._walker_ended(self._walker)
            else:
                self._from_walker(self._walker.inbox.take())
        elif number in self._workers:
            worker = self._workers[number]
            if what == "worker":
                self._from_worker(worker, worker.child.inbox.take())
            elif what == "worker ended":
                self._worker_ended(number, worker)
            elif worker.child.outbox is not None:
                worker.child.outbox.flush()

    def _from_walker(self, frames: list[Frame]) -> None:
        self._walker_sign_s = time.monotonic()
        for frame in frames:
            if frame.number == END:
                self._total = frame.size_bytes
            elif frame.number == FAILED:
                raise StationError(*message.decode_words(frame.payload))
            else:
                self.files_found += frame.files
                self._waiting.append(frame)

    def _walker_ended(self, walker: Child) -> None:
        """Take what it had still sent; without END it was cut."""
        self._from_walker(walker.inbox.take_rest())
        if self._total is None:
            raise StationError(
                "the walk over the files was killed",
                "Nothing is lost by it: call the command again.",
            )
        self._unregister(walker)
        walker.release()
        self._walker = None

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
                self._deaths = 0
                self._answered(worker.given.popleft(), frame.payload)
        if worker.child.inbox.is_closed:
            self._stop_watching(worker.child.inbox.handle)  # its sentinel tells the rest

    def _answered(self, given: Frame, payload: bytes) -> None:
        retry = self._retries.get(given.number)
        if retry is None:
            self._done[given.number] = payload
            return
        retry.answered(payload)
        self._go_on_with(given.number, retry)

    # -- deaths -------------------------------------------------------------------------------------------

    def _worker_ended(self, number: int, worker: _Worker) -> None:
        """Take what it had finished, replace it, and give out again what it had not."""
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
        self._waiting.extendleft(reversed(worker.given))
        if first is not None:
            self._retry(first)

    def _retry(self, given: Frame) -> None:
        """The batch at which a worker died: file by file; a single file at which two died is given up."""
        retry = self._retries.get(given.number)
        if retry is None:
            retry = self._retries[given.number] = Retry(given, self._station.kind.given_up)
        else:
            retry.killed()
        self._go_on_with(given.number, retry)

    def _go_on_with(self, number: int, retry: Retry) -> None:
        frame = retry.next_frame()
        if frame is not None:
            self._waiting.appendleft(frame)
        else:
            del self._retries[number]
            self._done[number] = retry.results()

    def _look_for_silence(self) -> None:
        now_s = time.monotonic()
        stood_still_s, self._looked_s = now_s - self._looked_s, now_s
        if stood_still_s > max(self._silence_s / 10, 10 * TICK_S):
            self._walker_sign_s = now_s  # this process was stopped, or at something large: nobody was heard
            for worker in self._workers.values():
                worker.last_sign_s = now_s
        if self._is_listening and now_s - self._walker_sign_s > self._silence_s:
            raise StationError(
                f"the walk over the files gave no sign of life for {self._silence_s:.0f} s",
                "Does a disk or a network share not answer? What was committed stays valid.",
            )
        for number, worker in list(self._workers.items()):
            if worker.given and now_s - worker.last_sign_s > self._silence_s:
                worker.child.kill()
                self._worker_ended(number, worker)  # not by its sentinel: it may hang in the kernel

    def _look_for_waiting(self) -> None:
        """One at a time starts fast; where all wait for their reads, more of them wait at once."""
        at_work = [worker.child.process.pid for worker in self._workers.values() if worker.given]
        now_s, own_s = time.monotonic(), time.process_time()
        for _ in range(self._crew.missing(at_work, len(self._workers), self._has_work(), now_s, own_s)):
            self._start_worker()

    def _has_work(self) -> bool:
        return bool(self._waiting) and self._waiting[0].number < self._next + self._window

    # -- processes ----------------------------------------------------------------------------------------

    def _start_worker(self) -> None:
        self._started += 1
        number = self._started
        child = self._reserve.take() if self._reserve is not None else None
        if child is None:
            child = start_worker(self._server)
        set_up(child, self._station, number)
        self._workers[number] = _Worker(child, time.monotonic())
        self._register(child, "worker", number)

    def _register(self, child: Child, what: str, number: int = 0) -> None:
        self._selector.register(child.inbox.handle, selectors.EVENT_READ, (what, number))
        self._selector.register(child.process.sentinel, selectors.EVENT_READ, (f"{what} ended", number))

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
