"""`restore` into a folder that an earlier one has left, and for those who may not do everything."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from harness import Backup
from restored import assert_same, keep, restore
from trees import File, Folder, write_tree

from pipeline.model.errors import RestoreError
from pipeline.store import calls
from pipeline.store.target import Root


def test_set_id_bits_of_small_files(user_backup: Backup, tmp_path: Path) -> None:
    """Without the right to keep them over a write (CAP_FSETID), they are given after it."""
    user_backup.write(
        {"setuid": File(b"x", 0o4755), "setgid": File(b"y", 0o2755), "plain": File(b"z", 0o644)}
    )
    user_backup.run()
    restore(user_backup, tmp_path / "to")
    assert_same(keep(user_backup.source), tmp_path / "to")


def test_again_into_folders_that_are_closed(user_backup: Backup, tmp_path: Path) -> None:
    """A folder of mode 0500 that the first restore has made doesn't stop the second one."""
    user_backup.write({"closed": Folder({"inner": "1", "deeper": {"file": "2"}}, 0o500)})
    user_backup.run()
    restore(user_backup, tmp_path / "to")
    for overwrite in ("always", "if-different"):
        restore(user_backup, tmp_path / "to", "--overwrite", overwrite)
        assert_same(keep(user_backup.source), tmp_path / "to")


@pytest.mark.slow
def test_leftovers_of_a_killed_restore(backup: Backup, tmp_path: Path) -> None:
    """What a killed restore has left goes with the next one into the same folder; what one at work has
    locked stays, and so does whatever only looks like it."""
    backup.write({"file": "1"})
    backup.run()
    left, locked, other = (f".restore-1-{letter * 12}" for letter in "abz")
    write_tree(tmp_path / "to", {left: {"1": {"5": "half"}}, locked: {"1": {"6": "half"}}, other: None})
    handle = os.open(tmp_path / "to" / locked, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        backup.call("restore", "--to", str(tmp_path / "to"), "--overwrite", "always")
    finally:
        os.close(handle)
    assert sorted(os.listdir(tmp_path / "to")) == sorted([locked, other, "file"])


@pytest.mark.parametrize("name", ["new\nline", os.fsdecode(b"caf\xe9"), "back\\slash", "\\x41"])
def test_names_as_they_are_shown(backup: Backup, tmp_path: Path, name: str) -> None:
    """A path can be copied from `ls` or the log, escapes and all, and means itself where that exists."""
    backup.write({name: "odd", "A": "plain"})
    backup.run()
    lines = backup.call("ls").stdout.splitlines()
    shown = next(line for line in lines if "\\x" in line).split("  ")[-1].strip()
    restore(backup, tmp_path / "to", shown)
    assert os.listdir(tmp_path / "to") == [name]


def test_a_folder_that_was_exchanged(tmp_path: Path) -> None:
    """What is restored into is the folder that was looked at, whatever its path leads to later."""
    (tmp_path / "to").mkdir()
    (tmp_path / "outside").mkdir()
    found = (tmp_path / "to").stat()
    place = Root(str(tmp_path / "to"), found.st_dev, found.st_ino)
    calls.close(place.open())
    (tmp_path / "to").rename(tmp_path / "moved")
    for exchange in ("a link", "a folder"):
        if exchange == "a link":
            (tmp_path / "to").symlink_to("outside")
        else:
            (tmp_path / "to").unlink()
            (tmp_path / "to").mkdir()
        with pytest.raises(RestoreError):
            place.open()
