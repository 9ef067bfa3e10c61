"""Faults on the side of the backup: no state, damage, foreign things, no space."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Backup, difference
from trees import remove, snapshot, write_tree


def test_a_root_that_is_not_empty_and_has_no_state(backup: Backup) -> None:
    """A backup root that isn't empty and has no valid `state.db`: exit 1, naming `rebuild`; nothing moved."""
    backup.write({"a": "a\n"})
    write_tree(backup.root, {"a": "somebody's own\n", "versions": {"x": "y\n"}})
    before = snapshot(backup.root)
    result = backup.run(expect=1)
    assert "rebuild" in result.stderr
    assert not difference(before, backup.tree())


def test_an_empty_root_is_a_fresh_one(backup: Backup) -> None:
    """A backup root that exists and is empty is a first run's."""
    backup.write({"a": "a\n"})
    backup.root.mkdir()
    backup.run()
    backup.assert_right()


@pytest.mark.parametrize("damage", ["gone", "empty", "garbage", "garbage inside", "another database"])
def test_a_state_that_cannot_be_read(backup: Backup, damage: str) -> None:
    """An unreadable state: exit 1, naming `rebuild`; nothing is moved and `staging/` is not swept."""
    backup.write({f"file{number}": f"content {number}\n" for number in range(50)})
    backup.run()
    state = backup.root / ".pipeline" / "state.db"
    staged = backup.root / ".pipeline" / "staging" / "left behind"
    staged.parent.mkdir(exist_ok=True)
    staged.write_text("perhaps the only copy\n")
    damage_state(state, damage)
    before = backup.tree()
    backup.write({"new": "new\n"})
    result = backup.run(expect=1)
    assert "rebuild" in result.stderr
    assert not difference(before, backup.tree())
    assert staged.read_text() == "perhaps the only copy\n"


def damage_state(state: Path, damage: str) -> None:
    size = state.stat().st_size
    for beside in (state.with_name("state.db-wal"), state.with_name("state.db-shm")):
        beside.unlink(missing_ok=True)
    if damage == "gone":
        state.unlink()
    elif damage == "empty":
        state.write_bytes(b"")
    elif damage == "garbage":
        state.write_bytes(b"\xa5" * size)
    elif damage == "garbage inside":
        content = bytearray(state.read_bytes())
        content[4096:] = b"\xa5" * (size - 4096)
        state.write_bytes(content)
    else:
        import sqlite3

        state.unlink()
        connection = sqlite3.connect(state)
        connection.execute("CREATE TABLE something (else_entirely)")
        connection.commit()
        connection.close()


OFTEN = {("gone", "content"), ("altered", "mode"), ("a folder", "deleted"), ("gone", "promoted")}
"""Damages that are tried in every test run; the others are slow for being so many."""


def quarantined(backup: Backup) -> set[bytes]:
    places = (backup.root / ".pipeline" / "quarantine").rglob("*")
    return {place.read_bytes() for place in places if place.is_file()}


def test_foreign_files_are_moved_out_of_the_way(backup: Backup) -> None:
    """A foreign file where something is to be stored is never overwritten: it is moved to
    `.pipeline/quarantine/` and reported, exit 3; in each of the four places."""
    backup.write({"a": "a\n", "b": "b\n", "c": "c\n"})
    backup.run()
    foreign = {"new": "1", "_duplicates/copy": "2", "versions/a/v1.bak": "3", "_deleted/b": "4"}
    write_tree(backup.root, {name: f"foreign {what}\n" for name, what in foreign.items()})
    backup.write({"new": "new\n", "copy": "c\n", "a": "changed\n"})
    remove(backup.source / "b")
    result = backup.run(expect=3)
    assert quarantined(backup) == {f"foreign {what}\n".encode() for what in foreign.values()}
    assert all(name in result.stderr for name in ("new", "copy", "v1.bak", "b"))
    assert backup.names() == ["_deleted/b", "_duplicates/copy", "a", "c", "new", "versions/a/v1.bak"]
    backup.assert_all_well()


def test_a_foreign_folder_is_moved_out_of_the_way(backup: Backup) -> None:
    """A foreign folder where a file is to be stored loses nothing of what is in it, exit 3."""
    backup.write({"a": "a\n"})
    backup.run()
    write_tree(backup.root, {"new": {"deep": {"treasure": "treasure\n"}}})
    backup.write({"new": "new\n"})
    backup.run(expect=3)
    assert b"treasure\n" in backup.all_contents()
    assert backup.read("new") == b"new\n"
    backup.assert_all_well()


def test_a_foreign_file_where_a_folder_is_to_be(backup: Backup) -> None:
    """A foreign file at a folder's place is moved out of the way, exit 3."""
    backup.write({"a": "a\n"})
    backup.run()
    write_tree(backup.root, {"sub": "in the way\n"})
    backup.write({"sub": {"b": "b\n"}})
    backup.run(expect=3)
    assert quarantined(backup) == {b"in the way\n"}
    backup.assert_right()


