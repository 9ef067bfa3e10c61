"""The line: one walker (for a run, the scanner), those who take its batches, results in the walker's order.

In: a station that walks, and an engine (`pool.hands`). Out: the results of each batch, strictly in the
order in which the walker sent them. Guarantees: every batch is answered exactly once, also when workers die;
what is in flight is bounded (the window), and so is what waits to be put in order (promise 6); the batch at
which a worker died is given out again file by file, and a file that kills a second time becomes a PROBLEM.
Fails with StationError where the walker dies or falls silent, or no process can be started.

Who closes what: the walker ends by itself after its END frame; `close` ends whatever still runs. The parent
waits on all pipes and on the processes' sentinels together.
"""

from __future__ import annotations

import selectors
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from pipeline.model import message
from pipeline.model.errors import Problem, StationError
from pipeline.model.message import Results
from pipeline.model.report import WorkerRate
from pipeline.pool.channel import END, FAILED, Frame
from pipeline.pool.children import Child, Station, start_walker
from pipeline.pool.forkserver import ForkServer, starting_processes
from pipeline.pool.hands import SILENCE_S, Hands, Rates
from pipeline.pool.retry import Retry

WAITING_BATCHES = 64
TICK_S = 0.2


class Line:
    """The running stations. Use it as a context manager, and iterate over `results`."""

    def __init__(
        self, server: ForkServer, walker: Station, hands: Hands, silence_s: float = SILENCE_S
    ) -> None:
        self._hands = hands
        self._silence_s = silence_s
        with starting_processes():  # too few handles
            self._selector = selectors.DefaultSelector()
        self._waiting: deque[Frame] = deque()  # from the walker, not yet given out
        self._done: dict[int, bytes] = {}  # answered, waiting for their turn
        self._retries: dict[int, Retry] = {}  # batches that are given out again file by file
        self._next = 0  # the batch whose turn it is
        self._total: int | None = None  # how many batches there are, once the walker has said END
        self._rates = Rates()
        self.files_found = 0
        self._walker: Child | None = None
        self._walker_sign_s = self._looked_s = time.monotonic()
        try:
            self._walker = start_walker(server, walker)
            self._selector.register(self._walker.inbox.handle, selectors.EVENT_READ, self._hear_walker)
            self._selector.register(self._walker.process.sentinel, selectors.EVENT_READ, self._walker_ended)
            hands.start(self._selector, self)
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
        return self._hands.bytes_in_progress

    @property
    def is_waiting(self) -> bool:
        """Whether there is nobody who could do anything, for now."""
        return self._hands.is_waiting

    def workers(self) -> tuple[WorkerRate, ...]:
        """Who is at work, and how fast."""
        return self._rates.now(self._hands.tallies(), time.monotonic())

    def take_problems(self) -> Sequence[Problem]:
        """What people must know of those who take the batches, once."""
        return self._hands.take_problems()

    def results(self) -> Iterator[Results | None]:
        """Each batch's results in scan order; None now and then, so that the caller can look around."""
        while self._total is None or self._next < self._total:
            self._give_out()
            for key, _ in self._selector.select(TICK_S):
                key.data()
            self._look_around()
            yield None
            while self._next in self._done:
                payload = self._done.pop(self._next)
                self._next += 1
                self._give_out()  # before the caller takes its time
                yield message.decode_results(payload)

    def close(self) -> None:
        """End what still runs. Nothing is lost by it: only the parent owns anything."""
        walker, self._walker = self._walker, None
        if walker is not None:
            walker.kill()
        self._hands.close(is_done=self._total is not None and self._next >= self._total)
        if walker is not None:
            walker.release()
        self._selector.close()

    # -- giving out ---------------------------------------------------------------------------------------

    def _give_out(self) -> None:
        """Hand waiting batches to those who have room, within the window."""
        while self.has_work and self._hands.give(self._waiting[0]):
            self._waiting.popleft()
        self._listen_to_walker()

    @property
    def has_work(self) -> bool:
        return bool(self._waiting) and self._waiting[0].number < self._next + self._hands.window_batches

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
            self._selector.register(handle, selectors.EVENT_READ, self._hear_walker)

    # -- the walker ---------------------------------------------------------------------------------------

    def _hear_walker(self) -> None:
        if self._walker is not None:
            self._from_walker(self._walker.inbox.take())

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

    def _walker_ended(self) -> None:
        """Take what it had still sent; without END it was cut."""
        walker = self._walker
        if walker is None:
            return
        self._from_walker(walker.inbox.take_rest())
        if self._total is None:
            raise StationError(
                "the walk over the files was killed",
                "Nothing is lost by it: call the command again.",
            )
        for handle in (walker.inbox.handle, walker.process.sentinel):
            if handle in self._selector.get_map():
                self._selector.unregister(handle)
        walker.release()
        self._walker = None

    def _look_around(self) -> None:
        """Who gives no sign of life; unless it is this process that could hear nobody."""
        now_s = time.monotonic()
        stood_still = now_s - self._looked_s > max(self._silence_s / 10, 10 * TICK_S)
        self._looked_s = now_s
        if stood_still:
            self._walker_sign_s = now_s  # this process was stopped, or at something large
        elif self._is_listening and now_s - self._walker_sign_s > self._silence_s:
            raise StationError(
                f"the walk over the files gave no sign of life for {self._silence_s:.0f} s",
                "Does a disk or a network share not answer? What was committed stays valid.",
            )
        self._hands.look_after(now_s, stood_still)

    # -- the desk, as those who take the batches see it ---------------------------------------------------

    def answered(self, frame: Frame, payload: bytes) -> None:
        retry = self._retries.get(frame.number)
        if retry is None:
            self._done[frame.number] = payload
            return
        retry.answered(payload)
        self._go_on_with(frame.number, retry)

    def take_back(self, frames: Iterable[Frame]) -> None:
        self._waiting.extendleft(reversed(list(frames)))

    def killed(self, frame: Frame) -> None:
        """The batch at which a worker died: file by file; a single file at which two died is given up."""
        retry = self._retries.get(frame.number)
        if retry is None:
            retry = self._retries[frame.number] = Retry(frame, self._hands.given_up)
        else:
            retry.killed()
        self._go_on_with(frame.number, retry)

    def _go_on_with(self, number: int, retry: Retry) -> None:
        frame = retry.next_frame()
        if frame is not None:
            self._waiting.appendleft(frame)
        else:
            del self._retries[number]
            self._done[number] = retry.results()
