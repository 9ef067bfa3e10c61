"""The engine of many machines: the batches go to the workers of a `dask.distributed` cluster.

In: frames from the line. Out: their answers. Guarantees: no result counts from a process that has not proved
that it sees the same sources and the same backup (`stages/proof.py`); what is in flight is bounded by the
threads that the cluster has at the moment; what a lost worker had is given to others by Dask, and where it
has lost too many over a batch, the batch goes back as deadly, and each of its files is then tried alone, so
that none is blamed for another. Fails with StationError where the scheduler is lost, where there are no
workers or no answers for too long, and where a worker of the first hour can't be used.

A thread of its own runs the client of the cluster. It and the line hand each other values: the line calls
into its event loop, which puts what it has to say into a queue and writes a byte into a pipe that the line's
selector waits on.
"""

from __future__ import annotations

import os
import pickle
import secrets
import selectors
import threading
from collections import Counter, deque
from typing import NamedTuple

from pipeline.model.errors import PipelineError, Problem, StationError
from pipeline.pool.channel import Frame
from pipeline.pool.client import Answer, ClusterClient, Crowd, Killed, RunElsewhere, Said, Sign
from pipeline.pool.forkserver import starting_processes
from pipeline.pool.hands import SILENCE_S, Desk, Tally
from pipeline.pool.retry import GivenUp
from pipeline.stages.proof import Prover
from pipeline.stages.remote_hasher import RemoteHasher, RemoteSetup
from pipeline.stages.setup import HashSetup

BATCHES_PER_THREAD = 4
WINDOW_BATCHES = 64
STUCK_S = SILENCE_S + 120.0
"""Without any answer. Dask itself takes five minutes to be sure that a worker is gone."""
_CLOSING_S = 20.0


class _Done(NamedTuple):
    files: int = 0
    size_bytes: int = 0


