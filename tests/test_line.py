"""The line with real processes: every batch is answered exactly once and in scan order, whoever dies; a
scanner that dies ends the run, and no child is left by anybody (promises 4, 5, 6).

What is told here by a signal happens at points that are sure: names are long enough that the scanner can't
have finished before it is listened to, and a stopped worker stays stopped until it is killed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import descendants, kill

from pipeline.layout import SourcePlace
from pipeline.model import message, treepath
from pipeline.model.errors import StationError
from pipeline.pool import forkserver
from pipeline.pool.channel import Frame
from pipeline.pool.children import Child, Station, start_worker
from pipeline.pool.crew import Size
from pipeline.pool.forkserver import ForkServer, start_fork_server
from pipeline.pool.line import Line
from pipeline.pool.local import Local, _Worker
from pipeline.pool.retry import Retry
from pipeline.stages import batches
from pipeline.stages.batch import KILLED_TWO
from pipeline.stages.hasher import Hasher
from pipeline.stages.scanner import Scanner
from pipeline.stages.setup import HashSetup, ScanSetup, SourceRoot
from pipeline.store.schema import SCHEMA
from pipeline.store.state import connect_writer

TIME_LIMIT_S = 30
FOLDERS, FILES = 40, 20


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    """A hang is a failure: the test is interrupted, and tells where it was."""

    def interrupt(*_: object) -> None:
        faulthandler.dump_traceback()
        raise TimeoutError(f"still running after {TIME_LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(TIME_LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """800 files with names so long that the scanner's batches don't fit into its pipe at once."""
    root = tmp_path_factory.mktemp("line")
    for folder in range(FOLDERS):
        (root / f"source/{folder:03}").mkdir(parents=True)
        for file in range(FILES):
            (root / f"source/{folder:03}/{file:03}{'x' * 200}").write_text(f"{folder} {file}")
    connection = connect_writer(root / "state.db")
    connection.executescript(SCHEMA)
    connection.close()
    return root


def paths_of(tree: Path) -> list[bytes]:
    """All paths in scan order."""
    found = [b"s"]
    for path in (tree / "source").rglob("*"):
        found.append(b"s\0" + os.fsencode(path.relative_to(tree / "source")).replace(b"/", b"\0"))
    return sorted(found)


def open_line(tree: Path, workers: int, silence_s: float = 300.0) -> Line:
    found = (tree / "source").stat()
    identity = found.st_dev, found.st_ino
    sources = (SourceRoot(SourcePlace(b"s", True), os.fsencode(tree / "source"), identity),)
    scan = ScanSetup(sources, frozenset(), (), os.fspath(tree / "state.db"))
    hashing = HashSetup(sources, "sha256", "content", None, 1, False, False, True)
    server = start_fork_server()
    hands = Local(server, Station(Hasher, hashing), Size(workers, workers), silence_s=silence_s)
    return Line(server, Station(Scanner, scan), hands, silence_s)


def workers_of(line: Line) -> list[_Worker]:
    assert isinstance(line._hands, Local)
    return list(line._hands._workers.values())


def children(line: Line) -> list[Child]:
    """The scanner first."""
    assert line._walker is not None, "it runs until it is asked"
    return [line._walker, *(worker.child for worker in workers_of(line))]


def worker_pids(line: Line) -> list[int]:
    return [worker.child.process.pid for worker in workers_of(line)]


def until_given(line: Line, answers: Answers) -> None:
    """Until the first worker has got something to do."""
    while not workers_of(line)[0].given:
        answers.step()


class Answers:
    """What a line has answered so far: the paths in the order of the results, and the figures."""

    def __init__(self, line: Line) -> None:
        self._results = line.results()
        self.paths: list[bytes] = []
        self.problems: list[tuple[bytes, str]] = []
        self.files = 0

    def step(self) -> bool:
        """Whether a batch of results came; raises StopIteration at the end."""
        results = next(self._results)
        if results is None:
            return False
        self.files += results.files
        for item in results.items:
            self.paths.append(item[1])
            if item[0] == message.PROBLEM:
                self.problems.append((item[1], item[2]))
        return True

    def first(self) -> None:
        while not self.step():
            pass

    def rest(self) -> None:
        with contextlib.suppress(StopIteration):
            while True:
                self.step()


def assert_all_answered(answers: Answers, tree: Path) -> None:
    assert answers.paths == paths_of(tree), "each once, in scan order"
    assert answers.files == FOLDERS * FILES
    assert answers.problems == []


# -- order ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
def test_results_come_in_scan_order(tree: Path, workers: int) -> None:
    with open_line(tree, workers) as line:
        answers = Answers(line)
        answers.rest()
        assert line.walk_has_ended
        assert line.files_found == FOLDERS * FILES
    assert_all_answered(answers, tree)


# -- deaths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_worker_is_replaced_and_nothing_is_answered_twice(tree: Path, workers: int) -> None:
    with open_line(tree, workers) as line:
        answers = Answers(line)
        answers.first()
        killed = worker_pids(line)[0]
        kill(killed)
        answers.rest()
        assert len(worker_pids(line)) == workers
    assert_all_answered(answers, tree)


def test_a_worker_that_dies_over_its_batches_leaves_none_of_them_out(tree: Path) -> None:
    """It is stopped before it can answer anything, so that what it was given has to be given again."""
    with open_line(tree, 2) as line:
        stopped = worker_pids(line)[0]
        os.kill(stopped, signal.SIGSTOP)
        answers = Answers(line)
        until_given(line, answers)
        kill(stopped)
        answers.rest()
        assert stopped not in worker_pids(line)
    assert_all_answered(answers, tree)


def test_what_a_dead_worker_had_comes_before_what_waits(tree: Path) -> None:
    """Otherwise what waits could fill the window, and the batch whose turn it is would never be given out."""
    with open_line(tree, 1) as line:
        line._hands.window_batches = 2  # type: ignore[misc]
        stopped = worker_pids(line)[0]
        os.kill(stopped, signal.SIGSTOP)
        answers = Answers(line)
        while len(workers_of(line)[0].given) < 2 or len(line._waiting) < 2:
            answers.step()
        kill(stopped)
        answers.rest()
    assert_all_answered(answers, tree)


def test_a_silent_worker_counts_as_dead(tree: Path) -> None:
    with open_line(tree, 2, silence_s=1.0) as line:
        stopped = worker_pids(line)[0]
        os.kill(stopped, signal.SIGSTOP)
        answers = Answers(line)
        answers.rest()
        assert stopped not in worker_pids(line)
    assert_all_answered(answers, tree)
    assert left_of([stopped]) == []


def test_a_killed_scanner_ends_the_run(tree: Path) -> None:
    """What it had not listed must never be taken for missing: no end is made up for it."""
    with open_line(tree, 2) as line:
        kill(children(line)[0].process.pid)
        with pytest.raises(StationError, match="walk over the files was killed"):
            Answers(line).rest()


def test_a_scanner_that_stands_still_ends_the_run(tree: Path) -> None:
    """No hang: a walk that gives no sign of life ends the run with the advice to look at the disk, and is
    killed. Guard: the walker's share of `Line._look_around`."""
    with open_line(tree, 2, silence_s=1.0) as line:
        scanner = children(line)[0].process.pid
        os.kill(scanner, signal.SIGSTOP)
        with pytest.raises(StationError, match="no sign of life"):
            Answers(line).rest()
    assert left_of([scanner]) == []


