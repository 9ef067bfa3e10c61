"""SIGKILL at random moments: the next run ends as if nothing had been cut."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from at_work import at_work, many_files
from harness import Backup, difference, end_group, unlike, wait_until
from processes import alive, has_open, kill, stations
from trees import Snapshot, change, grow

SHORT = {"files": 1500, "moments": 3}
LONG = {"files": 15_000, "moments": 8}
LONGEST = {"files": 15_000, "moments": 30}
SIZES = [
    pytest.param(SHORT, id="short", marks=pytest.mark.slow),
    pytest.param({**SHORT, "durability": "fast"}, id="fast", marks=pytest.mark.slow),
    pytest.param(LONG, id="long", marks=pytest.mark.slow),
    pytest.param(LONGEST, id="longest", marks=pytest.mark.sweep),
]


class Killed:
    """Two backups of one source: one is killed and run again, the other one never is."""

    def __init__(self, base: Path, files: int, moments: int, durability: str = "full") -> None:
        self.source = base / "docs"
        self.moments = moments
        self.generator = random.Random(2026)
        self.cut = Backup(base / "cut", sources=[str(self.source)], make_sources=False)
        self.whole = Backup(base / "whole", sources=[str(self.source)], make_sources=False)
        for backup in (self.cut, self.whole):
            backup.configure(safety__max_delete_percent=100, durability=durability)
            backup.is_warm = False  # the moments are parts of how long a run takes that begins from nothing
        self.wanted: tuple[bytes, Snapshot] = (b"", {})
        grow(self.source, files, seed=31, large=3)

    def run_whole(self) -> float:
        """Run the backup that is never killed, and keep what came of it; how long it took."""
        start = time.monotonic()
        self.whole.run("--quiet")
        duration = time.monotonic() - start
        self.wanted = self.whole.export_bytes(), self.whole.tree()
        return duration

    def moment(self, number: int, duration: float) -> float:
        """The moments are spread over the run: one in each of as many equal parts."""
        return duration * (number + self.generator.random()) / self.moments

    def kill_after(self, seconds: float) -> None:
        process = self.cut.start("run", "--quiet")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)
        end_group(process)
        process.communicate()

    def compare(self, moment: float) -> None:
        self.cut.run("--quiet")
        exported, tree = self.wanted
        found = unlike(exported, self.cut.export_bytes()) or difference(tree, self.cut.tree())
        assert not found, f"killed after {moment:.3f} s: {found}"


@pytest.mark.parametrize("size", SIZES)
def test_killed_in_the_first_run(tmp_path: Path, size: dict[str, Any]) -> None:
    """After SIGKILL at any instant of a first run, the next run ends with the same export and tree as a run
    that was never killed."""
    killed = Killed(tmp_path, **size)
    duration = killed.run_whole()
    for number in range(killed.moments):
        killed.cut.forget()
        moment = killed.moment(number, duration)
        killed.kill_after(moment)
        killed.compare(moment)
    killed.cut.assert_all_well()


@pytest.mark.parametrize("size", SIZES)
def test_killed_in_a_run_with_changes(tmp_path: Path, size: dict[str, Any]) -> None:
    """The same for runs with changes of all kinds, one history over all moments; every third time the run
    that recovers is killed as well."""
    killed = Killed(tmp_path, **size)
    killed.run_whole()
    killed.cut.run()
    for number in range(killed.moments):
        change(killed.source, seed=1000 + number, share=0.02)
        duration = killed.run_whole()
        moment = killed.moment(number, duration)
        killed.kill_after(moment)
        if number % 3 == 2:
            killed.kill_after(killed.generator.uniform(0.1, 1.0) * duration)
        killed.compare(moment)
    killed.cut.assert_all_well()


@pytest.mark.handles
@pytest.mark.parametrize("which", ["first", "last", "both"])
def test_a_killed_worker_is_replaced(tmp_path: Path, which: str) -> None:
    """SIGKILL to a worker: the run goes on and ends well, everything stored, no process left."""
    backup = many_files(tmp_path)
    staging = backup.root / ".pipeline" / "staging"
    with at_work(backup) as run:
        os.killpg(run.pid, signal.SIGSTOP)
        workers = [child for child in stations(run.pid) if has_open(child, staging)]
        assert workers, "somebody has staged something"
        victims = {"first": workers[:1], "last": workers[-1:], "both": workers}[which]
        for victim in victims:
            kill(victim)
        os.killpg(run.pid, signal.SIGCONT)
        result = backup.finish(run)
    assert result.exit == 0, result.said[-3000:]
    assert not any(alive(child) for child in workers)
    backup.assert_right()


def test_a_killed_scanner_ends_the_run_cleanly(tmp_path: Path) -> None:
    """SIGKILL to the station that starts first, the scanner: the run ends with exit 1 and says why, or goes
    on and ends well; the next run completes."""
    backup = many_files(tmp_path)
    run = backup.start("run", "--json")
    try:
        assert wait_until(lambda: bool(stations(run.pid)))
        kill(stations(run.pid)[0])
        result = backup.finish(run)
    finally:
        end_group(run)
    assert result.exit in (0, 1), result.said[-3000:]
    if result.exit == 1:
        assert result.summary["status"] == "failed"
        assert any(line["type"] == "error" and line["cause"] for line in result.lines)
        backup.run()
    backup.assert_right()
