"""The figures that a watch promises: how soon, at what cost while nothing happens, in how much memory.

`python -m pytest -m slow -n 0 -s tests/test_watch_figures.py` prints them.
"""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path

import pytest
from harness import Backup
from watched import processor_s, watching

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("alone")]

DEBOUNCE_S = 1.0
SLACK_S = 0.5
CHANGES, PER_SECOND = 1_000, 40


def tree_of_20_000(root: Path) -> list[Path]:
    chance, files = random.Random(1), []
    for folder in range(1_000):
        place = root / f"part{folder // 50:02}" / f"folder{folder % 50:02}"
        place.mkdir(parents=True)
        for number in range(20):
            files.append(place / f"file{number:02}")
            files[-1].write_bytes(chance.randbytes(1_000))
    return files


def test_from_a_change_to_its_backup(tmp_path: Path) -> None:
    """95 of 100 changes are in the backup within the debounce and half a second: 1,000 single changes, spread
    over a tree of 20,000 files, forty a second."""
    backup = Backup(tmp_path, settings={"watch.debounce_seconds": DEBOUNCE_S, "workers.count": 0})
    files = tree_of_20_000(backup.source)
    chosen = random.Random(2).sample(files, CHANGES)
    with watching(backup) as watched:
        waits_s = sorted(_waits(backup, chosen))
        watched.stop()
    middle, high = statistics.median(waits_s), waits_s[int(len(waits_s) * 0.95)]
    print(
        f"\nmedian {middle:.2f} s, 95 % {high:.2f} s, longest {waits_s[-1]:.2f} s; {len(watched.runs)} runs"
    )
    assert high <= DEBOUNCE_S + SLACK_S


def _waits(backup: Backup, chosen: list[Path]) -> list[float]:
    """Change a file every so often, and note when its stored file is the same again (by its time)."""
    begun_s, left, out = time.monotonic(), list(chosen), list[float]()
    open_changes: dict[Path, tuple[float, int]] = {}
    while left or open_changes:
        now_s = time.monotonic()
        assert now_s < begun_s + 3 * CHANGES / PER_SECOND, "far behind"
        if left and now_s > begun_s + (len(chosen) - len(left)) / PER_SECOND:
            file = left.pop()
            file.write_bytes(b"changed %d" % len(left))
            open_changes[file] = (now_s, file.stat().st_mtime_ns)
        for file, (changed_s, mtime_ns) in list(open_changes.items()):
            if (backup.root / file.relative_to(backup.source)).stat().st_mtime_ns == mtime_ns:
                out.append(time.monotonic() - changed_s)
                del open_changes[file]
        time.sleep(0.003)  # the resolution of the measurement
    return out


def memory_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024


def test_an_idle_watch_costs_nothing(tmp_path: Path) -> None:
    """While nothing happens, next to no processor time: less than three thousandths of one processor."""
    backup = Backup(tmp_path)
    backup.write({f"folder{number % 50}/file{number}": str(number) for number in range(500)})
    with watching(backup) as watched:
        before_s, until_s = processor_s(watched), time.monotonic() + 10
        watched.wait_for(lambda: time.monotonic() > until_s)
        spent_s = processor_s(watched) - before_s
        watched.stop()
    print(f"\nidle for 10 s: {1000 * spent_s:.1f} ms of processor time")
    assert spent_s < 0.03


def test_memory_for_100_000_folders(tmp_path: Path) -> None:
    """The parent stays below 150 MiB with 100,000 folders watched, through its first run and changes."""
    backup = Backup(tmp_path)
    for upper in range(1_000):
        for lower in range(100):
            (backup.source / f"upper{upper:03}/folder with a name {lower:02}").mkdir(parents=True)
    with watching(backup, idle=False) as watched:
        watched.wait_for(lambda: watched.looks_at_everything(), "the first run", 120)
        watched.wait_until_idle()
        assert watched.of_type("watching")[0]["folders"] == 101_001
        backup.write({f"upper{number:03}/file": str(number) for number in range(1_000)})
        watched.wait_for(lambda: (backup.root / "upper999/file").exists())
        used_mib = memory_mib(watched.process.pid)
        watched.stop()
    print(f"\n101,001 folders watched: {used_mib:.0f} MiB at most")
    assert used_mib < 150
