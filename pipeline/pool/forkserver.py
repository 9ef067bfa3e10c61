"""Starts the fork server that all children come from. Light, so that it can be the first thing a run does.

The fork server is started before the parent opens anything, so that children inherit neither its database nor
its threads; it loads the stations' modules while the parent is still loading its own. Fails with
StationError.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext

from pipeline.model.errors import StationError

_CHILDREN = "pipeline.pool.children"
_STOPPING = (signal.SIGINT, signal.SIGTERM)
BACKING_UP = ("pipeline.stages.scanner", "pipeline.stages.hasher")
RESTORING = ("pipeline.stages.lister", "pipeline.stages.restorer")
VERIFYING = ("pipeline.stages.lister", "pipeline.stages.verifier")
REBUILDING = ("pipeline.stages.stored_tree",)
"""The modules of the stations of each line."""


def start_fork_server(*stations: str) -> ForkServerContext:
    """The context that starts children. stations: modules that they will need.

    Calling it again finds the server running.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_CHILDREN, *stations])
    resource_tracker.ensure_running()  # on its own, since it unblocks signals
    # Its end would look like the end of all children; so what stops the run (Ctrl-C, SIGTERM to the whole
    # group) must leave it alone. Being ignored is inherited, by the children too. What comes meanwhile
    # waits.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _STOPPING}
    try:
        with starting_processes():
            forkserver.ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return context


@contextmanager
def starting_processes() -> Iterator[None]:
    """Where a process can't be started, the run can't go on: too many processes or handles, or the fork
    server was killed."""
    try:
        yield
    except (OSError, EOFError) as error:
        cause = error.strerror if isinstance(error, OSError) else "the process that starts them was killed"
        raise StationError(
            f"can't start a process: {cause}", "What was committed stays valid: run again."
        ) from error
