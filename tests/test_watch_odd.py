"""A watch in odd circumstances: folders that can't be read, links in their place, many deletions, a state
that is made anew beside it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from harness import Backup
from test_watch import run_numbers, stored
from watched import watched_backup, watching


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    return watched_backup(tmp_path)


@pytest.mark.slow
def test_a_folder_that_becomes_readable(backup: Backup) -> None:
    """What changed in it while it could be neither read nor watched is found; it is watched from then on."""
    backup.restricted = True
    backup.write({"known/file": "first", "other": "other"})
    backup.run()
    backup.write({"known/file": "second", "known/new": "new"})
    (backup.source / "known").chmod(0)
    try:
        with watching(backup) as watched:
            assert any(line["path"] == "docs/known" for line in watched.of_type("warning"))
            (backup.source / "known").chmod(0o755)
            watched.wait_for(
                lambda: stored(backup, "known/file", "second") and stored(backup, "known/new", "new")
            )
            backup.write({"known/later": "later"})
            watched.wait_for(lambda: stored(backup, "known/later", "later"))
            watched.stop()
    finally:
        (backup.source / "known").chmod(0o755)
    backup.assert_all_well()


def test_a_folder_that_is_a_link_for_a_moment_is_no_deletion(tmp_path: Path) -> None:
    """Something else in its place waits as long as a deletion does."""
    backup = watched_backup(tmp_path, {"watch.delete_delay_seconds": 2.0})
    backup.write({f"site/page{number}": str(number) for number in range(20)})
    with watching(backup) as watched:
        (backup.source / "site").rename(backup.base / "aside")
        (backup.source / "site").symlink_to(backup.base / "aside")
        watched.wait_for(lambda: any(line.get("phase") == "looking" for line in watched.lines[3:]))
        (backup.source / "site").unlink()
        (backup.base / "aside").rename(backup.source / "site")
        backup.write({"last": "last"})
        watched.wait_for(lambda: stored(backup, "last", "last"))
        watched.wait_until_idle()
        watched.stop()
    assert sum(run["delete"] for run in watched.runs) == 0
    backup.assert_all_well()


def test_a_folder_that_stays_a_link_is_one(backup: Backup) -> None:
    """In the end it is what it is."""
    backup.write({"site/page": "page", "kept": "kept"})
    with watching(backup) as watched:
        shutil.rmtree(backup.source / "site")
        (backup.source / "site").symlink_to("kept")
        watched.wait_for(lambda: (backup.root / "site").is_symlink())
        watched.wait_until_idle()
        watched.stop()
    backup.assert_all_well()


@pytest.mark.slow
def test_many_deletions_come_to_an_end(tmp_path: Path) -> None:
    """More files than are kept apart, gone from folders that stay: deleted once, without looking for ever."""
    backup = watched_backup(tmp_path, {"safety.max_delete_percent": 100})
    backup.write({f"flat/file{number}": "" for number in range(21_000)} | {"kept": "kept"})
    with watching(backup) as watched:
        shutil.rmtree(backup.source / "flat")
        (backup.source / "flat").mkdir()
        watched.wait_for(lambda: sum(run["delete"] for run in watched.runs) == 21_000)
        watched.wait_until_idle()
        assert len([line for line in watched.lines if line.get("phase") == "looking"]) < 20
        watched.stop()
    assert sum(run["delete"] for run in watched.runs) == 21_000


def test_the_guard_holds_after_a_rebuild(tmp_path: Path) -> None:
    """A state that was made anew beside the watch knows of no full run: then every deletion counts."""
    backup = watched_backup(tmp_path)
    backup.write({f"file{number}": str(number) for number in range(120)})
    with watching(backup) as watched:
        for name in os.listdir(backup.root / ".pipeline"):
            if name.startswith("state."):
                (backup.root / ".pipeline" / name).unlink()
        backup.call("rebuild")
        for number in range(115):
            (backup.source / f"file{number}").unlink()
        watched.wait_for(lambda: any("max_delete_percent" in w["cause"] for w in watched.of_type("warning")))
        watched.stop()
    assert sum(run["delete"] for run in watched.runs) == 0


def test_a_cut_run_does_not_stay_the_last_one(backup: Backup) -> None:
    """Though there is nothing else to do: the next run says that it is settled."""
    backup.write({"text": "text"})
    backup.run()
    own = backup.root / ".pipeline"
    (own / "state.seal").unlink()
    with sqlite3.connect(own / "state.db") as state:
        state.execute(
            "INSERT INTO runs (started_ns, status, durability, boot_id)"
            " VALUES (1000000000000000000, 'interrupted', 'full', '')"
        )
    state.close()
    with watching(backup) as watched:
        watched.stop()
    assert run_numbers(backup) == [1, 2, 3]
    assert "recovery" not in backup.call("status").stdout
    with watching(backup) as watched:
        watched.stop()
    assert run_numbers(backup) == [1, 2, 3]
