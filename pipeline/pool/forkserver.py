"""Starts the fork server that all children come from. Light, so that it can be the first thing a run does.

The fork server is started before the parent opens anything, so that children inherit neither its database nor
its threads; it loads the stations' modules while the parent is still loading its own.
"""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

_CHILDREN = "pipeline.pool.children"
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
    # Its end would look like the end of all children; so what stops the run (SIGTERM to the whole group) must
    # leave it alone. Being ignored is inherited; the children say for themselves what they ignore.
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGTERM, before)
    return context
