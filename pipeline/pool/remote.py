"""A worker of a cluster: what this package does in a process that another one has started.

In: plain arguments; all that has a form of its own comes as bytes, and is opened once the versions are known
to be the same. Out: plain tuples, their first word says what they are. Guarantees: no batch is looked at by
a process that has not answered the proof's question of its run; each thread has a hasher of its own; nothing
of a run stays open once it is forgotten, once a newer one on the same backup begins, or when nothing has come
of it for ten minutes (it was killed; one that was only slow is asked for its proof again).

`call` and `call_aside` are sent by value, so that they also run where this package is another one, or
missing.
"""

from __future__ import annotations

import pickle
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pipeline.model.errors import PipelineError
from pipeline.stages.proof import Reply, in_words
from pipeline.stages.remote_hasher import Elsewhere, Here, RemoteHasher, settle_here

TOPIC = "backup-pipeline"
DONE, REFUSED, FOREIGN, FAILED = "done", "refused", "foreign", "failed"
"""The results of a batch; it can't be seen there; another version; the run has to end."""

IDLE_S = 600.0
_SIGN_S = 1.0
_lock = threading.Lock()
_runs: dict[str, _Run] = {}
_forgotten: deque[str] = deque(maxlen=1000)


def by_value() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`call` for a task, `call_aside` for what is asked beside the tasks."""

    def call(version: str, function: str, *arguments: object) -> tuple[Any, ...]:
        try:
            from distributed import get_worker

            here = get_worker().address
        except (ImportError, ValueError):  # beside the tasks
            here = ""
        try:
            import pipeline
        except ImportError as error:
            return "foreign", here, f"it can't load this package: {error}"
        if (found := getattr(pipeline, "__version__", "unknown")) != version:
            return "foreign", here, f"it has version {found} of this package, and this run has {version}"
        from pipeline.pool import remote

        answer: tuple[Any, ...] = getattr(remote, function)(*arguments)
        return answer

    async def call_aside(version: str, function: str, *arguments: object) -> tuple[Any, ...]:
        import asyncio

        return await asyncio.to_thread(call, version, function, *arguments)

    return call, call_aside


class _Run:
    """What a process keeps of a run. place: its backup; a newer run there ends this one."""

    def __init__(self, token: str, place: str, reply: Reply, here: Here) -> None:
        self.token = token
        self.place = place
        self.reply = reply
        self.here = here
        self._free: list[tuple[RemoteHasher, _Signs]] = []
        self._busy = 0
        self._used_s = time.monotonic()
        self._over = threading.Event()

    def process(self, key: str, payload: bytes) -> tuple[bytes, int, int]:
        with _lock:
            self._busy += 1
            hasher, signs = self._free.pop() if self._free else (None, _Signs(self.token))
        try:
            if hasher is None:
                hasher = RemoteHasher(self.here, secrets.randbits(48), signs.alive)
            signs.begin(key)
            return hasher.process(payload)
        finally:
            self._put_back(hasher, signs)

    def _put_back(self, hasher: RemoteHasher | None, signs: _Signs) -> None:
        with _lock:
            self._busy -= 1
            self._used_s = time.monotonic()
            is_over = self._over.is_set()
            if hasher is not None and not is_over:
                self._free.append((hasher, signs))
        if hasher is not None and is_over:
            hasher.close()

    def end(self) -> None:
        with _lock:
            self._over.set()
            free, self._free = self._free, []
        for hasher, _ in free:
            hasher.close()

    def end_when_idle(self) -> None:
        """In a thread of its own."""
        while not self._over.wait(IDLE_S):
            with _lock:
                is_idle = not self._busy and time.monotonic() - self._used_s >= IDLE_S
                if is_idle:
                    _runs.pop(self.token, None)
            if is_idle:
                self.end()


class _Signs:
    """Signs of life of a thread that is at a large file, not too many of them."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._key = ""
        self._size_bytes = 0
        self._told_s = 0.0

    def begin(self, key: str) -> None:
        self._key, self._size_bytes, self._told_s = key, 0, time.monotonic()

    def alive(self, size_bytes: int) -> None:
        from distributed import get_worker

        self._size_bytes += size_bytes
        if time.monotonic() - self._told_s >= _SIGN_S:
            worker = get_worker()
            said = {"token": self._token, "key": self._key, "address": worker.address}
            worker.log_event(TOPIC, {**said, "size_bytes": self._size_bytes})
            self._size_bytes, self._told_s = 0, time.monotonic()


def prepare(token: str, place: str, setup: bytes) -> tuple[str, str, bytes]:
    """The reply to the proof's question, pickled; the same one however often it is asked for."""
    return DONE, "", pickle.dumps(_known(token, place, setup)[0])


def hash_batch(token: str, place: str, setup: bytes, key: str, payload: bytes) -> tuple[Any, ...]:
    """What has answered and where, and the results with their files and bytes; or why there are none."""
    from distributed import get_worker

    address = get_worker().address
    try:
        reply, run = _known(token, place, setup)
        if run is None:
            return REFUSED, address, reply.refusal
        return DONE, address, reply.who, *run.process(key, payload)
    except Elsewhere as error:
        return REFUSED, address, str(error)
    except PipelineError as error:
        return FAILED, address, error.cause, error.advice
    except OSError as error:
        return FAILED, address, in_words(error), ""
    except Exception:
        import traceback

        return FAILED, address, f"a worker failed:\n{traceback.format_exc()}", ""


def forget(token: str) -> tuple[str]:
    """The run is over: what it had open is closed, and what it still has waiting is refused."""
    with _lock:
        _forgotten.append(token)
        run = _runs.pop(token, None)
    if run is not None:
        run.end()
    return (DONE,)


def _known(token: str, place: str, setup: bytes) -> tuple[Reply, _Run | None]:
    """What this process keeps of a run. A refusal isn't kept: it is asked anew each time."""
    with _settling:
        with _lock:
            run = _runs.get(token)
            if run is not None:
                return run.reply, run
            if token in _forgotten:
                return Reply("", refusal="the run is over"), None
        reply, here = settle_here(pickle.loads(setup))
        if here is None:  # it may be about a place of another machine, and ends nobody's run here
            return reply, None
        run = _Run(token, place, reply, here)
        with _lock:
            older = [known for known, one in _runs.items() if one.place == place]
            _runs[token] = run
        for known in older:
            forget(known)
        threading.Thread(target=run.end_when_idle, name="idle", daemon=True).start()
        return reply, run


_settling = threading.Lock()
"""Held while a question is answered, so that a process does it once."""