def test_a_walk_that_finds_nothing_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk with nothing to send for a while sends an empty batch, so that it isn't taken for dead."""
    sent: list[bytes] = []
    batches_of_a_walk = batches.Batches(lambda payload, *_: sent.append(payload))
    batches_of_a_walk.beat()
    assert sent == []
    monkeypatch.setattr(batches, "BEAT_S", 0.0)
    batches_of_a_walk.beat()
    assert [list(message.decode_items(payload)) for payload in sent] == [[]]


def test_a_scanner_that_fails_tells_why(tmp_path: Path, tree: Path) -> None:
    gone = SourceRoot(SourcePlace(b"s", True), os.fsencode(tmp_path / "gone"), (0, 0))
    scan = ScanSetup((gone,), frozenset(), (), os.fspath(tree / "state.db"))
    hashing = HashSetup((), "sha256", "content", None, 1, False, False, False)
    server = start_fork_server()
    with Line(server, Station(Scanner, scan), Local(server, Station(Hasher, hashing), Size(1, 1))) as line:
        with pytest.raises(StationError, match="has changed since the run began: No such file"):
            Answers(line).rest()


# -- no child is left -------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["at once", "at work", "at the end"])
def test_no_child_outlives_close(tree: Path, when: str) -> None:
    """Also those that are stopped, as in an uninterruptible read."""
    line = open_line(tree, 3)
    pids = [child.process.pid for child in children(line)]
    answers = Answers(line)
    if when == "at work":
        os.kill(pids[1], signal.SIGSTOP)
        until_given(line, answers)
    elif when == "at the end":
        answers.rest()
    line.close()
    assert left_of(pids) == []


