"""Each station of a run alone, and the whole: `python -m pytest bench/test_stations.py -n 0`.

The tree has 5,000 small files in 100 folders; `microseconds_per_file` is in the extra information.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pairs import environment
from stations import Work, commit, first_run, hash_setup, scan, unchanged
from trees import make_tree, write_config

from pipeline import planner
from pipeline.layout import SourcePlace
from pipeline.model import message
from pipeline.model.plan import Plan
from pipeline.model.record import Entry, Kind, Stat
from pipeline.pool.children import Station
from pipeline.pool.crew import Size
from pipeline.pool.forkserver import start_fork_server
from pipeline.pool.line import Line
from pipeline.pool.local import Local
from pipeline.stages.batches import Send
from pipeline.stages.hasher import Hasher
from pipeline.store.schema import with_schema
from pipeline.store.state import State, connect_writer

FILES, FOLDERS = 5_000, 100
CONTEXT = planner.Context(SourcePlace(b"data", at_root=True), 1)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    make_tree(folder / "data", FILES, FOLDERS)
    return folder / "data"


def note_time(benchmark: Any, files: int = FILES) -> None:
    benchmark.extra_info["microseconds_per_file"] = round(benchmark.stats["median"] / files * 1e6, 2)


def entries() -> list[Entry]:
    paths = (b"data\0%03d\0file%05d" % (number // 50, number) for number in range(FILES))
    stat = Stat(0o100644, 0, 0, 10**18, 10**18, 1, 8_192)
    return [Entry(path, Kind.FILE, stat, path.rjust(32, b"."), None, False) for path in paths]


def plans() -> list[Plan]:
    return [planner.plan_entry(entry, planner.Facts(None), CONTEXT) for entry in entries()]


def empty_state(folder: Path) -> Path:
    path = folder / "state.db"
    with_schema(connect_writer(path)).close()
    return path


# -- scanner and workers ----------------------------------------------------------------------------------


def test_scanner_first(benchmark: Any, tmp_path: Path, tree: Path) -> None:
    """A walk that knows nothing."""
    state = empty_state(tmp_path)
    assert benchmark(lambda: len(scan(tree, state))) > FILES // 256
    note_time(benchmark)


def test_scanner_again(benchmark: Any, tmp_path: Path, tree: Path) -> None:
    """A walk beside the records of all that it meets."""
    with first_run(tree, tmp_path) as work:
        commit(work)
        assert benchmark(lambda: len(scan(tree, work.backup.state_path))) > FILES // 256
    note_time(benchmark)


@pytest.mark.parametrize("trust", ["content", "stat"])
def test_worker_again(benchmark: Any, tmp_path: Path, tree: Path, trust: str) -> None:
    """A worker that finds nothing changed."""
    with first_run(tree, tmp_path) as work:
        commit(work)
        assert work.backup.root is not None
        hasher = Hasher(hash_setup(tree, work.backup.root)._replace(trust=trust), 2, lambda size_bytes: None)
        batches = scan(tree, work.backup.state_path)
        answers = benchmark(lambda: [hasher.process(batch)[0] for batch in batches])
        assert unchanged(answers) > 0
    note_time(benchmark)


# -- transport --------------------------------------------------------------------------------------------


class EchoWalker:
    """Sends the same batch many times. setup: how often."""

    def __init__(self, setup: int, send: Send) -> None:
        self._times, self._send = setup, send

    def walk(self) -> None:
        items = [(message.FILE, b"file%05d" % number, None) for number in range(256)]
        payload = message.encode(items)
        for _ in range(self._times):
            self._send(payload, 256, 0)

    def close(self) -> None:
        return


class EchoWorker:
    """Answers at once."""

    def __init__(self, setup: None, number: int, alive: Any) -> None:
        self._answer = message.encode((256, 256, 0, 0, 0, []))

    def process(self, payload: bytes) -> tuple[bytes, int, int]:
        return self._answer, 256, 0

    @staticmethod
    def given_up(item: list[Any], folder: bytes) -> Any:
        return item


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_transport(benchmark: Any, workers: int) -> None:
    """Batches through the pipes, there and back in order; with starting the processes."""
    context, batches = start_fork_server(), 400

    def run() -> int:
        hands = Local(context, Station(EchoWorker, None), Size.of(workers))
        with Line(context, Station(EchoWalker, batches), hands) as line:
            return sum(found.files for found in line.results() if found is not None)

    assert benchmark.pedantic(run, rounds=5, warmup_rounds=1) == 256 * batches
    note_time(benchmark, 256 * batches)


# -- planner, state, committer ----------------------------------------------------------------------------


def test_planner(benchmark: Any) -> None:
    """Plans for new files."""
    found, nothing = entries(), planner.Facts(None)
    made = benchmark(lambda: [planner.plan_entry(entry, nothing, CONTEXT) for entry in found])
    assert len(made) == FILES
    note_time(benchmark)


def test_state(benchmark: Any, tmp_path: Path) -> None:
    """Records of new files, asked for and written, one transaction for each 4,096."""
    made, numbers = plans(), count()

    def setup() -> tuple[tuple[State], dict[str, Any]]:
        return (State(with_schema(connect_writer(tmp_path / f"{next(numbers)}.db"))),), {}

    def write(state: State) -> None:
        for first in range(0, FILES, 4096):
            group = made[first : first + 4096]
            state.look_ahead([plan.record.digest for plan in group if plan.record.digest is not None])
            for plan in group:
                state.write(plan, 1)
            state.commit()

    benchmark.pedantic(write, setup=setup, rounds=10, warmup_rounds=1)
    note_time(benchmark)


@pytest.fixture
def staged(tmp_path: Path, tree: Path) -> Iterator[Iterator[Work]]:
    """One fresh first run after the other, each closed as the next begins."""

    def works() -> Iterator[Work]:
        for number in count():
            folder = tmp_path / str(number)
            folder.mkdir()
            with first_run(tree, folder) as work:
                yield work

    made = works()
    yield made
    made.close()  # type: ignore[attr-defined]


def test_committer(benchmark: Any, staged: Iterator[Work]) -> None:
    """Everything behind the workers: decisions, journal, state, names. The contents are staged already."""
    benchmark.pedantic(commit, setup=lambda: ((next(staged),), {}), rounds=5, warmup_rounds=1)
    note_time(benchmark)


# -- the whole --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["first", "again"])
def test_run(benchmark: Any, tmp_path: Path, what: str) -> None:
    """The command line as a whole process."""
    make_tree(tmp_path / "data", FILES, FOLDERS)
    write_config(tmp_path)
    command = [sys.executable, "-m", "pipeline", "run", "--quiet", "--set"]
    numbers = count()

    def run(root: str) -> None:
        words = [*command, f'backup_root="{root}"']
        subprocess.run(words, cwd=tmp_path, env=environment(tmp_path), check=True)

    def setup() -> tuple[tuple[str], dict[str, Any]]:
        return (f"backup{next(numbers)}" if what == "first" else "backup",), {}

    benchmark.pedantic(run, setup=setup, rounds=5, warmup_rounds=2)
    note_time(benchmark)
