"""A watch where events don't tell: paths that lead elsewhere, mounts, folders that can't be read, a state
that is made anew beside it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Backup, wait_until
from test_watch import run_numbers, stored
from watched import processor_s, watched_backup, watching

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    return watched_backup(tmp_path)


@contextmanager
def mounted(*words: str | Path) -> Iterator[None]:
    """`mount` with these words; the last one is where."""
    subprocess.run(["mount", *words], check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", words[-1]], check=False, timeout=20)


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


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["native", "polling"])
def test_a_source_that_was_away_is_watched_again(tmp_path: Path, backend: str) -> None:
    """Moved away and back: the same folder, whoever observed it."""
    backup = watched_backup(tmp_path, {"watch.backend": backend})
    backup.write({"text": "first"})
    with watching(backup) as watched:
        backup.source.rename(backup.base / "away")
        watched.wait_for(lambda: bool(watched.of_type("error")))
        (backup.base / "away").rename(backup.source)
        watched.wait_until_idle()
        backup.write({"text": "second"})
        watched.wait_for(lambda: stored(backup, "text", "second"))
        watched.stop()


@pytest.mark.slow
def test_a_lock_that_is_held_for_long_costs_nothing(backup: Backup) -> None:
    """Also while everything is due: the folders aren't walked again and again for watches."""
    import fcntl

    backup.write({f"folder{number}/file": str(number) for number in range(3_000)})
    backup.run()
    with (backup.root / ".pipeline/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with watching(backup, idle=False) as watched:
            watched.wait_for(lambda: bool(watched.notes))
            before_s, until_s = processor_s(watched), time.monotonic() + 5
            watched.wait_for(lambda: time.monotonic() > until_s)
            assert processor_s(watched) - before_s < 0.5
            watched.stop()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["a link", "a folder above"])
def test_a_path_that_leads_elsewhere(tmp_path: Path, how: str) -> None:
    """No event tells of it: the source's path is looked at now and then."""
    for name in ("one", "two"):
        (tmp_path / name / "docs").mkdir(parents=True)
        (tmp_path / name / "docs/text").write_text(name)
    above = tmp_path / "above"
    if how == "a link":
        above.symlink_to("one")
    else:
        (tmp_path / "one").rename(above)
    backup = watched_backup(tmp_path, sources=["above/docs"], make_sources=False)
    with watching(backup) as watched:
        above.rename(tmp_path / "aside")
        (tmp_path / "two").rename(above)
        watched.wait_for(lambda: stored(backup, "text", "two"))
        watched.wait_until_idle()
        (above / "docs/text").write_text("three")
        watched.wait_for(lambda: stored(backup, "text", "three"))
        watched.stop()


@pytest.mark.slow
@needs_root
def test_a_disk_in_the_source_that_is_mounted_again(backup: Backup) -> None:
    """What is in it then is found, and watched."""
    place = backup.source / "disk"
    place.mkdir()
    with mounted("-t", "tmpfs", "none", place):
        (place / "file").write_text("first")
        with watching(backup) as watched:
            subprocess.run(["umount", place], check=True)
            with mounted("-t", "tmpfs", "none", place):
                (place / "file").write_text("second")
                watched.wait_for(lambda: stored(backup, "disk/file", "second"))
                watched.wait_until_idle()
                (place / "file").write_text("third")
                watched.wait_for(lambda: stored(backup, "disk/file", "third"))
                watched.stop()


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("backend", ["native", "polling"])
def test_a_backup_that_a_mount_shows_in_the_source(tmp_path: Path, backend: str) -> None:
    """Under whatever path: what a run writes there causes no further one."""
    (tmp_path / "alias").mkdir()
    (tmp_path / "docs").mkdir()
    with mounted("--bind", tmp_path / "docs", tmp_path / "alias"):
        backup = watched_backup(tmp_path, {"backup_root": "alias/bk", "watch.backend": backend})
        backup.root = backup.base / "alias/bk"
        backup.write({"text": "first"})
        with watching(backup) as watched:
            backup.write({"text": "second"})
            watched.wait_until_idle(2)
            backup.write({"text": "third"})
            watched.wait_until_idle(3)
            watched.stop()
    assert len([line for line in watched.lines if line.get("phase") == "looking"]) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["backup_root", "log_dir"])
def test_a_folder_of_ours_that_can_t_be_reached_for_a_while(tmp_path: Path, setting: str) -> None:
    """Told, and tried again: a watch doesn't end for it."""
    backup = watched_backup(tmp_path, {setting: "vault/inner"})
    backup.restricted = True
    backup.root = backup.base / ("vault/inner" if setting == "backup_root" else "backup")
    backup.write({"text": "first"})
    vault = backup.base / "vault"
    vault.mkdir()
    try:
        with watching(backup) as watched:
            vault.chmod(0)
            backup.write({"text": "second"})
            watched.wait_for(lambda: bool(watched.of_type("error")))
            vault.chmod(0o755)
            watched.wait_for(lambda: stored(backup, "text", "second"))
            watched.stop()
    finally:
        vault.chmod(0o755)
    assert len(backup.log_names() if setting == "backup_root" else os.listdir(vault / "inner")) == 2


@pytest.mark.slow
def test_a_backup_disk_that_is_unmounted(backup: Backup) -> None:
    """An empty folder where the backup was is no place to begin a new one: told, and tried again. The backup
    may come back as a copy on another disk."""
    backup.write({"text": "first"})
    with watching(backup) as watched:
        backup.root.rename(backup.base / "away")
        backup.root.mkdir()
        backup.write({"text": "second"})
        watched.wait_for(lambda: any("not in" in e["cause"] for e in watched.of_type("error")))
        assert not list(backup.root.iterdir())
        backup.root.rmdir()
        subprocess.run(["cp", "-a", backup.base / "away", backup.root], check=True)
        watched.wait_for(lambda: stored(backup, "text", "second"))
        assert watched.stop()["status"] == "warnings"
    assert wait_until(lambda: run_numbers(backup)[-1] == 2)
    backup.assert_all_well()
