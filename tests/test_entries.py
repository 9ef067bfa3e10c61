"""Links, special files, folders, modes, and what in a source is not backed up."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from harness import Backup
from trees import EPOCH_NS, Fifo, File, Folder, Link, remove, write_tree


def test_links_are_stored_as_links(backup: Backup, tmp_path: Path) -> None:
    """Symbolic links are recorded and stored as links, never followed, wherever they point."""
    write_tree(tmp_path / "outside", {"secret": "secret\n"})
    backup.write({"a": "a\n", "sub": {"b": "b\n"}})
    links = ("a", "sub", "nowhere", str(tmp_path / "outside"), "../../outside/secret", ".", "/", "loop5")
    backup.write({f"loop{number}": Link(target) for number, target in enumerate(links)})
    backup.run()
    seen = backup.tree()
    for number, target in enumerate(links):
        assert (seen[f"loop{number}"].kind, seen[f"loop{number}"].content) == ("link", target)
    assert b"secret\n" not in backup.all_contents()
    backup.assert_all_well()


def test_special_files_are_recorded_and_not_opened(backup: Backup) -> None:
    """Special files are recorded and counted, not opened and not stored."""
    backup.write({"a": "a\n", "pipe": Fifo()})
    listener = socket.socket(socket.AF_UNIX)
    handle = os.open(backup.source, os.O_RDONLY)
    listener.bind(f"/proc/self/fd/{handle}/socket")
    result = backup.run("--json")
    assert (result.summary["backup"], result.summary["files"]) == (1, 1)
    assert backup.names() == ["a"]
    entries = backup.entries()
    assert entries["docs/pipe"]["kind"] == entries["docs/socket"]["kind"] == "special"
    backup.assert_right()
    remove(backup.source / "pipe")
    backup.run()
    backup.assert_all_well()
    listener.close()
    os.close(handle)


def test_empty_folders_come_and_go(backup: Backup) -> None:
    """Folders exist at the live place, empty ones too; a vanished folder is removed once it is empty."""
    backup.write({"a": "a\n", "empty": {"deep": {"er": None}}, "full": {"b": "b\n"}, "mixed": {"none": None}})
    backup.run()
    assert {"empty/deep/er", "full", "mixed/none"} <= backup.tree().keys()
    for name in ("empty", "full", "mixed"):
        remove(backup.source / name)
    backup.run()
    assert backup.tree().keys() & {"empty", "full", "mixed"} == set()
    assert backup.read("_deleted/full/b") == b"b\n"
    backup.assert_right()
    backup.write({"empty": None, "full": {"b": "b\n"}})
    backup.run()
    assert backup.names() == ["a", "full/b"] and "empty" in backup.tree()
    backup.assert_all_well()


def test_a_vanished_folder_with_foreign_things_stays(backup: Backup) -> None:
    """A vanished folder is removed only when it is empty: nothing foreign in it is lost."""
    backup.write({"a": "a\n", "sub": {"b": "b\n"}})
    backup.run()
    (backup.root / "sub" / "foreign").write_text("not ours\n")
    remove(backup.source / "sub")
    backup.run(expect=None)
    assert b"not ours\n" in backup.all_contents()
    assert backup.read("_deleted/sub/b") == b"b\n"


def test_modes_of_stored_things(backup: Backup) -> None:
    """Stored files have the source's mode without set-id bits, folders also | 0700; the true mode is in the
    export."""
    modes = {"plain": 0o644, "setuid": 0o4755, "setgid": 0o2750, "read": 0o400}
    folders = {"shut": 0o500, "shared": 0o2775, "public": 0o755, "private": 0o700}
    if os.geteuid() == 0:  # others couldn't read these
        modes["none"] = folders["closed"] = 0o000
    backup.write({name: File(name.encode(), mode, EPOCH_NS) for name, mode in modes.items()})
    backup.write({name: Folder({"inside": name}, mode) for name, mode in folders.items()})
    backup.run()
    seen, entries = backup.tree(), backup.entries()
    for name, mode in modes.items():
        assert seen[name].mode == mode & 0o1777 and entries[f"docs/{name}"]["mode"] == mode
    for name, mode in folders.items():
        assert seen[name].mode == mode & 0o1777 | 0o700 and entries[f"docs/{name}"]["mode"] == mode
    backup.assert_right()
    (backup.source / "shut").chmod(0o750)
    (backup.source / "private").chmod(0o711)
    backup.run()
    seen = backup.tree()
    assert (seen["shut"].mode, seen["private"].mode) == (0o750, 0o711)
    backup.assert_all_well()


def test_nothing_private_becomes_readable(backup: Backup) -> None:
    """The three areas, `.pipeline/` and the log folder are 0700, and so is what lies in `.pipeline/`."""
    backup.write({"private": Folder({"a": "1\n", "b": "2\n"}, 0o700), "z1": "same\n", "z2": "same\n"})
    old = os.umask(0)
    try:
        backup.run()
        backup.write({"private": {"a": "changed\n"}})
        remove(backup.source / "private" / "b")
        backup.run()
    finally:
        os.umask(old)
    private = [backup.root / name for name in ("versions", "_duplicates", "_deleted", ".pipeline")]
    for place in [*private, backup.logs]:
        assert stat.S_IMODE(place.stat().st_mode) == 0o700, place
    for place in (backup.root / ".pipeline").iterdir():
        assert not stat.S_IMODE(place.stat().st_mode) & 0o022, place


@pytest.mark.parametrize("linked", [False, True])
def test_backup_and_logs_inside_the_source(tmp_path: Path, linked: bool) -> None:
    """The backup root and the log folder are left out by identity, also when they lie inside a source or
    are reached through a link."""
    real = tmp_path / "real"
    write_tree(real, {"a": "a\n", "sub": {"b": "b\n"}, "to backup": Link("sub/backup")})
    place = tmp_path / "linked" if linked else real
    if linked:
        place.symlink_to("real")
    backup = Backup(real, sources=[str(place)], settings={"backup_root": "sub/backup", "log_dir": "sub/logs"})
    backup.root, backup.logs = real / "sub" / "backup", real / "sub" / "logs"
    backup.run()
    assert backup.names() == ["a", "config.toml", "sub/b", "to backup"]
    backup.run()
    backup.write({"a": "changed\n"})
    assert backup.run().decisions() == [f"MODIFIED: {place.name}/a"]
    assert backup.names() == ["a", "config.toml", "sub/b", "to backup", "versions/a/v1.bak"]
    backup.assert_sound()
    assert [line for line in backup.run().log if not line.startswith("SKIP")] == ["Run complete"]


def test_a_backup_reached_through_a_link(tmp_path: Path) -> None:
    """The backup root is known by device and inode: a path through a link to it leads to the same folder."""
    write_tree(tmp_path / "docs", {"a": "a\n", "store": None})
    (tmp_path / "elsewhere").symlink_to("docs/store")
    backup = Backup(tmp_path, settings={"backup_root": "elsewhere/backup"})
    backup.root = tmp_path / "docs" / "store" / "backup"
    backup.run()
    assert backup.names() == ["a"]
    assert [line for line in backup.run().log if not line.startswith("SKIP")] == ["Run complete"]


def test_excluded_patterns(tmp_path: Path) -> None:
    """`filters.exclude` are gitignore patterns: what matches is not backed up, excluded folders are not
    entered."""
    patterns = ["*.tmp", "!keep.tmp", "/cache/", "build/", "deep/**/x"]
    backup = Backup(tmp_path, settings={"filters.exclude": patterns})
    backup.write({"a.txt": "1", "b.tmp": "2", "keep.tmp": "3", "cache": {"keep.tmp": "4"}, "x": "9"})
    backup.write({"sub": {"cache": {"c": "5"}, "build": {"d": "6"}, "e.tmp": "7"}, "deep": {"f": {"x": "8"}}})
    backup.run()
    assert backup.names() == ["a.txt", "keep.tmp", "sub/cache/c", "x"]
    assert "docs/cache" not in backup.entries() and "docs/sub/build" not in backup.entries()
    backup.assert_nothing_left_to_do()
