"""The client of a cluster, with one that is made up: whose results count, and who is asked for what (promises
3 and 7)."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from dask import config
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker
from harness import wait_until

from pipeline.model.errors import PipelineError, Problem, StationError
from pipeline.pool import client, remote
from pipeline.pool.client import Answer, Crowd, Killed, Said
from pipeline.stages.proof import Reply


class Worker:
    """A worker as it is to behave. who: its process. proof: `right`, or why it can't be used."""

    def __init__(self, who: str, proof: str = "right") -> None:
        self.who = who
        self.proof = proof
        self.python = ".".join(map(str, (*sys.version_info[:2], 99, "final", 0)))
        self.asked = 0

    def answer(self, function: str) -> tuple[Any, ...]:
        if function == "prepare":
            self.asked += 1
            return remote.DONE, "", pickle.dumps(Reply(self.who, refusal=None))
        return (remote.DONE,)


class Dask:
    """In the place of `distributed.Client`: a cluster that does what a test says. plan: who takes the next
    tasks, by address."""

    status = "running"

    def __init__(self, workers: dict[str, Worker], plan: list[str]) -> None:
        self.workers = workers
        self.plan = plan
        self.among: list[list[str] | None] = []

    def __call__(self, *_: object, **__: object) -> Dask:
        return self

    def __await__(self) -> Generator[Any, None, Dask]:
        yield from asyncio.sleep(0).__await__()
        return self

    @property
    def scheduler(self) -> Dask:
        return self

    async def broadcast(self, msg: dict[str, str], workers: list[str], on_error: str) -> dict[str, Any]:
        assert (msg, on_error) == ({"op": "versions"}, "ignore")
        return {address: {"host": {"python": self.workers[address].python}} for address in workers}

    def subscribe_topic(self, topic: str, handler: object) -> None:
        """Nobody tells anything."""

    async def nthreads(self) -> dict[str, int]:
        if "lost" in self.workers:
            raise CommClosedError
        return dict.fromkeys(self.workers, 1)

    async def run(self, _: object, version: str, function: str, *rest: object, **how: Any) -> dict[str, Any]:
        if any(worker.proof == "gone" for worker in self.workers.values()):
            self.workers["lost"] = Worker("")
            raise CommClosedError
        return {address: self.workers[address].answer(function) for address in how["workers"] or self.workers}

    async def submit(self, *words: Any, **how: Any) -> tuple[Any, ...]:
        self.among.append(how.get("workers"))
        address = self.plan.pop(0)
        if address == "they leave":
            self.workers.pop("a")
            self.workers["c"] = Worker("3")
        if address in ("never", "they leave"):
            await asyncio.sleep(3600)
        if address == "deadly":
            raise KilledWorker("task", None, 1)
        worker = self.workers[address]
        if not worker.asked:
            return remote.UNKNOWN, address
        if worker.proof == "elsewhere":
            return remote.REFUSED, address, "another disk"
        if worker.proof == "fails":
            return remote.FAILED, address, "a disk is gone", "Is it mounted?"
        return remote.DONE, address, worker.who, b"payload", 1, 2

    async def processing(self) -> dict[str, tuple[str, ...]]:
        return {"a": ("another's",), "b": ("backup-batch-t-0-1-0",)}

    async def close(self) -> None:
        self.status = "closed"


def told_by(
    monkeypatch: pytest.MonkeyPatch,
    workers: dict[str, Worker],
    plan: list[str],
    then: Callable[[list[Said]], object] = lambda said: None,
    gives_up: bool = False,
) -> tuple[list[Said], Dask]:
    """What a client says of one batch, to its answer or its error. then: before the batch is given."""
    dask, said = Dask(workers, plan), []
    monkeypatch.setattr(client, "Client", dask)
    monkeypatch.setattr(client, "LOOK_S", 0.01)
    accepted: set[str] = set()
    by_who = {worker.who: worker.proof for worker in workers.values()}
    is_there, is_over = threading.Event(), threading.Event()

    def say(one: Said) -> None:
        said.append(one)
        if isinstance(one, Crowd):
            is_there.set()
        if isinstance(one, Answer | Killed | PipelineError):
            is_there.set()
            is_over.set()

    def refusal(reply: Reply) -> str | None:
        if reply.who in accepted:
            return "its answer was taken away"
        accepted.add(reply.who)
        now = {worker.who: worker.proof for worker in dask.workers.values()}
        return None if {**by_who, **now}.get(reply.who) in ("right", "elsewhere", "fails") else "no proof"

    made = client.ClusterClient("tcp://host:1", client.RunElsewhere("t", "p", b""), refusal, say)
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    assert is_there.wait(10)
    then(said)
    made.submit("0-1", b"batch")
    if gives_up:
        made.give_up("no answer")
    assert is_over.wait(10)
    made.stop()
    thread.join(10)
    assert not thread.is_alive() and dask.status == "closed"
    return said, dask


@pytest.mark.parametrize(
    "content", [None, b"", b'{"type": "Scheduler", "addr', b"[1]", b"{}", b'{"address": 5}']
)
def test_a_file_that_names_no_scheduler(tmp_path: Path, content: bytes | None) -> None:
    """Not there, half written, or another file: an error in words, with its name."""
    file = tmp_path / "scheduler.json"
    if content is not None:
        file.write_bytes(content)
    said: list[Said] = []
    client.ClusterClient(str(file), client.RunElsewhere("t", "p", b""), lambda _: None, said.append).run()
    [error] = said
    assert isinstance(error, StationError) and f"the scheduler file {file} " in error.cause
    assert len(error.cause.splitlines()) == 1