class Cluster:
    """address: of the scheduler, or the path of its file. staging: the handle of the backup's, None in a dry
    run. enters_mounts: whether what is mounted in the sources is looked at. silence_s, stuck_s: patience,
    without workers and without answers."""

    def __init__(
        self,
        address: str,
        hashing: HashSetup,
        staging: int | None,
        enters_mounts: bool,
        silence_s: float = SILENCE_S,
        stuck_s: float = STUCK_S,
    ) -> None:
        self.given_up: GivenUp = RemoteHasher.given_up
        self._address = address
        self._hashing, self._staging, self._enters_mounts = hashing, staging, enters_mounts
        self._silence_s, self._stuck_s = silence_s, stuck_s
        self._given: dict[str, Frame] = {}
        self._suspects: set[int] = set()  # batches that go file by file, each file alone
        self._is_one_alone = False
        self._attempts = 0
        self._crowd = Crowd(0, ())
        self._done: dict[str, _Done] = {}
        self._in_progress: dict[str, Sign] = {}  # by key, with all that was read so far
        self._sign_s: float | None = None
        self._has_given_up = False
        self._problems: list[Problem] = []
        self._said: deque[Said] = deque()
        self._selector: selectors.BaseSelector
        self._desk: Desk
        self._bell = self._ringer = -1
        self._prover: Prover | None = None
        self._client: ClusterClient
        self._thread: threading.Thread | None = None

    @property
    def window_batches(self) -> int:
        return WINDOW_BATCHES + 8 * self._crowd.threads

    @property
    def bytes_in_progress(self) -> int:
        return sum(sign.size_bytes for sign in self._in_progress.values())

    @property
    def is_waiting(self) -> bool:
        return not self._crowd.names

    def tallies(self) -> list[Tally]:
        reading = Counter[str]()
        for sign in self._in_progress.values():
            reading[sign.name] += sign.size_bytes
        done = ((name, self._done.get(name, _Done())) for name in self._crowd.names)
        return [Tally(name, one.files, one.size_bytes + reading[name]) for name, one in done]

    def take_problems(self) -> list[Problem]:
        problems, self._problems = self._problems, []
        return problems

    def start(self, selector: selectors.BaseSelector, desk: Desk) -> None:
        self._selector, self._desk = selector, desk
        prover = self._prover = Prover(self._hashing, self._staging, self._enters_mounts)
        with starting_processes():  # too few handles
            self._bell, self._ringer = os.pipe()
            os.set_blocking(self._bell, False)
            os.set_blocking(self._ringer, False)
            self._client = ClusterClient(self._address, self._run(prover), prover.refusal, self._say)
        selector.register(self._bell, selectors.EVENT_READ, self._hear)
        thread = threading.Thread(target=self._client.run, name="cluster", daemon=True)
        thread.start()
        self._thread = thread

    def _run(self, prover: Prover) -> RunElsewhere:
        """What the workers are told of it. They end an older run on the same backup, which was killed: else
        it would have the lock. A dry run shares its lock with others, and ends none of them."""
        token = secrets.token_hex(8)
        root = self._hashing.backup_root
        place = root if root is not None and self._staging is not None else f"dry run {token}"
        return RunElsewhere(token, place, pickle.dumps(RemoteSetup(self._hashing, prover.question)))

    def give(self, frame: Frame) -> bool:
        """A file that may be deadly is alone in the cluster: who dies then has died of it."""
        is_alone = frame.number in self._suspects
        if is_alone and self._given:
            return False
        if self._is_one_alone or len(self._given) >= BATCHES_PER_THREAD * self._crowd.threads:
            return False
        self._attempts += 1
        key = f"{frame.number}-{self._attempts}"
        self._given[key], self._is_one_alone = frame, is_alone
        self._client.submit(key, frame.payload)
        return True

    def look_after(self, now_s: float, stood_still: bool) -> None:
        if self._sign_s is None or stood_still or not (self._given or self._desk.has_work):
            self._sign_s = now_s
        silent_s = now_s - self._sign_s
        if self.is_waiting and silent_s > self._silence_s:
            raise StationError(
                f"the cluster at {self._address} has had no workers for {silent_s:.0f} s",
                "What was committed stays valid. Start workers, then run again: it goes on from there.",
            )
        if silent_s > self._stuck_s and not self._has_given_up:
            self._has_given_up = True
            self._client.give_up(f"the cluster at {self._address} has answered nothing for {silent_s:.0f} s")
        if silent_s > self._stuck_s + _CLOSING_S:
            raise StationError(f"the client of the cluster at {self._address} doesn't answer")

    def close(self, is_done: bool) -> None:
        """What is not answered is cancelled, and the workers forget the run."""
        if self._thread is not None:
            self._client.stop()
            self._thread.join(_CLOSING_S)
            if self._thread.is_alive():
                return  # a daemon, which goes with the process; it may still ring
            self._thread = None
        if self._prover is not None:
            self._prover.close()
        if self._bell >= 0:
            os.close(self._bell)
            os.close(self._ringer)
            self._bell = self._ringer = -1

    # -- what the client says -----------------------------------------------------------------------------

    def _say(self, said: Said) -> None:
        """Called in the client's thread."""
        self._said.append(said)
        try:
            os.write(self._ringer, b"\0")
        except BlockingIOError:
            return  # it is ringing already

    def _hear(self) -> None:
        os.read(self._bell, 1 << 16)
        while self._said:
            said = self._said.popleft()
            if isinstance(said, Sign):
                self._has_sign(said)
            elif isinstance(said, Problem):
                self._problems.append(said)
            elif isinstance(said, PipelineError):
                raise said
            elif isinstance(said, Crowd):
                if said.names and not self._crowd.names:
                    self._sign_s = None
                self._crowd = said
            else:
                self._ended(said)

    def _has_sign(self, said: Sign) -> None:
        if said.key not in self._given:
            return
        self._sign_s = None
        before = self._in_progress.get(said.key, said._replace(size_bytes=0))
        if before.name == said.name:  # else another one has begun anew
            said = said._replace(size_bytes=before.size_bytes + said.size_bytes)
        self._in_progress[said.key] = said

    def _ended(self, said: Answer | Killed) -> None:
        self._in_progress.pop(said.key, None)
        self._sign_s = None
        frame, self._is_one_alone = self._given.pop(said.key), False
        if isinstance(said, Killed):
            self._suspects.add(frame.number)
            self._desk.killed(frame)
            return
        before = self._done.get(said.name, _Done())
        self._done[said.name] = _Done(before.files + said.files, before.size_bytes + said.size_bytes)
        self._desk.answered(frame, said.payload)
