"""A watch whose sources or backup are away for a while: moved, unmounted, out of reach, locked, or shown by a
mount."""

from __future__ import annotations

import fcntl
import os
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