def test_dask_keeps_no_messages_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself it would keep the last 1,000 batches, for who looks for a fault in it (promise 6)."""
    with config.set({"distributed.admin.low-level-log-length": 1000}):
        told_by(monkeypatch, {"a": Worker("1")}, ["a"])
        assert config.get("distributed.admin.low-level-log-length") == 0


def test_whatever_dask_says_of_an_address_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(client, "Client", refuse)
    said: list[Said] = []
    client.ClusterClient("tcp://a:1", client.RunElsewhere("t", "p", b""), lambda _: None, said.append).run()
    [error] = said
    assert isinstance(error, StationError)
    assert error.cause == "the scheduler at tcp://a:1 can't be reached: AssertionError()"


ANSWER = Answer("0-1", "a", b"payload", 1, 2)


def test_a_worker_of_the_first_hour_that_can_not_be_used_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said, _ = told_by(monkeypatch, {"a": Worker("1"), "b": Worker("2", "wrong")}, [])
    assert str(said[0]) == f"the worker b can't be used: no proof\n{client._MEND}"
    assert not any(isinstance(one, Crowd) for one in said), "nobody gets anything"


def test_a_scheduler_that_is_lost_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the middle of the proofs."""
    said, _ = told_by(monkeypatch, {"a": Worker("1", "gone")}, [])
    assert str(said[0]).startswith("the scheduler at tcp://host:1 is lost")


def test_another_python_is_sent_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes by value would crash there, or worse."""
    worker = Worker("1")
    worker.python = "4.5.6.final.0"
    said, _ = told_by(monkeypatch, {"a": worker}, [])
    here = ".".join(map(str, sys.version_info[:2]))
    assert str(said[0]).startswith(
        f"the worker a can't be used: it has Python 4.5, and this run has {here}\n"
    )
    assert not worker.asked


def test_no_result_counts_without_a_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has answered that nobody has asked yet waits for its proof; where that is no proof, the
    batch is done by others, and the worker is told of once."""
    workers = {"a": Worker("1")}
    said, dask = told_by(monkeypatch, workers, ["a"])
    assert said[-1] == ANSWER and workers["a"].asked == 1
    workers = {"a": Worker("1")}
    said, dask = told_by(
        monkeypatch, workers, ["a"], lambda _: setattr(workers["a"], "who", "another process")
    )
    assert said[-1] == ANSWER and workers["a"].asked == 2
    workers = {"a": Worker("1")}
    late = {"b": Worker("2", "wrong")}
    said, dask = told_by(monkeypatch, workers, ["b", "b", "a"], lambda _: workers.update(late))
    assert said[-1] == ANSWER
    problems = [one for one in said if isinstance(one, Problem)]
    assert [one.cause for one in problems] == ["the worker b can't be used: no proof"]
    assert dask.among[-1] == ["a"], "nobody else is asked for"


def test_a_process_that_was_away_for_a_moment_is_asked_for_no_second_proof(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has lost its scheduler and found it again; what it has proved still holds."""
    workers = {"a": Worker("1")}

    def leave_and_come_back(said: list[Said]) -> None:
        worker = workers.pop("a")
        assert wait_until(lambda: said[-1] == Crowd(0, ()))
        workers["a"] = worker
        assert wait_until(lambda: said[-1] == Crowd(1, ("a",)))

    said, _ = told_by(monkeypatch, workers, ["a"], leave_and_come_back)
    assert said[-1] == ANSWER and not any(isinstance(one, Problem) for one in said)


def test_who_can_not_see_a_batch_leaves_it_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    said, dask = told_by(monkeypatch, {"a": Worker("1"), "b": Worker("2", "elsewhere")}, ["b", "a"])
    assert said[-1] == ANSWER and dask.among == [None, ["a"]]
    assert any(isinstance(one, Problem) and "another disk" in one.cause for one in said)
    assert Crowd(1, ("a",)) in said


def test_what_waits_for_those_who_have_gone_is_given_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask leaves a task that was for certain workers waiting for them, where nobody was there for a
    moment."""
    workers = {"a": Worker("1"), "b": Worker("2", "elsewhere")}
    said, dask = told_by(monkeypatch, workers, ["b", "they leave", "c"])
    assert ANSWER._replace(name="c") in said and dask.among[:2] == [None, ["a"]]


def test_what_fails_on_a_worker_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its address, and the advice of the error itself."""
    said, _ = told_by(monkeypatch, {"a": Worker("1", "fails")}, ["a"])
    assert str(said[-1]) == "the worker a: a disk is gone\nIs it mounted?"


def test_who_has_what_is_not_answered_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that doesn't answer on one machine holds up the whole run; that machine has to be known."""
    said, _ = told_by(monkeypatch, {"a": Worker("1")}, ["never"], gives_up=True)
    assert str(said[-1]) == "no answer: it is with b\nDoes a disk or a network share not answer there?"


def test_a_batch_that_has_killed_too_many_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    said, _ = told_by(monkeypatch, {"a": Worker("1")}, ["deadly"])
    assert said[-1] == Killed("0-1")