def left_of(pids: list[int]) -> list[int]:
    """Those that have not ended: a process lets go of its handles a moment before it is gone."""
    deadline_s = time.monotonic() + 10
    return [pid for pid in pids if not end_of(pid, deadline_s)]


def end_of(pid: int, deadline_s: float) -> bool:
    """Whether a process, not a child of ours, has ended by the deadline."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(max(0, deadline_s - time.monotonic()) * 1000))
    finally:
        os.close(handle)


def test_no_child_outlives_its_killed_parent(tmp_path: Path, tree: Path) -> None:
    """A parent that is killed says nothing to anybody: the children see it by themselves, and nothing is left
    in the system's temporary folder (promise 8)."""
    script = f"""
        import sys
        sys.path[:0] = {[os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]!r}
        from pathlib import Path
        from test_line import open_line
        if __name__ == "__main__":
            line = open_line(Path({os.fspath(tree)!r}), 3)
            results = line.results()
            while next(results) is None:
                pass
            print("at work", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    variables = {**os.environ, "TMPDIR": os.fspath(tmp_path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "at work\n"
        below = descendants(parent.pid)
        assert len(below) >= 4
        parent.kill()
        parent.wait()
    assert left_of(below) == []
    assert os.listdir(tmp_path) == []


# -- the fork server --------------------------------------------------------------------------------------


def test_a_dead_fork_server_is_replaced(tree: Path) -> None:
    """The next line has its processes all the same, and those that run don't need it."""
    with open_line(tree, 1) as line:
        server = start_fork_server().pid
        kill(server)
        assert left_of([server]) == []
        answers = Answers(line)
        answers.rest()
    assert_all_answered(answers, tree)
    with open_line(tree, 2) as line:
        answers = Answers(line)
        answers.rest()
    assert_all_answered(answers, tree)


