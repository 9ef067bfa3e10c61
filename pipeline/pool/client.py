"""The client of a cluster, in a thread and an event loop of its own: what only `distributed` can do is here.

In: batches by their keys. Out: what there is to say, to `say`, from the thread. Guarantees: each worker is
asked for its proof before it gets anything, also one that comes later, and again when it is another process;
what a process without one has answered is thrown away. A worker of the first hour that can't be used ends the
run; one that comes later is told of once, and gets nothing while others are there. Ends with a
StationError where the scheduler can't be reached or is lost; nothing is printed by `distributed`.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from dask import config
from distributed import Client, Future
from distributed.scheduler import KilledWorker

import pipeline
from pipeline.model.errors import PipelineError, Problem, Severity, StationError
from pipeline.pool.remote import DONE, FAILED, REFUSED, TOPIC, by_value
from pipeline.stages.proof import Reply

CONNECT_S = 10.0
PROOF_S = 60.0
FORGET_S = 5.0
LOOK_S = 0.5
PATIENCE_S = 30.0
"""With a scheduler that has much to do."""
_TASK = "backup-batch"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_TALKATIVE = ("distributed", "dask", "tornado", "bokeh", "asyncio")
_LOST = "Nothing that was committed is lost. Start the cluster again, then run again: it goes on from there."
_MEND = "Mend it, or take this worker out of the cluster, then run again."


class RunElsewhere(NamedTuple):
    """What the workers are told first, in this order. token: names the run. place: its backup, which has
    one run at a time; a dry run, of which there may be several, has one of its own. setup: a `RemoteSetup`,
    pickled."""

    token: str
    place: str
    setup: bytes


class Answer(NamedTuple):
    key: str
    name: str
    payload: bytes
    files: int
    size_bytes: int


class Killed(NamedTuple):
    """Too many workers died while they had it."""

    key: str


class Sign(NamedTuple):
    """Of life, of whoever is at that batch. size_bytes: read since the last one."""

    key: str
    name: str
    size_bytes: int


class Crowd(NamedTuple):
    """The workers that can be used, and their threads together."""

    threads: int
    names: tuple[str, ...]


Said = Answer | Killed | Sign | Crowd | Problem | PipelineError


class ClusterClient:
    """refusal: asked, in any thread, why a reply proves nothing."""

    def __init__(
        self,
        address: str,
        run: RunElsewhere,
        refusal: Callable[[Reply], str | None],
        say: Callable[[Said], None],
    ) -> None:
        self._address = address
        self._run = run
        self._refusal_of = refusal
        self._say = say
        self._call, self._call_aside = by_value()
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._client: Client
        self._is_connected = False
        self._following: set[asyncio.Task[None]] = set()
        self._threads: dict[str, int] = {}
        self._asked: dict[str, asyncio.Future[str | None]] = {}  # by address: who has proved itself there
        self._proved: set[str] = set()
        self._refused: set[str] = set()
        self._crowd = Crowd(0, ())
        self._is_first_hour = True

    # -- called by the line's thread ----------------------------------------------------------------------

    def submit(self, key: str, payload: bytes) -> None:
        with suppress(RuntimeError):  # it has ended by itself, and has said why
            self._loop.call_soon_threadsafe(self._begin, key, payload)

    def give_up(self, cause: str) -> None:
        """Say who has what is not answered, and that it ends the run."""
        with suppress(RuntimeError):
            asyncio.run_coroutine_threadsafe(self._give_up(cause), self._loop)

    def stop(self) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)

    # -- the thread ---------------------------------------------------------------------------------------

    def run(self) -> None:
        _be_quiet()
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._work())
        except PipelineError as error:
            self._say(error)
        except Exception:
            self._say(StationError(f"the client of the cluster failed:\n{traceback.format_exc()}"))
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _work(self) -> None:
        """Until it is stopped, whatever it is waiting for."""
        serving = self._loop.create_task(self._serve())
        stopping = self._loop.create_task(self._stopping.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not serving.done():
            serving.cancel()
            await asyncio.wait({serving})
        try:
            if not serving.cancelled():
                serving.result()
            elif not self._stopping.is_set():
                raise self._lost()
        finally:
            if self._is_connected:
                await self._leave()

    async def _serve(self) -> None:
        self._client = await self._connected()
        self._is_connected = True
        self._client.subscribe_topic(TOPIC, self._hear)
        while not self._stopping.is_set():  # Python 3.11's `wait_for` may swallow that it is cancelled
            await self._look()
            await asyncio.sleep(LOOK_S)

    async def _connected(self) -> Client:
        config.set({"distributed.admin.low-level-log-length": 0})  # it would keep the last 1,000 batches
        address = self._address
        if "://" not in address:
            address = await asyncio.to_thread(_address_in, Path(address))
        client: Client | None = None
        try:
            client = Client(address, asynchronous=True, set_as_default=False, timeout=CONNECT_S)
            return await asyncio.wait_for(client, 2 * CONNECT_S)
        except Exception as error:  # of many types, as Dask tells of TLS
            if client is not None:
                with suppress(Exception):  # it isn't connected; why is told
                    await asyncio.wait_for(client.close(), FORGET_S)
            raise StationError(
                f"the scheduler at {self._address} can't be reached: {str(error) or repr(error)}",
                "Is it running, and is workers.address right?",
            ) from error

    async def _leave(self) -> None:
        waiting: list[asyncio.Future[Any]] = [*self._following, *self._asked.values()]
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        # Whatever fails in leaving: why the run ends is told already, and workers let go of it by themselves.
        if self._client.status == "running":
            with suppress(Exception):
                await asyncio.wait_for(self._aside("forget", self._run.token), FORGET_S)
        with suppress(Exception):
            await asyncio.wait_for(self._client.close(), FORGET_S)

    # -- the workers --------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Who has come and who has gone."""
        self._threads = await self._present()
        if self._client.status != "running":
            raise self._lost()
        for gone in self._asked.keys() - self._threads.keys():
            self._asked.pop(gone).cancel()
        new = [address for address in self._threads if address not in self._asked]
        for address in new:
            self._ask(address)
        if self._is_first_hour and new:
            await asyncio.gather(*(self._asked[address] for address in new))
        self._tell_crowd()
        self._is_first_hour = not self._crowd.names and self._is_first_hour

    async def _present(self) -> dict[str, int]:
        """The threads of each worker that is there now."""
        try:
            return dict(await asyncio.wait_for(self._client.nthreads(), PATIENCE_S))
        except (OSError, TimeoutError) as error:
            raise self._lost() from error

    def _tell_crowd(self) -> None:
        good = [address for address in self._threads if self._has_proved(address)]
        crowd = Crowd(sum(self._threads[address] for address in good), tuple(map(_short, good)))
        if crowd != self._crowd:
            self._crowd = crowd
            self._say(crowd)

    def _has_proved(self, address: str) -> bool:
        asked = self._asked.get(address)
        return asked is not None and asked.done() and not asked.cancelled() and asked.result() is not None

    def _ask(self, address: str) -> asyncio.Future[str | None]:
        asked = self._asked[address] = self._loop.create_task(self._prove(address))
        return asked

    async def _prove(self, address: str) -> str | None:
        """Who has proved itself there; None for a worker that can't be used."""
        refusal = await self._refusal(address)
        if isinstance(refusal, Reply):
            self._proved.add(refusal.who)
            return refusal.who
        if address in await self._present():  # else it has gone meanwhile
            self._refuse(address, refusal)
        return None

    async def _refusal(self, address: str) -> Reply | str:
        try:
            if (python := await self._python(address)) not in (_PYTHON, ""):
                return f"it has Python {python}, and this run has {_PYTHON}"
            asking = self._aside("prepare", *self._run, workers=[address])
            found = (await asyncio.wait_for(asking, PROOF_S)).get(address)
        except TimeoutError:
            return f"it has given no answer for {PROOF_S:.0f} s"
        except OSError as error:
            return f"it can't be reached: {error}"
        if not isinstance(found, tuple):
            return f"it can't answer: {found!r}"
        if found[0] != DONE:
            return str(found[-1])
        reply: Reply = pickle.loads(found[-1])
        if reply.who in self._proved:
            return reply
        return await asyncio.to_thread(self._refusal_of, reply) or reply

    async def _python(self, address: str) -> str:
        """Which one a worker has; empty where it doesn't say. Functions that go by value need the same."""
        scheduler = self._client.scheduler
        if scheduler is None:  # lost, which the next look tells
            return ""
        asking = scheduler.broadcast(msg={"op": "versions"}, workers=[address], on_error="ignore")
        found = (await asyncio.wait_for(asking, PROOF_S)).get(address)
        return ".".join(found["host"]["python"].split(".")[:2]) if found else ""

    def _refuse(self, address: str, cause: str) -> None:
        if self._is_first_hour:
            raise StationError(f"the worker {address} can't be used: {cause}", _MEND)
        if address not in self._refused:
            self._refused.add(address)
            self._say(Problem(Severity.WARNING, None, f"the worker {address} can't be used: {cause}"))

    def _aside(self, function: str, *arguments: object, workers: Iterable[str] | None = None) -> Any:
        return self._client.run(
            self._call_aside,
            pipeline.__version__,
            function,
            *arguments,
            workers=None if workers is None else list(workers),
            on_error="return",
        )

    # -- the batches --------------------------------------------------------------------------------------

    def _begin(self, key: str, payload: bytes) -> None:
        task = self._loop.create_task(self._follow(key, payload))
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _follow(self, key: str, payload: bytes) -> None:
        try:
            attempt = 0
            while (answer := await self._attempt(key, f"{key}-{attempt}", payload)) is None:
                attempt += 1
            self._say(answer)
        except KilledWorker:
            self._say(Killed(key))
        except PipelineError as error:
            self._say(error)
        except CancelledError:
            self._say(self._lost())
        except Exception as error:
            is_lost = self._client.status != "running"
            cause = f"a batch could not be given to the cluster: {error}"
            self._say(self._lost() if is_lost else StationError(cause, _MEND))

    async def _attempt(self, key: str, task: str, payload: bytes) -> Answer | None:
        """None where nobody who can be used has answered."""
        good = [address for address in self._threads if self._has_proved(address)]
        if not good:
            await asyncio.sleep(LOOK_S)
            return None
        among: dict[str, Any] = {}
        if self._refused & self._threads.keys():  # these only where none of the others is left
            among = {"workers": good, "allow_other_workers": True}
        future: Future[tuple[Any, ...]] = self._client.submit(
            self._call,
            pipeline.__version__,
            "hash_batch",
            self._run.token,
            key,
            payload,
            key=f"{_TASK}-{self._run.token}-{task}",
            pure=False,
            **among,
        )
        answer = await self._answered(future, good if among else [])
        if answer is None:
            return None
        what, address, *rest = answer
        if what == DONE:
            who, results, files, size_bytes = rest
            if who in self._proved or await self._ask_again(address) == who:
                return Answer(key, _short(address), results, files, size_bytes)
        elif what == FAILED:
            raise StationError(f"the worker {address}: {rest[0]}", rest[1])
        elif what == REFUSED:
            self._exclude(address, rest[0])
        else:
            await self._ask_again(address)
        await asyncio.sleep(LOOK_S)  # there may be nobody else for now
        return None

    async def _answered(self, future: Future[tuple[Any, ...]], among: list[str]) -> tuple[Any, ...] | None:
        """None where all that it was to be among have gone: Dask might leave it waiting for them for ever."""
        if not among:
            answer: tuple[Any, ...] = await future
            return answer
        answering: asyncio.Future[tuple[Any, ...]] = asyncio.ensure_future(future)
        while not (await asyncio.wait({answering}, timeout=LOOK_S))[0]:
            if self._threads and not self._threads.keys() & set(among):
                answering.cancel()
                return None
        return answering.result()

    async def _ask_again(self, address: str) -> str | None:
        """Another process than the one that was asked, or one that came a moment ago."""
        asked = self._asked.get(address)
        if asked is None or asked.done():
            asked = self._ask(address)
        await asyncio.wait({asked})  # it is cancelled where the worker has gone
        return None if asked.cancelled() else asked.result()

    def _exclude(self, address: str, cause: str) -> None:
        nobody = self._asked[address] = self._loop.create_future()
        nobody.set_result(None)
        self._refuse(address, cause)
        self._tell_crowd()

    def _hear(self, event: tuple[Any, dict[str, Any]]) -> None:
        said = event[1]
        if said.get("token") == self._run.token:
            self._say(Sign(said["key"], _short(said["address"]), said["size_bytes"]))

    async def _give_up(self, cause: str) -> None:
        held = "nobody knows where it is"
        with suppress(OSError, TimeoutError):
            tasks = await asyncio.wait_for(self._client.processing(), FORGET_S)
            ours = [address for address, keys in tasks.items() if any(map(self._is_ours, keys))]
            held = f"it is with {', '.join(ours)}" if ours else "no worker has it"
        self._say(StationError(f"{cause}: {held}", "Does a disk or a network share not answer there?"))

    def _is_ours(self, key: object) -> bool:
        return str(key).startswith(f"{_TASK}-{self._run.token}-")

    def _lost(self) -> StationError:
        return StationError(f"the scheduler at {self._address} is lost, or has dropped this run", _LOST)


def _address_in(file: Path) -> str:
    """The address that a scheduler has written there. Raises StationError."""
    try:
        found = orjson.loads(file.read_bytes())["address"]
        if not isinstance(found, str):
            raise TypeError("no address")
    except OSError as error:
        raise StationError(
            f"the scheduler file {file} can't be read: {error.strerror}",
            "Start the scheduler with --scheduler-file, or mend workers.address.",
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise StationError(
            f"the scheduler file {file} has no address in it",
            "Is its scheduler still starting? Then run again; or mend workers.address.",
        ) from error
    return found


def _short(address: str) -> str:
    return address.partition("://")[2] or address


def _be_quiet() -> None:
    """What `distributed` would print is for whoever runs the cluster; what matters of it is told by us."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _TALKATIVE]
    for logger in map(logging.getLogger, (*_TALKATIVE, *names)):
        kept = [handler for handler in logger.handlers if type(handler) is not logging.StreamHandler]
        logger.handlers[:] = [*kept, logging.NullHandler()]  # without any, it would be printed after all
        logger.propagate = False
    warnings.filterwarnings("ignore", module="distributed")
