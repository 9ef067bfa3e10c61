"""`status`: how the backup is doing; and that looking at the lock never refuses a run."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest
from harness import Backup

from pipeline.model.errors import LockedError
from pipeline.store import calls, lock
from pipeline.store.folders import FOLDER_FLAGS


def test_status_as_json(past: Backup) -> None:
    """One line with exactly its keys, and figures that are those of the backup's own tree."""
    line, summary = past.call("status", "--json").lines
    assert line.keys() == {
        "type", "backup_root", "hash_algorithm", "last_run", "last_completed_run", "source", "space", "lock",
        "recovery_due",
    }  # fmt: skip
    assert summary == {"type": "summary", "status": "ok"}
    assert (line["type"], line["backup_root"], line["hash_algorithm"]) == ("status", str(past.root), "blake3")
    assert (line["lock"], line["recovery_due"]) == (None, False)
    runs = past.call("runs", "--json").lines[:-1]
    assert (
        line["last_run"] == line["last_completed_run"] == {k: v for k, v in runs[-1].items() if k != "type"}
    )
    totals = past.call("ls", "--json").summary
    assert line["source"] == {name: totals[name] for name in ("files", "links", "folders", "specials")}
    stored: dict[str, list[int]] = {"live": [], "duplicates": [], "deleted": [], "versions": []}
    areas = {"_duplicates": "duplicates", "_deleted": "deleted", "versions": "versions"}
    for name, seen in past.tree().items():
        if seen.kind == "file":
            stored[areas.get(name.partition("/")[0], "live")].append((past.root / name).stat().st_size)
    assert line["space"] == {
        area: {"files": len(sizes), "bytes": sum(sizes)} for area, sizes in stored.items()
    }
    assert all(stored.values())


def test_status_for_people(past: Backup) -> None:
    """Label and figure on each line; nothing is said of what isn't."""
    told = past.call("status").stdout
    assert f"{past.root}\n" in told and "run 4, ok, started " in told
    assert "recovery" not in told and "at work" not in told


def test_a_look_at_the_lock_disturbs_nobody(tmp_path: Path) -> None:
    """Nobody holds it, somebody does, nobody does again; looking neither makes nor takes the lock."""
    assert lock.holder(tmp_path) is None and not os.listdir(tmp_path)
    folder = calls.open(tmp_path, FOLDER_FLAGS)
    held = lock.acquire(folder, 10**18)
    assert lock.holder(tmp_path) == (os.getpid(), "2001-09-09T01:46:40+00:00")
    with pytest.raises(LockedError, match=f"process {os.getpid()}, started 2001"):
        lock.acquire(folder, 1)
    os.close(held)
    assert lock.holder(tmp_path) is None
    os.close(lock.acquire(folder, 1))
    calls.close(folder)


def test_a_holder_that_left_no_text(tmp_path: Path) -> None:
    """A dry run holds the lock without writing its text: who wrote the old one, long gone, isn't blamed."""
    (tmp_path / "lock").write_text('{"pid": 4194304999, "start": "then"}')
    with (tmp_path / "lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert lock.holder(tmp_path) == (None, None)
    (tmp_path / "lock").write_text("no text")
    assert lock.holder(tmp_path) is None


def test_a_look_never_refuses_a_run(tmp_path: Path) -> None:
    """Somebody who looks has the lock for an instant; a run that comes just then waits for it."""
    (tmp_path / "lock").touch()
    folder = calls.open(tmp_path, FOLDER_FLAGS)
    looking = (tmp_path / "lock").open("rb")
    fcntl.flock(looking, fcntl.LOCK_SH)
    timer = threading.Timer(0.015, looking.close)
    timer.start()
    os.close(lock.acquire(folder, 1))
    timer.join()
    with (tmp_path / "lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        began_s = time.monotonic()
        with pytest.raises(LockedError):
            lock.acquire(folder, 1)
        assert time.monotonic() - began_s < 1
    calls.close(folder)