def test_a_fork_server_that_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds nobody up for ever, and isn't left behind; the next one answers."""
    monkeypatch.setattr(forkserver, "PATIENCE_S", 0.2)
    server = ForkServer(())
    stopped = server.pid
    os.kill(stopped, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        server.start(os._exit, (0,), ())
    assert left_of([stopped]) == []
    monkeypatch.setattr(forkserver, "PATIENCE_S", 30.0)
    process = server.start(os._exit, (0,), ())
    assert process.has_ended(within_s=10)
    os.close(process.sentinel)
    kill(server.pid)


def test_a_request_that_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its late answer is never taken for the answer to the next one: each process is the one that was asked
    for."""

    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    server = ForkServer(())
    with monkeypatch.context() as patch:
        patch.setattr(forkserver, "_receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            start_worker(server)
    child = start_worker(server)
    child.kill()
    assert child.process.has_ended(within_s=10)
    child.release()


def test_what_keeps_a_process_from_starting_is_told() -> None:
    """Too many open handles in the fork server: the cause is named, no handle is lost, and it works again
    once there is room."""
    server = ForkServer(())
    first = start_worker(server)
    before = os.listdir("/proc/self/fd")
    few, many = 4, resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (few, many))
    with pytest.raises(StationError, match="can't start a process: Too many open files"):
        start_worker(server)
    assert os.listdir("/proc/self/fd") == before
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (many, many))
    children = [first, start_worker(server)]
    for child in children:
        child.kill()
        child.release()
    assert left_of([child.process.pid for child in children]) == []


# -- file by file -----------------------------------------------------------------------------------------

FOLDER = [message.FOLDER, b"s\0d", [0] * 8, None, b""]
ITEMS = [
    [message.INSIDE, b"s"],
    [message.FILE, b"a", None],
    [message.FILE, b"b", None],
    FOLDER,
    [message.INSIDE, b"s\0d"],
    [message.LINK, b"l", [0] * 8, b"t", None, b""],
    [message.SPECIAL, b"p", [0] * 8, None, b""],
    [message.MISSING, b"s\0e", 0],
    [message.INSIDE, b"s\0f"],
]
NEED_NO_WORKER = {b"s\0d": message.FOUND, b"s\0e": message.MISSING}
PATHS = [b"s\0a", b"s\0b", b"s\0d", b"s\0d\0l", b"s\0d\0p", b"s\0e"]


def path_of(frame: Frame) -> bytes:
    """A worker's view of a frame: the one path that it is about, with the folder said before it."""
    *inside, item = message.decode_items(frame.payload)
    if item[0] in (message.FILE, message.LINK, message.SPECIAL):
        assert inside[-1][0] == message.INSIDE
        return treepath.join(inside[-1][1], item[1])
    return item[1]


@pytest.mark.parametrize(
    "deadly",
    [[], PATHS, *([path] for path in PATHS), [b"s\0a", b"s\0e"]],
    ids=lambda deadly: " ".join(map(treepath.shown, deadly)) or "none",
)
def test_a_deadly_item_becomes_a_problem_and_the_rest_goes_on(deadly: list[bytes]) -> None:
    """The first death splits the batch into single items; the second at one of them gives up that one. A
    folder and a missing path need no worker: given up, all below the folder would be held back."""
    retry = Retry(Frame(7, 2, 100, message.encode(ITEMS)), Hasher.given_up)
    tried = []
    while (frame := retry.next_frame()) is not None:
        assert frame.number == 7
        tried.append(path_of(frame))
        if tried[-1] in deadly:
            retry.killed()
        else:
            is_file = tried[-1] in (b"s\0a", b"s\0b")
            answer = (int(is_file), 1, 2, 3, 4, [[message.UNCHANGED, tried[-1]]])
            retry.answered(message.encode(answer))
    assert tried == PATHS, "each once, in order"
    results = message.decode_results(retry.results())
    assert [item[1] for item in results.items] == PATHS
    assert [item[1:] for item in results.items if item[0] == message.PROBLEM] == [
        [path, KILLED_TWO, "error"] for path in PATHS if path in deadly and path not in NEED_NO_WORKER
    ]
    for item in results.items:
        if item[1] in deadly and item[1] in NEED_NO_WORKER:
            assert item[0] == NEED_NO_WORKER[item[1]]
    answered = len(PATHS) - len(deadly)
    assert results[:5] == (2, answered, 2 * answered, 3 * answered, 4 * answered), "totals add up"


def test_a_batch_without_items_is_done_at_once() -> None:
    retry = Retry(Frame(1, 0, 0, message.encode([[message.INSIDE, b"s"]])), Hasher.given_up)
    assert retry.next_frame() is None
    assert message.decode_results(retry.results()) == (0, 0, 0, 0, 0, [])
