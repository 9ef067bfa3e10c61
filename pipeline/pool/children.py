"""What runs in the child processes, and how they are started.

In: stations, named by their classes, and what they are told. Out: running children. They come from the fork
server; each has a pipe of its own in each direction, shared with no other child.
Guarantees: a child never outlives its parent: a thread watches a pipe whose other end only the parent holds.
Ctrl-C is the parent's matter. A child's last words (a traceback) reach the parent as a FAILED frame.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pipeline.model import message
from pipeline.model.errors import PipelineError
from pipeline.pool.channel import (
    ALIVE,
    BEGUN,
    END,
    FAILED,
    REST,
    SETUP,
    Frame,
    Inbox,
    Outbox,
    read_frame,
    write_frame,
)
from pipeline.pool.collecting import collect_seldom
from pipeline.pool.forkserver import ForkServer, Process, starting_processes


class Station(NamedTuple):
    """A class of `pipeline.stages`, and the setup that its object in the child is made with.

    A walker is `kind(setup, send)`, with a method `walk()` that sends batches and returns at the end.
    A worker is `kind(setup, number, alive)`, with a method `process(payload)` that answers a batch with its
    results, its number of files and the bytes that it has read, and a static method `given_up(item, folder)`:
    the result of an item at which two workers have died. One that may rest has a method `close()`.
    """

    kind: Any
    setup: Any


def _prepare(lifeline: int) -> None:
    """What stops the run is the parent's matter: the fork server's children are born ignoring it."""
    collect_seldom()
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()


def _die_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)  # nothing is ever written: this returns when the parent is gone
    os._exit(1)


def _run_walker(station: Station, lifeline: int, outbox: int) -> None:
    """Sends numbered batches, then END. Closes nothing: the parent reads until END."""
    _prepare(lifeline)
    number = 0

    def send(payload: bytes, files: int, size_bytes: int) -> None:
        nonlocal number
        write_frame(outbox, Frame(number, files, size_bytes, payload))
        number += 1

    try:
        station.kind(station.setup, send).walk()
        write_frame(outbox, Frame(END, 0, number, b""))
    except BrokenPipeError:
        os._exit(1)  # the parent is gone
    except Exception as error:
        write_frame(outbox, _last_words("the walk failed", error))


def _run_worker(lifeline: int, inbox: int, outbox: int) -> None:
    """Is told what to be, then takes batches until the parent closes the inbox; answers each under its
    number."""
    _prepare(lifeline)

    def alive(size_bytes: int) -> None:
        write_frame(outbox, Frame(ALIVE, 0, size_bytes, b""))

    worker: Any = None
    try:
        while (frame := read_frame(inbox)) is not None:
            if frame.number == SETUP:
                station, number = pickle.loads(frame.payload)
                worker = station.kind(station.setup, number, alive)
                continue
            if frame.number == REST:
                worker.close()
                worker = None
                continue
            write_frame(outbox, Frame(BEGUN, 0, 0, b""))
            payload, files, size_bytes = worker.process(frame.payload)
            write_frame(outbox, Frame(frame.number, files, size_bytes, payload))
    except BrokenPipeError:
        os._exit(1)  # the parent is gone
    except Exception as error:
        write_frame(outbox, _last_words("a worker failed", error))


def _last_words(what: str, error: Exception) -> Frame:
    """What the parent raises in the child's stead: a known error as it is, else with its traceback."""
    if isinstance(error, PipelineError):
        words = (error.cause, error.advice)
    else:
        import traceback

        words = (f"{what}:\n{traceback.format_exc()}", "")
    return Frame(FAILED, 0, 0, message.encode(words))


class Child(NamedTuple):
    """A running child as the parent sees it. outbox: None for a walker, which is told nothing more.

    lifeline: the end that only the parent holds.
    """

    process: Process
    lifeline: int
    inbox: Inbox
    outbox: Outbox | None

    def kill(self) -> None:
        """At once: a child owns nothing that needs care."""
        self.process.kill()

    def release(self) -> None:
        """After its end: the parent's ends of its pipes are closed."""
        self.process.has_ended(within_s=1)  # one that hangs in the kernel is left to it
        for handle in (self.process.sentinel, self.lifeline, self.inbox.handle):
            os.close(handle)
        if self.outbox is not None:
            os.close(self.outbox.handle)


def start_walker(server: ForkServer, station: Station) -> Child:
    process, (lifeline, results) = _start(server, _run_walker, (station,), child_reads=(True, False))
    return Child(process, lifeline, Inbox(results), None)


def start_worker(server: ForkServer) -> Child:
    process, (lifeline, jobs, results) = _start(server, _run_worker, (), child_reads=(True, True, False))
    return Child(process, lifeline, Inbox(results), Outbox(jobs))


def _start(
    server: ForkServer,
    run: Callable[..., None],
    arguments: tuple[object, ...],
    child_reads: Sequence[bool],
) -> tuple[Process, list[int]]:
    """A child with pipes of its own, and the ends of them that stay here. child_reads: for each pipe, whether
    it is read there and written here."""
    ours: list[int] = []
    theirs: list[int] = []
    try:
        with starting_processes():
            for is_read_there in child_reads:
                reading, writing = os.pipe()
                theirs.append(reading if is_read_there else writing)
                ours.append(writing if is_read_there else reading)
            return server.start(run, arguments, theirs), ours
    except BaseException:
        for handle in ours:
            os.close(handle)
        raise
    finally:
        for handle in theirs:
            os.close(handle)


def set_up(worker: Child, station: Station, number: int) -> None:
    """Tell a worker what it is from now on. number: one that no other worker of its line has or had."""
    assert worker.outbox is not None, "workers have one"
    worker.outbox.put(Frame(SETUP, 0, 0, pickle.dumps((station, number))))