@pytest.mark.parametrize(
    "place",
    [
        "sub",
        "versions",
        "newsub",
        *(
            pytest.param(place, marks=pytest.mark.slow)
            for place in ("_duplicates", "_deleted", "versions/sub")
        ),
    ],
)
def test_a_planted_link_leads_nowhere(backup: Backup, tmp_path: Path, place: str) -> None:
    """No write leaves the backup root, whatever symbolic links it contains: a link planted at a folder's
    place is not followed."""
    outside = tmp_path / "outside"
    write_tree(outside, {"precious": "precious\n", "a": "outside a\n", "sub": {"a": "outside sub a\n"}})
    backup.write({"sub": {"a": "a\n", "b": "b\n"}, "keep": "keep\n"})
    backup.run()
    before = snapshot(outside, folder_times=True)
    planted = backup.root / place
    planted.parent.mkdir(exist_ok=True)
    if planted.is_dir():
        shutil.rmtree(planted)
    planted.symlink_to(outside)
    backup.write({"sub": {"a": "changed\n", "c": "c\n", "copy": "keep\n"}, "newsub": {"a": "new\n"}})
    remove(backup.source / "sub" / "b")
    backup.run(expect=3)
    assert not difference(before, snapshot(outside, folder_times=True))
    assert not planted.is_symlink()
    backup.assert_mirrors_sources()
    backup.assert_nothing_left_to_do()


DAMAGES = [
    pytest.param(damage, change, marks=() if (damage, change) in OFTEN else pytest.mark.slow)
    for change in ("content", "mode", "deleted", "promoted")
    for damage in ("gone", "altered", "a folder")
]


@pytest.mark.parametrize(("damage", "change"), DAMAGES)
def test_stored_files_damaged_behind_our_back(backup: Backup, damage: str, change: str) -> None:
    """A stored file of ours that is gone or changed behind our back is reported and stored again from the
    source, exit 3; no wrong content is ever passed off as an old one."""
    backup.write({"a": "the old content\n", "b": "the old content\n", "keep": "keep\n"})
    backup.run()
    damaged = backup.root / ("_duplicates/b" if change == "promoted" else "a")
    damaged.unlink()
    if damage == "altered":
        damaged.write_text("not the old content, but something longer\n")
    elif damage == "a folder":
        write_tree(damaged, {"in it": "in it\n"})
    if change == "content":
        backup.write({"a": "the new content\n"})
    elif change == "mode":
        (backup.source / "a").chmod(0o600)
    else:
        remove(backup.source / "a")
    result = backup.run(expect=3)
    assert damaged.name in result.stderr
    backup.run(expect=None)  # one more run may be needed, not two
    backup.assert_all_well(foreign=damaged.name if change in ("deleted", "promoted") else "")
    if damage == "a folder":
        assert b"in it\n" in backup.all_contents()


def test_a_damaged_file_is_never_another_ones_version(backup: Backup) -> None:
    """Content that was altered behind our back never gets the digest of the old one."""
    backup.write({"a": "the old content\n", "keep": "keep\n"})
    backup.run()
    stored = backup.root / "a"
    found = stored.stat()
    stored.write_text("THE OLD CONTENT\n")
    # Later, not earlier: a time that was cut to 100 ns counts as the same one.
    os.utime(stored, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    backup.write({"a": "the new content\n"})
    backup.run(expect=3)
    backup.assert_all_well()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Backup]:
    """A backup whose root is a file system of its own, 2 MiB large."""
    backup = Backup(tmp_path / "small")
    backup.root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", str(backup.root)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield backup
    subprocess.run(["umount", "-l", str(backup.root)], check=True)


def remount(backup: Backup, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(backup.root)], check=True)


def large_files(backup: Backup, count: int) -> None:
    backup.write({f"large{number}": os.urandom(500_000) for number in range(count)})


def test_a_full_disk_stops_the_run_cleanly(small_disk: Backup) -> None:
    """No space on the backup side: the run stops cleanly, exit 1, all that was committed stays valid, and the
    next run goes on from there."""
    backup = small_disk
    backup.write({"a": "a\n", "b": "b\n"})
    backup.run()
    large_files(backup, 8)
    backup.write({"a": "changed\n"})
    result = backup.run(expect=1)
    assert "space" in result.stderr.lower()
    kept = backup.all_contents()
    assert b"b\n" in kept and kept & {b"a\n", b"changed\n"}
    backup.run(expect=1)
    remount(backup, "size=64m")
    backup.run()
    assert b"a\n" in backup.all_contents()
    backup.assert_all_well()
    assert backup.entry("docs/a")["versions"][0]["n"] == 1


def test_many_small_files_on_a_full_disk(small_disk: Backup) -> None:
    """The same when the space ends with many small files, in the first run."""
    backup = small_disk
    backup.write({f"file{number:04}": os.urandom(3000) for number in range(800)})
    result = backup.run(expect=1)
    assert "space" in result.stderr.lower()
    remount(backup, "size=64m")
    backup.run()
    backup.assert_right()


def test_a_read_only_backup(small_disk: Backup) -> None:
    """A read-only file system on the backup side: exit 1 and a cause, nothing lost."""
    backup = small_disk
    backup.write({"a": "a\n"})
    backup.run()
    before = backup.tree()
    remount(backup, "ro")
    backup.write({"a": "changed\n"})
    result = backup.run(expect=1)
    assert "read-only" in result.stderr.lower()
    remount(backup, "rw")
    assert not difference(before, backup.tree())
    backup.run()
    backup.assert_right()
