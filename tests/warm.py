"""Calls of the program that begin with everything loaded: half of a small call's time is Python's start.

In: the words of a call. Out: its exit code and what it has printed. Guarantees: each call is a process of its
own, in a session of its own, that runs `python -m pipeline` from its first line on with these words; it comes
from a process that has loaded the program's modules and done nothing else, and so does its fork server. What
the start itself does is for calls that begin cold: those with variables, with other rights, under strace, and
all that a test doesn't wait for.
"""

from __future__ import annotations

import gc
import os
import runpy
import select
import signal
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pipeline.pool import forkserver
from pipeline.pool.forkserver import BACKING_UP, REBUILDING, RESTORING, VERIFYING, ForkServer

MODULES = (
    "pipeline.ui.cli", "pipeline.ui.commands", "pipeline.ui.read_commands", "pipeline.ui.answers",
    "pipeline.ui.overviews", "pipeline.ui.lists", "pipeline.ui.runlog", "pipeline.ui.reading",
    "pipeline.engine", "pipeline.views.restore", "pipeline.views.verify", "pipeline.views.rebuild",
    "pipeline.views.export", "pipeline.pool.children", *BACKING_UP, *RESTORING, *VERIFYING, *REBUILDING,
    "blake3", "warm",
)  # fmt: skip
_NUMBER = struct.Struct("<q")
_server: list[ForkServer] = []


def call(
    words: Sequence[str], folder: Path, variables: Mapping[str, str], time_limit_s: float
) -> tuple[int | None, bytes, bytes]:
    """The exit code (below zero for a signal, None for a call that had to be ended because of the time), and
    the bytes on standard output and standard error."""
    if not _server:
        _server.append(ForkServer(MODULES))
    out, err = os.memfd_create("out"), os.memfd_create("err")
    status, status_end = os.pipe()
    try:
        os.umask(umask := os.umask(0))
        beginning = _Beginning(tuple(words), os.fspath(folder), dict(variables), umask)
        os.close(_server[0].start(_attend, (beginning,), (out, err, status_end)).sentinel)
        os.close(status_end)
        status_end = -1
        pid, code = _told(status, time_limit_s), None
        assert pid is not None, "the call has not even begun"
        if (told := _told(status, time_limit_s)) is not None:
            code = os.waitstatus_to_exitcode(told)
        else:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _told(status, time_limit_s)
        return code, _content(out), _content(err)
    finally:
        for handle in (out, err, status, status_end):
            if handle >= 0:
                os.close(handle)


def _told(status: int, within_s: float) -> int | None:
    poll = select.poll()
    poll.register(status, select.POLLIN)
    if not poll.poll(within_s * 1000):
        return None
    number: int = _NUMBER.unpack(os.read(status, _NUMBER.size))[0]
    return number


def _content(handle: int) -> bytes:
    return os.pread(handle, os.fstat(handle).st_size, 0)


# -- in the new process -----------------------------------------------------------------------------------


class _Beginning(NamedTuple):
    """What a new process has from whoever calls it."""

    words: tuple[str, ...]
    folder: str
    variables: dict[str, str]
    umask: int


def _attend(beginning: _Beginning, out: int, err: int, status: int) -> None:
    """Tell who the call is, and how it has ended."""
    pid = os.fork()
    if pid == 0:
        _be_program(beginning, out, err)
        return
    os.write(status, _NUMBER.pack(pid))
    os.write(status, _NUMBER.pack(os.waitpid(pid, 0)[1]))


def _be_program(beginning: _Beginning, out: int, err: int) -> None:
    """As `python -m pipeline` would begin."""
    os.setsid()
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, 256)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(beginning.variables)
    os.chdir(beginning.folder)
    os.umask(beginning.umask)
    sys.argv = ["pipeline", *beginning.words]
    forkserver._spawn = _fork  # type: ignore[assignment]
    gc.freeze()  # what is shared stays shared
    try:
        runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        # Python's own end would go through all that is loaded.
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


def _fork(_modules: tuple[str, ...]) -> tuple[int, socket.socket]:
    """A fork server that need not load what is loaded. It is the first thing that a call begins: nothing is
    open yet."""
    requests, served = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        requests.close()
        forkserver.serve(served.detach(), ())
        os._exit(0)
    served.close()
    return pid, requests
