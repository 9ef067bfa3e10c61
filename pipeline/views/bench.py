"""`bench`: how fast this machine reads and hashes, by algorithm and number of workers, and what holds it up.

In: a folder, or none for synthetic data. Out: measurements as they come, and a verdict. Guarantees: the
scanner and the workers are those of a run; nothing is staged and nothing of the tree is written; each
measurement ends in time. Caches are dropped for a folder only: the whole machine's where that is permitted,
else those of the folder's files (posix_fadvise(2)). Fails with SourceError where the folder can't be read.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pipeline import sources
from pipeline.config import HASH_ALGORITHMS, Source
from pipeline.layout import SourcePlace
from pipeline.model.message import Results
from pipeline.pool.children import Station
from pipeline.pool.crew import Size
from pipeline.pool.forkserver import BACKING_UP, ForkServer, start_fork_server
from pipeline.pool.line import Line
from pipeline.pool.local import Local
from pipeline.stages.hasher import Hasher
from pipeline.stages.scanner import Scanner
from pipeline.stages.setup import HashSetup, ScanSetup, SourceRoot
from pipeline.store.page_cache import let_go
from pipeline.store.schema import with_schema
from pipeline.store.state import connect_writer

SYNTHETIC, WARM, COLD = "synthetic", "warm", "cold"
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_SMALL_FILES, _SMALL_BYTES = 2_000, 16 << 10
_LARGE_FILES, _LARGE_BYTES = 4, 32 << 20
_NEARLY_BEST = 0.95
_IS_DISK = 0.7
_IS_FASTER = 1.15


class Step(NamedTuple):
    """What is to be measured. data: SYNTHETIC, WARM or COLD."""

    data: str
    algorithm: str
    workers: int


class Measurement(NamedTuple):
    """What was read and hashed in how long."""

    step: Step
    files: int
    size_bytes: int
    elapsed_s: float

    @property
    def bytes_per_s(self) -> float:
        return self.size_bytes / self.elapsed_s

    @property
    def files_per_s(self) -> float:
        return self.files / self.elapsed_s


class Verdict(NamedTuple):
    """bottleneck: `disk`, `processor` or `file count`. workers: what `workers.count` should be."""

    bottleneck: str
    why: str
    hash_algorithm: str
    workers: int


def bench(
    path: Path | None, limit_s: float, tell: Callable[[Measurement], None], stop: Callable[[], bool]
) -> Verdict | None:
    """Measure one step after the other. limit_s: for each. None: nothing could be measured, or it was
    stopped."""
    server = start_fork_server(*BACKING_UP)
    measurements = []
    with _data(path) as folder, _empty_state() as state:
        root = _root(folder)
        for step in steps(path is not None, os.cpu_count() or 1):
            if step.data == COLD:
                drop_caches(folder)
            measured = _measure(server, root, state, step, limit_s, stop)
            if stop():
                return None
            if measured is not None:
                measurements.append(measured)
                tell(measured)
    return judge(measurements)


def steps(has_folder: bool, processors: int) -> list[Step]:
    """Cold first, or all of it would be warm; with more workers than processors, since they wait."""
    counts = sorted({1, max(1, processors // 2), processors})
    cold = [Step(COLD, "blake3", count) for count in sorted({*counts, 2 * processors, 4 * processors})]
    data = WARM if has_folder else SYNTHETIC
    warm = [Step(data, algorithm, count) for algorithm in HASH_ALGORITHMS for count in counts]
    return [*(cold if has_folder else ()), *warm]


def judge(measurements: Iterable[Measurement]) -> Verdict | None:
    """What holds it up, and what to set. Pure."""
    cold = [one for one in measurements if one.step.data == COLD]
    warm = [one for one in measurements if one.step.data != COLD]
    if not warm:
        return None
    best = {one.step.algorithm: one for one in sorted(warm, key=lambda one: one.bytes_per_s)}
    blake3, sha256, xxh3 = (best.get(name, warm[0]) for name in ("blake3", "sha256", "xxh3_128"))
    algorithm = "sha256" if sha256.bytes_per_s > _IS_FASTER * blake3.bytes_per_s else "blake3"
    fastest_cold = max(cold, key=lambda one: one.bytes_per_s, default=None)
    if fastest_cold is not None and fastest_cold.bytes_per_s < _IS_DISK * blake3.bytes_per_s:
        share = fastest_cold.bytes_per_s / blake3.bytes_per_s
        why = f"with cold caches it takes {1 / share:.1f} times as long: the processors wait for the disk"
        return Verdict("disk", why, algorithm, _fewest(cold))
    ours = [one for one in warm if one.step.algorithm == algorithm]
    if xxh3.bytes_per_s > _IS_FASTER * best[algorithm].bytes_per_s:
        gain = xxh3.bytes_per_s / best[algorithm].bytes_per_s
        why = f"xxh3_128, which proves nothing against tampering, is {gain:.1f} times as fast"
        return Verdict("processor", why, algorithm, _fewest(ours))
    mean_bytes = blake3.size_bytes / max(1, blake3.files)
    why = f"no algorithm is much faster than another; a file has {mean_bytes / 1000:,.0f} kB on average"
    return Verdict("file count", why, algorithm, _fewest(ours))


def _fewest(measurements: list[Measurement]) -> int:
    """The smallest number of workers that is about as fast as any."""
    enough = _NEARLY_BEST * max(one.bytes_per_s for one in measurements)
    return min(one.step.workers for one in measurements if one.bytes_per_s >= enough)


def _measure(
    server: ForkServer,
    root: SourceRoot,
    state: Path,
    step: Step,
    limit_s: float,
    stop: Callable[[], bool],
) -> Measurement | None:
    """The line at work for so long after its first answer: to start it isn't what is measured."""
    scan = ScanSetup((root,), frozenset(), (), os.fspath(state))
    hashing = HashSetup((root,), step.algorithm, "content", None, 1, False, False, False)
    files = size_bytes = 0
    began_s = first_s = time.monotonic()
    first: Results | None = None
    hands = Local(server, Station(Hasher, hashing), Size(step.workers, step.workers))
    with Line(server, Station(Scanner, scan), hands) as line:
        for results in line.results():
            if results is not None and first is not None:
                files, size_bytes = files + results.files, size_bytes + results.bytes_read
            elif results is not None:
                first, first_s = results, time.monotonic()
            if stop() or (first is not None and time.monotonic() - first_s > limit_s):
                break
    if first is None:
        return None
    if not files:  # one batch is all there is
        return Measurement(step, first.files, first.bytes_read, first_s - began_s)
    return Measurement(step, files, size_bytes, time.monotonic() - first_s)


