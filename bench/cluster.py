"""What a Dask cluster costs against local workers, at the same work on one machine: a Markdown table.

    python bench/cluster.py [--rounds 5] [--only WORD …] [--files 100000] [--workers 2]
                            [--memory /dev/shm] [--disk /var/tmp]

Whole processes, in turns, after a round that doesn't count; the ratio is the median of the pairs' ratios.
Both have so many workers of one thread. The scheduler and the cluster's workers are started once, before.
S is `--files` small files, B is 16 files of 128 MiB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pairs import environment, timed
from trees import make_large, make_tree

PATIENCE_S = 60.0


@contextmanager
def running_cluster(folder: Path, workers: int) -> Iterator[Path]:
    """The scheduler's file, once all workers are there."""
    file = folder / "scheduler.json"
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str, *options: str) -> None:
        words = [sys.executable, "-m", f"distributed.cli.{program}", "--scheduler-file", str(file)]
        log = (folder / f"{program}.log").open("wb")
        started.append(
            subprocess.Popen([*words, *options], env=environment(folder), cwd=folder, stdout=log, stderr=log)
        )

    try:
        start("dask_scheduler", "--no-dashboard", "--port", "0")
        start("dask_worker", "--no-dashboard", "--nworkers", str(workers), "--nthreads", "1")
        _wait_for_workers(file, workers)
        yield file
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGINT)
        for process in started:
            process.wait(PATIENCE_S)


def _wait_for_workers(file: Path, workers: int) -> None:
    from distributed import Client

    until_s = time.monotonic() + PATIENCE_S
    while not file.exists() and time.monotonic() < until_s:
        time.sleep(0.1)
    with Client(scheduler_file=str(file), timeout=PATIENCE_S, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=PATIENCE_S)


def settings(engine: str, workers: int, scheduler: Path) -> list[str]:
    """The words of a command line."""
    chosen = {"local": [f"workers.count={workers}"], "dask": [f'workers.address="{scheduler}"']}[engine]
    return [word for one in (f'workers.engine="{engine}"', *chosen) for word in ("--set", one)]


def compete(folder: Path, tree: Path, kind: str, options: argparse.Namespace, scheduler: Path) -> list[float]:
    """Seconds of local and of dask, and the median ratio. kind: `first` or `unchanged`."""
    grounds = {engine: folder / engine for engine in ("local", "dask")}
    for ground in grounds.values():
        ground.mkdir()
        words = f'sources = [{json.dumps(str(tree))}]\nbackup_root = "backup"\nlog_dir = "logs"\n'
        (ground / "config.toml").write_text(words, encoding="utf-8")
    pairs = []
    for _ in range(options.rounds + 1):
        pair = []
        for engine, ground in grounds.items():
            if kind == "first":
                shutil.rmtree(ground / "backup", ignore_errors=True)
            words = [sys.executable, "-m", "pipeline", "run", "--quiet"]
            pair.append(timed([*words, *settings(engine, options.workers, scheduler)], ground))
        pairs.append(pair)
    local, dask = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in pairs[1:])
    shutil.rmtree(folder)
    return [local, dask, ratio]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="rows that have all of these words")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"))
    options = parser.parse_args()
    print("| work | local, s | dask, s | ratio |\n|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory(dir=options.memory) as memory,
        tempfile.TemporaryDirectory(dir=options.disk) as disk,
        running_cluster(Path(memory), options.workers) as scheduler,
    ):
        small, large = Path(memory) / "S", Path(memory) / "B"
        make_tree(small, options.files, max(1, options.files // 50))
        make_large(large)
        for tree, kind, where in (
            (small, "first", memory),
            (small, "first", disk),
            (small, "unchanged", memory),
            (large, "unchanged", memory),
        ):
            on = "to disk" if where == disk else "to memory"
            words = f"{tree.name}, " + (f"first run, {on}" if kind == "first" else "nothing changed")
            if not all(word in words for word in options.only):
                continue
            folder = Path(tempfile.mkdtemp(dir=where))
            local, dask, ratio = compete(folder, tree, kind, options, scheduler)
            print(f"| {words} | {local:.2f} | {dask:.2f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
