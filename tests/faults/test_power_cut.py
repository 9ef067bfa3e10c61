"""The power goes at every step of the protocol, on three file systems: what is then on the disk is what that
file system itself leaves there (see `images.Disk.cut`).

The run is killed at a call, and the power goes at once: with the file system's journal still written (names
are there, bytes that nobody has waited for aren't), and without (neither is).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from eventful import Eventful
from harness import command
from images import LOG_FLUSHED, LOG_LOST, Disk, mounted, need
from injected import Call, calls_of, run_killed_at, tracing

STEPS = ("renameat", "renameat2", "linkat", "unlinkat", "mkdirat", "syncfs", "fdatasync")
BY_PATHS = ("rename", "linkat", "unlink", "mkdir", "fsync", "fdatasync")
WITHOUT_BARRIER = """
from pipeline.store import system
system.sync_file_system = lambda handle: True
from pipeline.ui.cli import main
main()
"""
ANOTHER_BOOT = """
from pipeline.store import clocks
clocks.boot_id = lambda: "the boot after the cut"
from pipeline.ui.cli import main
main()
"""


@pytest.fixture(scope="module", params=["ext4", "xfs", "btrfs"])
def eventful(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Eventful]:
    kind = request.param
    need("strace", f"mkfs.{kind}")
    yield Eventful(tmp_path_factory.mktemp(kind), kind)


def steps(eventful: Eventful, names: Sequence[str] = STEPS) -> list[Call]:
    """The calls of the next run that make, move or remove a name in the backup, or wait for the disk."""
    log = eventful.base / "trace"
    with mounted(eventful.copy(eventful.before)):
        eventful.backup.run("--quiet", under=tracing(log, names))
    return [call for call in calls_of(log) if str(eventful.base) in call.text]


def cut_at(eventful: Eventful, call: Call, log: int) -> Disk:
    """The power goes when the run comes to this call."""
    disk = eventful.copy(eventful.before)
    with mounted(disk):
        run_killed_at(eventful.backup, call)
        disk.cut(log)
    return disk


def sweep(eventful: Eventful, calls: Sequence[Call], log: int = LOG_FLUSHED) -> None:
    for call in calls:
        with mounted(cut_at(eventful, call, log)):
            eventful.finish(f"power cut ({log}) at {call}: {call.text[:100]}")
    print(f"{eventful.before.kind}: power cut ({log}) at {len(calls)} calls")


def in_between(calls: Sequence[Call]) -> list[Call]:
    """Some moments in the middle of a group's renames, where names and bytes could part."""
    return [call for call in calls if call.name.startswith("renameat")][2::9]


@pytest.mark.parametrize("eventful", ["xfs"], indirect=True)
def test_power_cut_among_the_renames(eventful: Eventful) -> None:
    """Consistent after power loss: the next run ends with the same export and tree as one that was never cut.
    Guard: the barrier of `Journal.close_group` comes before the transaction."""
    sweep(eventful, in_between(steps(eventful))[:1])


@pytest.mark.parametrize(
    "every", [pytest.param(2, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.sweep)]
)
def test_power_cut_at_every_step(eventful: Eventful, every: int) -> None:
    """The same at every step of the protocol, or every second one; at every third of these the journal is
    lost as well, so that more is undone, but in the file system's own order."""
    calls = steps(eventful)
    assert len(calls) > 60
    sweep(eventful, calls[::every])
    if eventful.before.kind != "btrfs":
        sweep(eventful, calls[:: 3 * every], LOG_LOST)


@pytest.mark.parametrize("eventful", ["xfs"], indirect=True)
@pytest.mark.parametrize(
    "every", [pytest.param(9, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.sweep)]
)
def test_power_cut_where_files_are_synced_one_by_one(
    eventful: Eventful, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """The same without `syncfs`, as on systems other than Linux. Guard: `Barrier._one_by_one`."""
    monkeypatch.setenv("PIPELINE_PORTABLE", "1")
    calls = [call for call in steps(eventful, BY_PATHS) if "ENOENT" not in call.text]
    assert len(calls) > 60
    sweep(eventful, calls[::every])
    sweep(eventful, calls[:: 3 * every], LOG_LOST)


@pytest.mark.slow
@pytest.mark.parametrize("eventful", ["xfs"], indirect=True)
def test_the_harness_sees_a_missing_barrier(eventful: Eventful) -> None:
    """A variant of the program whose barrier does nothing loses contents on XFS: files under good names
    without their bytes. So the sweeps above can see what they look for. Guard: `system.sync_file_system`."""
    eventful.backup.program = [sys.executable, "-c", WITHOUT_BARRIER]
    lost = 0
    try:
        for call in in_between(steps(eventful)):
            with mounted(cut_at(eventful, call, LOG_FLUSHED)):
                try:
                    eventful.finish(str(call))
                except AssertionError:
                    lost += 1
    finally:
        eventful.backup.program = command()
    assert lost > 0


@pytest.mark.parametrize(
    "choose",
    [
        pytest.param(in_between, id="some", marks=pytest.mark.slow),
        pytest.param(list, id="all", marks=pytest.mark.sweep),
    ],
)
def test_a_fast_run_that_a_power_cut_ended_is_verified(
    tmp_path: Path, choose: Callable[[Sequence[Call]], list[Call]]
) -> None:
    """`durability = "fast"` has no barriers, so names may be there without their bytes; the run after the
    next boot reads what was stored, says what is lost, and stores it again: the same export and tree. Guard:
    `_Recovery.verify_last_run`, by the boot that the state records."""
    need("strace", "mkfs.xfs")
    eventful = Eventful(tmp_path, "xfs", durability="fast")
    told = 0
    for call in choose(steps(eventful)):
        with mounted(cut_at(eventful, call, LOG_FLUSHED)):
            eventful.backup.program = [sys.executable, "-c", ANOTHER_BOOT]
            told += eventful.finish(str(call), exits=(0, 3)) == 3
        eventful.backup.program = command()
    assert told > 0, "the cuts have cost something"
