"""Clocks that go wrong between runs, and files with times that no clock has shown."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from harness import Backup, difference
from restored import assert_same, keep, restore
from tampered_clock import DAY_S, YEARS_S, shifted
from trees import Link, remove, write_tree

SHIFTS = (0, -DAY_S, YEARS_S, 0)
SECOND_NS = 10**9


def at_second(number: int) -> int:
    return number * SECOND_NS


YEAR_1, YEAR_2500 = at_second(-62_135_596_800), at_second(16_725_225_600)
LAST_OF_64_BITS = (1 << 63) - 1


def started(backup: Backup) -> list[tuple[int, datetime]]:
    runs = [line for line in backup.call("runs", "--json").lines if line["type"] == "run"]
    return [(line["run"], datetime.fromisoformat(line["started"])) for line in runs]


@pytest.mark.slow
@pytest.mark.parametrize("trust", ["stat", "content"])
def test_a_clock_that_is_set_back_and_forward(tmp_path: Path, trust: str) -> None:
    """Whatever the clock says, runs are numbered and listed in the order in which they were, a changed file
    is never skipped, also not one of the same size whose mtime was set back, nothing is SUSPECT, and each run
    comes back with `--at`.

    Guards: numbers come from the state (`begin_run`), change is found by ctime as it is and not as a clock
    would have it (`_has_same_stat` compares for equality), a look at the future is `unsettled`.
    """
    backup = Backup(tmp_path / "one", settings={"detect.trust": trust})
    backup.write({"same size": "0\n", "gone": "gone\n", "kept": "kept\n"})
    kept = []
    for number, shift_s in enumerate(SHIFTS):
        place = backup.source / "same size"
        backup.write({"same size": f"{number}\n", f"new{number}": f"new {number}\n"})
        os.utime(place, ns=(1, 1))
        if number == 2:
            remove(backup.source / "gone")
        kept.append(keep(backup.source))
        result = backup.run("--json", variables=shifted(tmp_path / "site", shift_s))
        assert result.summary["run"] == number + 1
        assert result.summary["suspect"] == 0 and result.summary["backup"] >= 1
        assert result.summary["modified"] == (number > 0), result.said
    backup.assert_right()
    known = started(backup)
    assert [run for run, _ in known] == [1, 2, 3, 4]
    moments = [moment for _, moment in known]
    assert moments[1] < moments[0] < moments[3] < moments[2], "the clock was not shifted"
    for number, wanted in enumerate(kept, 1):
        restore(backup, tmp_path / f"to{number}", "--at", str(number))
        assert_same(wanted, tmp_path / f"to{number}")


@pytest.mark.slow
def test_a_time_with_a_clock_that_was_wrong(tmp_path: Path) -> None:
    """`--at` with a time takes what had ended by then as the runs themselves tell it: the last in their
    order; a run from the future is never taken for one of the past.

    Guard: `find_run` compares with `ended_ns`.
    """
    backup = Backup(tmp_path / "one")
    for number, shift_s in enumerate(SHIFTS[:3]):
        backup.write({"a": f"{number}\n"})
        backup.run(variables=shifted(tmp_path / "site", shift_s))
    now = datetime.now(UTC)
    for moment, content in (
        (now + timedelta(days=3_700), "2\n"),
        (now + timedelta(hours=1), "1\n"),
        (now - timedelta(hours=12), "1\n"),
    ):
        to = tmp_path / content.strip() / moment.isoformat()
        restore(backup, to, "--at", moment.isoformat())
        assert (to / "a").read_text() == content
    too_early = (now - timedelta(days=2)).isoformat()
    backup.call("restore", "--to", str(tmp_path / "no"), "--at", too_early, expect=2)


def with_times(folder: Path, times: dict[str, int]) -> None:
    """A file, a link and a folder for each time."""
    for name, time_ns in times.items():
        (folder / name / "link").unlink(missing_ok=True)
        write_tree(folder, {name: {"file": f"{name}{len(times)}\n", "link": Link("file"), "empty": None}})
        for inner in ("file", "link", "empty", ""):
            os.utime(folder / name / inner, ns=(time_ns, time_ns), follow_symlinks=False)
            if (folder / name / inner).lstat().st_mtime_ns != time_ns:
                pytest.skip("this file system has no such times")


def come_back(backup: Backup, to: Path, times: dict[str, int]) -> None:
    """Backed up, listed, unchanged at once, changed, and restored, each time to the nanosecond."""
    with_times(backup.source, times)
    backup.run()
    backup.assert_all_well()
    backup.call("ls")
    backup.call("history", f"docs/{min(times)}/file")
    before = keep(backup.source)
    with_times(backup.source, {"new": 1, **{name: time_ns - 1 for name, time_ns in times.items()}})
    backup.run()
    backup.assert_right()
    restore(backup, to, "--at", "1")
    assert_same(before, to)


@pytest.mark.slow
def test_times_before_1970_and_far_in_the_future(tmp_path: Path) -> None:
    """Files, links and folders with any time that 64 bits of nanoseconds hold come back with it; none is
    taken for a change of the next run.

    Guard: times are integers of nanoseconds all the way, signed (`Stat.of`, the state's INTEGER).
    """
    times = {"before": -1, "1900": at_second(-2_208_988_800), "2200": at_second(7_258_118_400)}
    come_back(Backup(tmp_path / "one"), tmp_path / "to", {**times, "last": LAST_OF_64_BITS})


@pytest.mark.parametrize("time_ns", [YEAR_2500, pytest.param(YEAR_1, marks=pytest.mark.slow)])
def test_times_beyond_64_bits_of_nanoseconds(tmp_path: Path, time_ns: int) -> None:
    """One file with a time that doesn't fit keeps nobody else's content out of the backup: the run ends
    without a traceback, everything is stored, and the next run finds nothing to do.

    Guard: `Stat.of` holds times within what a message and the state can take.
    """
    backup = Backup(tmp_path / "one")
    backup.write({"odd": {"file": "odd\n"}, "plain": "plain\n"})
    os.utime(backup.source / "odd" / "file", ns=(time_ns, time_ns))
    if (backup.source / "odd" / "file").stat().st_mtime_ns != time_ns:
        pytest.skip("this file system has no such times")
    result = backup.run(expect=None)
    assert result.exit in (0, 3), result.said
    assert backup.read("odd/file") == b"odd\n" and backup.read("plain") == b"plain\n"
    backup.assert_sound()
    before = backup.tree()
    again = backup.run("--json", expect=None)
    assert (again.summary["skip"], again.summary["modified"], again.summary["suspect"]) == (2, 0, 0)
    assert not difference(before, backup.tree())
    restore(backup, tmp_path / "to", expect=0)
    assert (tmp_path / "to" / "odd" / "file").read_text() == "odd\n"