def _root(folder: Path) -> SourceRoot:
    found = sources.resolve_one(Source(folder, "bench"))
    return SourceRoot(SourcePlace(found.name, at_root=True), found.path, found.identity)


@contextmanager
def _data(path: Path | None) -> Iterator[Path]:
    """The folder, or one with files that are made for it."""
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="backup-bench-") as name:
        content = os.urandom(_LARGE_BYTES)
        for number in range(_SMALL_FILES):
            start = number * _SMALL_BYTES % _LARGE_BYTES
            (Path(name) / f"small{number:05d}").write_bytes(content[start : start + _SMALL_BYTES])
        for number in range(_LARGE_FILES):
            (Path(name) / f"large{number}").write_bytes(content)
        yield Path(name)


@contextmanager
def _empty_state() -> Iterator[Path]:
    """A state that knows nothing, for the scanner to walk beside."""
    with tempfile.TemporaryDirectory(prefix="backup-bench-") as name:
        path = Path(name) / "state.db"
        with_schema(connect_writer(path)).close()
        yield path


def drop_caches(folder: Path) -> None:
    """So that what is read next comes from the disk."""
    os.sync()
    try:
        _DROP_CACHES.write_text("3\n", encoding="ascii")
        return
    except OSError:
        pass  # not permitted: what is written is on the disk by now, so its pages can be given up one by one
    for at, _, names in os.walk(folder):
        for name in names:
            _give_up_pages(os.path.join(at, name))


def _give_up_pages(file: str) -> None:
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # the walk tells nobody either
    let_go(handle)
    os.close(handle)
