"""Hashing throughput through the workers' own code: `python -m pytest bench/test_hashing.py -n 0`.

Each case reads files of one size with nothing known about them, so every byte is read and hashed, and nothing
is staged. One worker is measured in this process; several as the line has them, with processes and pipes, so
theirs includes starting them. `megabytes_per_s` is in the extra information; a file of 1 GiB is one that only
one worker can be at.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from stations import hash_setup, scan, source_root
from trees import make_equal

from pipeline.model.message import Results
from pipeline.pool.children import Station
from pipeline.pool.crew import Size
from pipeline.pool.forkserver import BACKING_UP, start_fork_server
from pipeline.pool.line import Line
from pipeline.pool.local import Local
from pipeline.stages.hasher import Hasher
from pipeline.stages.scanner import Scanner
from pipeline.stages.setup import ScanSetup
from pipeline.store.schema import with_schema
from pipeline.store.state import connect_writer

TOTAL_BYTES = 64 << 20
ALGORITHMS = ["blake3", "sha256", "xxh3_128"]
SIZES = {"1 KiB": 1 << 10, "64 KiB": 1 << 16, "1 MiB": 1 << 20, "32 MiB": 1 << 25, "1 GiB": 1 << 30}


@pytest.fixture(scope="module")
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of one size; fewer of the small ones, whose number is what takes time."""
    size_bytes: int = request.param
    folder = tmp_path_factory.mktemp("files")
    make_equal(folder, max(1, min(8_192, TOTAL_BYTES // size_bytes)), size_bytes)
    return folder


by_size = pytest.mark.parametrize("tree", SIZES.values(), ids=SIZES, indirect=True)


@by_size
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_worker(benchmark: Any, tmp_path: Path, tree: Path, algorithm: str) -> None:
    """A worker alone, without pipes."""
    batches = scan(tree, empty_state(tmp_path))
    hasher = Hasher(hash_setup(tree, None, algorithm), 1, lambda size_bytes: None)
    read_bytes = benchmark(lambda: sum(hasher.process(batch)[2] for batch in batches))
    note_throughput(benchmark, tree, read_bytes)


@by_size
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_line(benchmark: Any, tmp_path: Path, tree: Path, algorithm: str, workers: int) -> None:
    """Scanner and workers as processes, in order."""
    context, state = start_fork_server(*BACKING_UP), empty_state(tmp_path)
    scan_setup = ScanSetup((source_root(tree),), frozenset(), (), os.fspath(state))
    setup = hash_setup(tree, None, algorithm)

    def run() -> int:
        hands = Local(context, Station(Hasher, setup), Size.of(workers))
        with Line(context, Station(Scanner, scan_setup), hands) as line:
            return sum(found.bytes_read for found in line.results() if isinstance(found, Results))

    note_throughput(benchmark, tree, benchmark.pedantic(run, rounds=3, warmup_rounds=1))


def empty_state(folder: Path) -> Path:
    path = folder / "state.db"
    with_schema(connect_writer(path)).close()
    return path


def note_throughput(benchmark: Any, tree: Path, read_bytes: int) -> None:
    assert read_bytes == sum(file.stat().st_size for file in tree.iterdir())
    benchmark.extra_info["megabytes_per_s"] = round(read_bytes / benchmark.stats["median"] / 1e6)
