"""The fork server that all children come from. Light, so that it can be the first thing a run does.

In: modules that the children will need; then a function and its arguments for each child. Out: running
processes. Guarantees: the fork server begins as a new process, so that children inherit neither its starter's
database nor its threads; it loads the modules while its starter is still loading its own, and ends with it.
One that has died is replaced. Nothing is written anywhere for it. Fails with StationError.

(`multiprocessing` has one, too. It starts a second process beside it, loads a great deal more, and needs a
folder for its socket, which a killed run leaves behind.)
"""

from __future__ import annotations

import errno
import os
import pickle
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module

from pipeline.model.errors import StationError

BACKING_UP = ("pipeline.stages.scanner", "pipeline.stages.hasher")
RESTORING = ("pipeline.stages.lister", "pipeline.stages.restorer")
VERIFYING = ("pipeline.stages.lister", "pipeline.stages.verifier")
REBUILDING = ("pipeline.stages.stored_tree",)
"""The modules of the stations of each line."""

_CHILDREN = "pipeline.pool.children"
_STOPPING = (signal.SIGINT, signal.SIGTERM)
_REQUEST = struct.Struct("<QI")  # bytes that follow, and the number of handles that come with it
_REPLY = struct.Struct("<q")  # the id of the new process, or the error's number below zero
_MOST_HANDLES = 8
PATIENCE_S = 30.0
_PROGRAM = """
import sys
sys.path[:] = {path!r}
from pipeline.pool.forkserver import serve
serve({handle}, {modules!r})
"""


class Process:
    """A started process. sentinel: a handle that can be read from once the process has ended."""

    def __init__(self, pid: int, sentinel: int) -> None:
        self.pid = pid
        self.sentinel = sentinel

    def has_ended(self, within_s: float = 0) -> bool:
        poll = select.poll()
        poll.register(self.sentinel, select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    def kill(self) -> None:
        if not self.has_ended():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class ForkServer:
    """The starter's side. modules: loaded once, for all children."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = tuple(modules)
        self._asking = threading.Lock()
        self.pid, self._requests = _spawn(self._modules)

    def start(
        self, target: Callable[..., None], arguments: tuple[object, ...], handles: Sequence[int]
    ) -> Process:
        """Calls `target(*arguments, *handles)` in a new process, which gets handles of its own for these.

        Raises OSError or EOFError.
        """
        payload = pickle.dumps((target, arguments))
        sentinel, held = os.pipe()
        try:
            with self._asking:
                self._look_after_it()
                pid = self._ask(payload, [held, *handles])
        except BaseException:
            os.close(sentinel)
            raise
        finally:
            os.close(held)
        return Process(pid, sentinel)

    def _look_after_it(self) -> None:
        """Another one in the place of one that has died, or whose answer nobody has waited for."""
        with suppress(ChildProcessError):
            if os.waitpid(self.pid, os.WNOHANG) == (0, 0) and self._requests.fileno() >= 0:
                return
        self._requests.close()
        self._end()
        self.pid, self._requests = _spawn(self._modules)

    def _end(self) -> None:
        """One that doesn't answer is stopped, or gone; nobody waits for it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _ask(self, payload: bytes, handles: Sequence[int]) -> int:
        try:
            self._requests.settimeout(PATIENCE_S)
            socket.send_fds(self._requests, [_REQUEST.pack(len(payload), len(handles))], handles)
            self._requests.sendall(payload)
            reply = _receive(self._requests, _REPLY.size)
        except BaseException:  # Ctrl-C, too: a late answer must not pass for the next one
            self._requests.close()
            self._end()
            raise
        if len(reply) < _REPLY.size:
            raise EOFError
        pid: int = _REPLY.unpack(reply)[0]
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid


_running: list[ForkServer] = []


def start_fork_server(*stations: str) -> ForkServer:
    """The fork server of this process. stations: modules that its children will need.

    Calling it again finds the server running.
    """
    if not _running:
        with starting_processes():
            _running.append(ForkServer((_CHILDREN, *stations)))
    return _running[0]


def _spawn(modules: tuple[str, ...]) -> tuple[int, socket.socket]:
    """A new fork server, and where it takes requests.

    Its end would look like a fault; so what stops the run (Ctrl-C, SIGTERM to the whole group) must leave
    it alone. Such signals are kept from it until it ignores them.
    """
    requests, served = socket.socketpair()
    with served:
        served.set_inheritable(True)
        code = _PROGRAM.format(path=sys.path, handle=served.fileno(), modules=modules)
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", code],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsigmask=_STOPPING,
        )
    return pid, requests


@contextmanager
def starting_processes() -> Iterator[None]:
    """Where a process can't be started, the run can't go on: too many processes or handles, or the fork
    server was killed."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise _failed("the process that starts them was killed") from error
    except OSError as error:
        raise _failed(error.strerror) from error


def _failed(cause: str | None) -> StationError:
    return StationError(f"can't start a process: {cause}", "What was committed stays valid: run again.")


def _receive(connection: socket.socket, size_bytes: int) -> bytes:
    """Less only where the other side has ended."""
    data = bytearray()
    while len(data) < size_bytes and (piece := connection.recv(size_bytes - len(data))):
        data += piece
    return bytes(data)


# -- the fork server's side -------------------------------------------------------------------------------


def serve(handle: int, modules: Sequence[str]) -> None:
    """Start a process for each request, until the starter is gone."""
    for number in _STOPPING:
        signal.signal(
            number, signal.SIG_IGN
        )  # what has come until now is dropped by that; children inherit it
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps
    for module in modules:
        import_module(module)
    with socket.socket(fileno=handle) as requests:
        while request := _next_request(requests):
            payload, handles = request
            requests.sendall(_REPLY.pack(_start(requests, payload, handles)))
            _close(handles)


def _close(handles: list[int]) -> None:
    for handle in handles:
        os.close(handle)


def _next_request(requests: socket.socket) -> tuple[bytes, list[int]] | None:
    """What is to be called, and the handles; none of them where there are too many open already. None at the
    end."""
    with suppress(ConnectionError):
        head, handles, _, _ = socket.recv_fds(requests, _REQUEST.size, _MOST_HANDLES)
        if len(head) == _REQUEST.size:
            size_bytes, count = _REQUEST.unpack(head)
            payload = _receive(requests, size_bytes)
            if len(handles) < count:
                _close(handles)
                handles = []
            if len(payload) == size_bytes:
                return payload, handles
    return None


def _start(requests: socket.socket, payload: bytes, handles: list[int]) -> int:
    """The new process's id, or the error's number below zero."""
    if not handles:
        return -errno.EMFILE
    try:
        pid = os.fork()
    except OSError as error:
        return -(error.errno or errno.EAGAIN)
    if pid == 0:
        requests.close()
        _be_child(payload, handles[1:])  # the first is the sentinel's: it is closed by the process's end
    return pid


def _be_child(payload: bytes, handles: list[int]) -> None:
    """Never returns: what isn't caught ends this process with a traceback."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    target, arguments = pickle.loads(payload)
    target(*arguments, *handles)
    os._exit(0)
