"""Two at once: one writes, the others are refused, exit 11, and learn who is at it; no lock is left behind.

Promise 5: whoever holds the lock may be killed at any instant. Section 3: exit 11, nothing touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from at_work import at_work, held_up, many_files
from harness import Backup, Result, difference
from processes import descendants, kill

REFUSED = re.compile(r"another run holds the lock: process (\d+), started ([\d:T+-]+)")
AT_ONCE = 8


def lock_text(backup: Backup) -> dict[str, object]:
    text: dict[str, object] = json.loads((backup.root / ".pipeline" / "lock").read_text())
    return text


def assert_names(result: Result, holder: int, since_s: float) -> None:
    """The message has the holder's id, and a start that lies between `since_s` and now."""
    found = REFUSED.search(result.said)
    assert found is not None, result.said
    assert int(found[1]) == holder
    start = datetime.fromisoformat(found[2])
    assert since_s - 1 <= start.timestamp() <= datetime.now(UTC).timestamp(), found[2]


def rot(backup: Backup) -> None:
    """A run, a bit that turns in a stored file, and something to do for the next run."""
    backup.run("--quiet")
    rotten = backup.root / backup.names()[0]
    found = rotten.stat()
    rotten.write_bytes(b"X" + rotten.read_bytes()[1:])
    os.utime(rotten, ns=(found.st_atime_ns, found.st_mtime_ns))
    backup.write({f"new {number} {'y' * 200}": f"{number}\n" for number in range(400)})


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--json"),
        *(
            pytest.param(arguments, marks=pytest.mark.slow)
            for arguments in (
                ("run",),
                ("run", "--dry-run"),
                ("rebuild",),
                ("rebuild", "--json"),
                ("verify", "--repair"),
                ("verify", "--repair", "--json"),
            )
        ),
    ],
    ids=" ".join,
)
def test_the_second_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Beside a run, every other command that would write is refused: exit 11, with the holder's id and start;
    nothing is touched, and the first run ends as if it had been alone.

    Guard: `lock.acquire` in `_open_for_writing` and `open_tree`, `acquire_for_reading` in a dry run; the
    message of `LockedError`.
    """
    backup = many_files(tmp_path / "it")
    if "verify" in arguments:  # it locks only where there is something to repair
        rot(backup)
    since_s = time.time()
    with held_up(backup) as first:
        os.killpg(first.pid, signal.SIGSTOP)
        before, holder = backup.tree(), lock_text(backup)
        refused = backup.call(*arguments, expect=11)
        assert_names(refused, first.pid, since_s)
        if "--json" in arguments:
            assert refused.summary["type"] == "summary" and refused.summary["status"] == "failed"
        assert not difference(before, backup.tree())
        assert lock_text(backup) == holder
        os.killpg(first.pid, signal.SIGCONT)
        assert backup.finish(first).exit == 0
    if "verify" in arguments:
        backup.call(*arguments, expect=3)
    backup.assert_right()


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["the group", "the parent alone"])
def test_no_lock_outlives_its_holder(tmp_path: Path, whose: str) -> None:
    """SIGKILL of the holder of the lock: the next run is not refused, though the lock's text still names the
    dead one, and also while children of the dead one are still there.

    Guard: `lock._lock` is an flock, and no child inherits its handle (children come from the fork server).
    """
    backup = many_files(tmp_path / "it")
    with at_work(backup) as first:
        below = descendants(first.pid)
        if whose == "the group":
            os.killpg(first.pid, signal.SIGKILL)
        else:
            for child in below:
                with contextlib.suppress(ProcessLookupError):  # the scanner may have said everything
                    os.kill(child, signal.SIGSTOP)
            first.kill()
        first.wait(timeout=20)
        assert lock_text(backup)["pid"] == first.pid
        backup.run("--quiet")
        assert lock_text(backup)["pid"] != first.pid
        for child in below:
            kill(child)
    backup.assert_all_well()


@pytest.mark.slow
def test_a_lock_whose_text_names_somebody_else(backup: Backup) -> None:
    """The text is only for people: a file that names a living process, but that nobody has locked, refuses
    nobody.

    Guard: `lock.acquire` goes by the flock alone.
    """
    backup.write({"a": "a\n"})
    backup.run()
    text = {"pid": os.getpid(), "start": "2020-01-01T00:00:00+00:00"}
    (backup.root / ".pipeline" / "lock").write_text(json.dumps(text))
    backup.write({"a": "changed\n"})
    backup.run()
    backup.assert_all_well()


@pytest.mark.slow
@pytest.mark.parametrize("state", ["no backup yet", "a backup", "a cut run"])
def test_many_start_at_once(tmp_path: Path, state: str) -> None:
    """Eight start in the same instant: those that run do so one after the other, all others are refused with
    exit 11, also where there is no backup folder yet, and where there is something to recover.

    Guard: `lock.acquire`, before anything is opened, swept or recovered.
    """
    backup = many_files(tmp_path / "it")
    if state != "no backup yet":
        backup.run("--quiet")
        backup.write({f"folder0{n % 10}/new {n}": f"{n}\n" for n in range(200)})
    if state == "a cut run":
        with at_work(backup) as cut:
            os.killpg(cut.pid, signal.SIGKILL)
    processes = [backup.start("run", "--json") for _ in range(AT_ONCE)]
    results = [backup.finish(process) for process in processes]
    exits = Counter(result.exit for result in results)
    assert exits[0] >= 1 and exits[0] + exits[11] == AT_ONCE, [result.said for result in results]
    for result in results:
        assert result.exit == 0 or "another run holds the lock" in result.said, result.said
    runs = [result.summary["run"] for result in results if result.exit == 0]
    assert len(runs) == len(set(runs)), "no number twice"
    backup.assert_all_well()
