"""SIGKILL before every single system call by which a run changes a disk, in recovery, and in its recovery.

The backup root is a file system in an image, so that every try begins with the very same inodes. Sizes of the
sweeps: see the page on faults.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

import pytest
from eventful import Eventful
from images import Disk, mounted, need
from injected import Call, calls_of, run_killed_at, tracing

APPLYING = ("renameat", "renameat2", "unlinkat", "syncfs", "fdatasync")


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Eventful]:
    need("strace", "mkfs.ext4")
    yield Eventful(tmp_path_factory.mktemp("sweep"), "ext4", duplicates__action="hardlink")


def calls_from(eventful: Eventful, disk: Disk, *, until: str = "no such call") -> list[Call]:
    """By what the next run on a disk would change something there or in the logs, up to the first call whose
    text has `until` in it. (What stands in `state.db-shm` means nothing after a kill.)"""
    log = eventful.base / "trace"
    with mounted(eventful.copy(disk)):
        eventful.backup.run("--quiet", under=tracing(log))
    here = [call for call in calls_of(log) if str(eventful.base) in call.text]
    calls = list(takewhile(lambda call: until not in call.text, here))
    return [call for call in calls if call.name != "pwrite64" or "state.db-shm" not in call.text]


def cut_at(eventful: Eventful, disk: Disk, call: Call, image: str) -> Disk:
    """The disk as a run leaves it that is killed at this call."""
    cut = disk.copy_to(eventful.base / image)
    with mounted(cut):
        assert run_killed_at(eventful.backup, call), f"no kill at {call}"
    return cut


def sweep(eventful: Eventful, disk: Disk, calls: Sequence[Call], before: str = "") -> None:
    """Kill at each of these calls, each time from the same disk on, and have the next run finish it."""
    for call in calls:
        with mounted(eventful.copy(disk)):
            run_killed_at(eventful.backup, call)
            eventful.finish(f"{before}killed at {call}: {call.text[:100]}")
    print(f"{before}killed at {len(calls)} calls")


def spread(calls: Sequence[Call], count: int) -> list[Call]:
    """So many of them, the first and the last among them."""
    return [calls[round(number * (len(calls) - 1) / max(1, count - 1))] for number in range(count)]


def test_killed_at_some_calls(eventful: Eventful) -> None:
    """Consistent after any kill: the next run ends with the same export and tree as a run that was never cut.
    Guard: the transaction of `Journal.close_group` has the intents before any name is made, and
    `StoredFiles.apply(redo=True)` does them again."""
    calls = [call for call in calls_from(eventful, eventful.before) if call.name in APPLYING]
    sweep(eventful, eventful.before, spread(calls, 4))


@pytest.mark.parametrize(
    "writes", [pytest.param(4, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.sweep)]
)
def test_killed_at_every_call(eventful: Eventful, writes: int) -> None:
    """The same at every call that changes anything on a disk, from the first to the last. writes: at which of
    SQLite's, each of which is one of many pages."""
    calls = calls_from(eventful, eventful.before)
    assert len(calls) > 150 and {"renameat", "linkat", "mkdirat", "openat"} <= {call.name for call in calls}
    pages = [call for call in calls if call.name == "pwrite64"]
    sweep(eventful, eventful.before, [call for call in calls if call not in pages or call in pages[::writes]])


@pytest.mark.parametrize(
    ("share", "seconds", "every"),
    [
        pytest.param(0.3, 2, 3, id="early", marks=pytest.mark.slow),
        *(pytest.param(share, 5, 1, id=f"{share}", marks=pytest.mark.sweep) for share in (0.3, 0.7)),
    ],
)
def test_killed_in_the_recovery_and_in_its_recovery(
    eventful: Eventful, share: float, seconds: int, every: int
) -> None:
    """A cut in recovery is finished by the next one, and so is a cut in that: a kill in the middle of the
    groups, then at every call of the recovery, then, after some of these, in the second recovery. Guard:
    `recover` drops the intents only after all of them are done and a barrier, and sweeps their files last."""
    renames = [call for call in calls_from(eventful, eventful.before) if call.name == "renameat2"]
    first = renames[int(share * len(renames))]
    cut = cut_at(eventful, eventful.before, first, "first.img")
    calls = calls_from(eventful, cut, until="/logs/run-")
    assert len(calls) > 20, "there is something to recover"
    sweep(eventful, cut, calls, f"killed at {first}, then ")
    for second in spread([call for call in calls if call.name in APPLYING], seconds):
        again = cut_at(eventful, cut, second, "second.img")
        calls_again = calls_from(eventful, again, until="/logs/run-")
        sweep(eventful, again, calls_again[::every], f"killed at {first}, then at {second}, then ")
