"""A watch in a storm: whatever happens in the sources, and to the watch, nothing that lay still is missed.

Promises: once it is quiet, one `run` finds nothing to do; and every content that lay still for twice the
debounce while a watch was there to see it (where hints were lost: until the next look at everything had
ended) is in the backup.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from harness import REPOSITORY, Backup
from watched import Watched, watching

pytestmark = pytest.mark.usefixtures("alone")

STORM = REPOSITORY / "tests/faults/storm.py"
QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
DEBOUNCE_S = 1.0
PROCESSES = 3
SHORT_S, LONG_S = 12.0, 120.0
SECONDS = [
    pytest.param(SHORT_S, marks=pytest.mark.slow, id="short"),
    pytest.param(LONG_S, marks=pytest.mark.sweep, id="long"),
]


class Still(NamedTuple):
    """A content that lay at a path for a while. Times of the monotonic clock."""

    digest: str
    path: str
    from_s: float
    to_s: float


class Life(NamedTuple):
    """A watch, from its first look's end to its own. looks: at everything, when each began and had ended."""

    ready_s: float
    end_s: float
    looks: list[tuple[float, float]]
    had_losses: bool

    def must_have_seen(self, still: Still) -> bool:
        seen_s = max(still.from_s, self.ready_s) + 2 * DEBOUNCE_S
        if self.had_losses:
            later = (ended_s for began_s, ended_s in self.looks if began_s >= still.from_s)
            seen_s = max(seen_s, next(later, math.inf))
        return min(still.to_s, self.end_s) >= seen_s


def life_of(watched: Watched) -> Life:
    looks = watched.looks_at_everything()
    had_losses = any("looked at" in note for note in watched.notes)
    return Life(looks[0][1] if looks else math.inf, time.monotonic(), looks, had_losses)


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    settings = {
        "watch.debounce_seconds": DEBOUNCE_S,
        "watch.delete_delay_seconds": 1.5,
        "watch.max_delay_seconds": 5.0,
        "retention.max_versions_per_file": 100_000,
        "safety.max_delete_percent": 100,
    }
    backup = Backup(tmp_path, settings=settings)
    backup.write({"calm/text": "nothing ever happens here"})
    return backup


class Storm:
    """Several processes at random work, each in a folder of its own, and what they have told."""

    def __init__(self, backup: Backup, seconds: float, seed: int) -> None:
        self._told = [backup.base / f"told{n}" for n in range(PROCESSES)]
        self._processes = []
        for n, told in enumerate(self._told):
            words = [sys.executable, STORM, backup.source / f"area{n}", str(10 * seed + n), str(seconds)]
            with told.open("w") as file:
                self._processes.append(subprocess.Popen(words, stdout=file))

    @property
    def is_over(self) -> bool:
        return all(process.poll() is not None for process in self._processes)

    def stills(self) -> list[Still]:
        """What lay still, once it is over."""
        for process in self._processes:
            assert process.wait(LONG_S + 60) == 0
        return [Still(**json.loads(line)) for told in self._told for line in told.read_text().splitlines()]

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def storm(backup: Backup) -> Iterator[Callable[[float, int], Storm]]:
    """Raises a storm: for so many seconds, from a seed."""
    begun: list[Storm] = []

    def raise_storm(seconds: float, seed: int) -> Storm:
        begun.append(Storm(backup, seconds, seed))
        return begun[-1]

    yield raise_storm
    for each in begun:
        each.end()


def assert_nothing_missed(backup: Backup, stills: list[Still], lives: list[Life]) -> None:
    kept = {hashlib.sha256(content).hexdigest() for content in backup.all_contents()}
    due = [still for still in stills if any(life.must_have_seen(still) for life in lives)]
    assert len(due) > 20, "the storm left nothing still for long enough, so nothing was tested"
    missed = [still for still in due if still.digest not in kept]
    assert not missed, f"{len(missed)} of {len(due)}: {missed[:5]}"
    backup.assert_all_well()


@contextmanager
def tiny_queue(events: int) -> Iterator[None]:
    """For watches that begin meanwhile: the kernel drops what is too much for it."""
    before = QUEUE.read_text()
    QUEUE.write_text(str(events))
    try:
        yield
    finally:
        QUEUE.write_text(before)


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("overflows", [False, True], ids=["all events", "lost events"])
def test_nothing_that_lay_still_is_missed(
    backup: Backup, storm: Callable[[float, int], Storm], seconds: float, overflows: bool
) -> None:
    """Written, renamed, deleted at random; in one variant the kernel's queue is far too small for it."""
    if overflows and not os.access(QUEUE, os.W_OK):
        pytest.skip("setting fs.inotify.max_queued_events needs root")
    queue: Any = tiny_queue(16) if overflows else contextlib.nullcontext()
    with contextlib.ExitStack() as cleanup:
        with queue:
            watched = cleanup.enter_context(watching(backup))
        stills = storm(seconds, 1).stills()
        watched.wait_until_idle()
        life = life_of(watched)
        watched.stop()
    assert life.had_losses == overflows
    assert_nothing_missed(backup, stills, [life])


@pytest.mark.parametrize("seconds", SECONDS)
def test_nothing_is_missed_over_kills(
    backup: Backup, storm: Callable[[float, int], Storm], seconds: float
) -> None:
    """The watch is killed every few seconds, at any moment, and started again."""
    chance, lives = random.Random(7), list[Life]()
    raging = storm(seconds, 2)
    while not raging.is_over:
        with watching(backup, idle=False) as watched:
            end_s = time.monotonic() + chance.uniform(0.2, 7.0)
            watched.wait_for(lambda end_s=end_s: time.monotonic() > end_s)  # type: ignore[misc]
            watched.kill()
            lives.append(life_of(watched))
    with watching(backup) as watched:
        watched.wait_until_idle()
        watched.stop()
    assert len(lives) > seconds / 10
    assert_nothing_missed(backup, raging.stills(), lives)
