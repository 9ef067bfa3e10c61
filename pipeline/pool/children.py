"""What runs in the child processes, and how they are started.

In: stations, named by their classes, and what they are told. Out: running children. They come from the fork
server; each has a pipe of its own in each direction, shared with no other child.
Guarantees: a child never outlives its parent: a thread watches a pipe whose other end only the parent holds.
Ctrl-C is the parent's matter. A child's last words (a traceback) reach the parent as a FAILED frame.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
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
from pipeline.pool.forkserver import starting_processes


class Station(NamedTuple):
    """A class of `pipeline.stages`, and the setup that its object in the child is made with.

    A walker is `kind(setup, send)`, with a method `walk()` that sends batches and returns at the end.
    A worker is `kind(setup, number, alive)`, with a method `process(payload)` that answers a batch with its
    results, its number of files and the bytes that it has read, and a static method `given_up(item, folder)`:
    the result of an item at which two workers have died. One that may rest has a method `close()`.
    """

    kind: Any
    setup: Any


def _prepare(lifeline: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    collect_seldom()
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()


def _die_with_parent(lifeline: Connection) -> None:
    os.read(lifeline.fileno(), 1)  # nothing is ever written: this returns when the parent is gone
    os._exit(1)


def _run_walker(station: Station, lifeline: Connection, outbox: Connection) -> None:
    """Sends numbered batches, then END. Closes nothing: the parent reads until END."""
    _prepare(lifeline)
    handle, number = outbox.fileno(), 0

    def send(payload: bytes, files: int, size_bytes: int) -> None:
        nonlocal number
        write_frame(handle, Frame(number, files, size_bytes, payload))
        number += 1

    try:
        station.kind(station.setup, send).walk()
        write_frame(handle, Frame(END, 0, number, b""))
    except BrokenPipeError:
        os._exit(1)  # the parent is gone
    except Exception as error:
        write_frame(handle, _last_words("the walk failed", error))


def _run_worker(lifeline: Connection, inbox: Connection, outbox: Connection) -> None:
    """Is told what to be, then takes batches until the parent closes the inbox; answers each under its
    number."""
    _prepare(lifeline)
    out = outbox.fileno()

    def alive(size_bytes: int) -> None:
        write_frame(out, Frame(ALIVE, 0, size_bytes, b""))

    worker: Any = None
    try:
        while (frame := read_frame(inbox.fileno())) is not None:
            if frame.number == SETUP:
                station, number = pickle.loads(frame.payload)
                worker = station.kind(station.setup, number, alive)
                continue
            if frame.number == REST:
                worker.close()
                worker = None
                continue
            write_frame(out, Frame(BEGUN, 0, 0, b""))
            payload, files, size_bytes = worker.process(frame.payload)
            write_frame(out, Frame(frame.number, files, size_bytes, payload))
    except BrokenPipeError:
        os._exit(1)  # the parent is gone
    except Exception as error:
        write_frame(out, _last_words("a worker failed", error))


def _last_words(what: str, error: Exception) -> Frame:
    """What the parent raises in the child's stead: a known error as it is, else with its traceback."""
    if isinstance(error, PipelineError):
        words = (error.cause, error.advice)
    else:
        words = (f"{what}:\n{traceback.format_exc()}", "")
    return Frame(FAILED, 0, 0, message.encode(words))


class Child(NamedTuple):
    """A running child as the parent sees it. outbox: None for a walker, which is told nothing more."""

    process: ForkServerProcess
    inbox: Inbox
    outbox: Outbox | None
    ends: tuple[Connection, ...]

    def kill(self) -> None:
        """At once: a child owns nothing that needs care."""
        self.process.kill()

    def release(self) -> None:
        """After its end: the parent's ends of its pipes are closed."""
        self.process.join(timeout=1)  # one that hangs in the kernel is left to it
        for end in self.ends:
            end.close()


def start_walker(context: ForkServerContext, station: Station) -> Child:
    with starting_processes():
        lifeline, lifeline_end = context.Pipe(duplex=False)
        results, results_end = context.Pipe(duplex=False)
        process = context.Process(target=_run_walker, args=(station, lifeline, results_end), daemon=True)
        process.start()
    lifeline.close()
    results_end.close()
    return Child(process, Inbox(results.fileno()), None, (results, lifeline_end))


def start_worker(context: ForkServerContext) -> Child:
    with starting_processes():
        lifeline, lifeline_end = context.Pipe(duplex=False)
        jobs_end, jobs = context.Pipe(duplex=False)
        results, results_end = context.Pipe(duplex=False)
        process = context.Process(target=_run_worker, args=(lifeline, jobs_end, results_end), daemon=True)
        process.start()
    for end in (lifeline, jobs_end, results_end):
        end.close()
    return Child(process, Inbox(results.fileno()), Outbox(jobs.fileno()), (results, jobs, lifeline_end))


def set_up(worker: Child, station: Station, number: int) -> None:
    """Tell a worker what it is from now on. number: one that no other worker of its line has or had."""
    assert worker.outbox is not None, "workers have one"
    worker.outbox.put(Frame(SETUP, 0, 0, pickle.dumps((station, number))))
