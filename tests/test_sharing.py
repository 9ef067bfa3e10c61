"""`duplicates.action`: duplicates share what is stored, and a change to one never reaches another."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.images import Disk, mounted, need
from harness import Backup
from restored import keep, restore, unlike
from trees import EPOCH_NS, File, remove, write_tree

from pipeline.store import calls
from pipeline.store.folders import FOLDER_FLAGS, Folders
from pipeline.store.operation import Identity
from pipeline.store.sharing import Sharing
from pipeline.store.staging import Staged

LARGE = os.urandom(1 << 20) * 3
SAME = File(b"the same\n", mtime_ns=EPOCH_NS)


@pytest.fixture
def linked(tmp_path: Path) -> Backup:
    """Five paths with one content: two with all the same metadata in the same run, one in the next one, one
    with another mode, one with another time."""
    backup = Backup(tmp_path / "one", settings={"duplicates.action": "hardlink"})
    backup.write({"a": SAME, "b": SAME, "mode": SAME._replace(mode=0o600), "time": SAME._replace(mtime_ns=5)})
    backup.run()
    backup.write({"z": SAME})
    backup.run()
    return backup


def inodes(backup: Backup) -> dict[str, int]:
    """Of each path's stored file."""
    found = {}
    for path, line in backup.entries().items():
        if line["kind"] == "file":
            found[path.removeprefix("docs/")] = (backup.root / line["stored_at"]).stat().st_ino
    return found


def sharing(backup: Backup) -> list[set[str]]:
    """The paths whose stored files are one file."""
    by_inode: dict[int, set[str]] = {}
    for path, inode in inodes(backup).items():
        by_inode.setdefault(inode, set()).add(path)
    return sorted((paths for paths in by_inode.values() if len(paths) > 1), key=sorted)


def test_equal_in_all(linked: Backup, tmp_path: Path) -> None:
    """One inode for what has the same bytes and the same metadata, and for nothing else; it is as good a
    backup as any."""
    assert sharing(linked) == [{"a", "b", "z"}]
    linked.call("verify")
    restore(linked, tmp_path / "to")
    assert not unlike(keep(linked.source), keep(tmp_path / "to"))
    assert linked.run("--json").summary["skip"] == 5


CHANGES: dict[str, Callable[[Path], None]] = {
    "bytes": lambda docs: write_tree(docs, {"b": File(b"other\n", mtime_ns=6)}),
    "bytes of the original": lambda docs: write_tree(docs, {"a": File(b"other\n", mtime_ns=6)}),
    "mode": lambda docs: (docs / "b").chmod(0o640),
    "mode of the original": lambda docs: (docs / "a").chmod(0o640),
    "time": lambda docs: os.utime(docs / "z", ns=(7, 7)),
    "attribute": lambda docs: os.setxattr(docs / "b", "user.a", b"1"),
    "gone": lambda docs: remove(docs / "b"),
    "the original gone": lambda docs: remove(docs / "a"),
    "all but one gone": lambda docs: [remove(docs / name) for name in ("a", "b")] and None,
}


QUICK = ("bytes of the original", "mode", "the original gone")


@pytest.mark.parametrize(
    "change",
    [pytest.param(change, marks=[] if change in QUICK else [pytest.mark.slow]) for change in CHANGES],
)
def test_a_change_to_one(linked: Backup, tmp_path: Path, change: str) -> None:
    """It reaches no other: the backup is what one of copies would be, file by file; all runs come back."""
    copies = Backup(tmp_path / "copies", make_sources=False)
    shutil.copytree(linked.source, copies.source, symlinks=True)
    before = tmp_path / "before"
    shutil.copytree(linked.source, before, symlinks=True)
    copies.run()
    for backup in (linked, copies):
        CHANGES[change](backup.source)
        os.utime(backup.source, ns=(EPOCH_NS, EPOCH_NS))
        backup.run()
    for path, line in linked.entries().items():
        at = linked.root / line["stored_at"]
        twin = copies.root / copies.entry(path)["stored_at"]
        for stored in (at, twin):
            assert stored.exists(), path
        if line["kind"] == "file":
            assert at.read_bytes() == twin.read_bytes(), path
            same = ("st_mode", "st_mtime_ns")
            assert [getattr(at.stat(), n) for n in same] == [getattr(twin.stat(), n) for n in same], path
            assert os.listxattr(at) == os.listxattr(twin), path
    linked.call("verify")
    for at_run, wanted in (("2", before), ("3", linked.source)):
        restore(linked, tmp_path / at_run, "--at", at_run)
        assert not unlike(keep(wanted), keep(tmp_path / at_run), but=[])


def test_a_rotten_original_takes_none_along(linked: Backup, tmp_path: Path) -> None:
    """Bytes are compared, not digests: what has rotted unseen is not shared."""
    stored = linked.root / "a"
    found = stored.stat()
    stored.write_bytes(b"the SAME\n")
    os.utime(stored, ns=(found.st_atime_ns, found.st_mtime_ns))
    linked.write({"zz": SAME})
    linked.run()
    assert "zz" not in {path for paths in sharing(linked) for path in paths}
    assert (linked.root / linked.entry("docs/zz")["stored_at"]).read_bytes() == SAME.content


@pytest.mark.parametrize("algorithm", ["xxh3_128", "sha256"])
def test_other_hashes(tmp_path: Path, algorithm: str) -> None:
    settings = {"duplicates.action": "hardlink", "hash_algorithm": algorithm}
    backup = Backup(tmp_path / "one", settings=settings)
    backup.write({"a": File(LARGE, mtime_ns=5), "b": File(LARGE, mtime_ns=5)})
    backup.run()
    assert sharing(backup) == [{"a", "b"}]


def test_where_blocks_can_t_be_shared(tmp_path: Path) -> None:
    """`reflink` falls back to copies, and says so once."""
    settings = {"duplicates.action": "reflink"}
    backup = Backup(tmp_path / "one", settings=settings)
    backup.write({"a": SAME, "b": SAME, "c": SAME})
    result = backup.run("--json", expect=3)  # in memory, where no blocks can be shared
    causes = [line["cause"] for line in result.lines if line["type"] == "warning"]
    assert len(causes) == 1 and 'duplicates.action = "reflink"' in causes[0]
    assert (backup.root / "_duplicates/c").read_bytes() == SAME.content
    backup.call("verify")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_shared_blocks(kind: str, tmp_path: Path) -> None:
    """A duplicate takes no space, has metadata of its own, and stays as it is when its original changes."""
    need(f"mkfs.{kind}")
    disk = Disk(tmp_path / "image", tmp_path / "disk", kind)
    disk.make()
    with mounted(disk):
        settings = {"duplicates.action": "reflink", "backup_root": str(disk.mount_point / "backup")}
        backup = Backup(tmp_path / "one", settings=settings)
        content = os.urandom(20 << 20) + b"tail"
        backup.write({"a": File(content, mtime_ns=5)})
        backup.run()
        used = shutil.disk_usage(disk.mount_point).used
        backup.write({f"b{number}": File(content, 0o600 + number, 6 + number) for number in range(3)})
        backup.run()
        os.sync()
        assert shutil.disk_usage(disk.mount_point).used - used < 5 << 20
        root = disk.mount_point / "backup"
        for number in range(3):
            found = (root / f"_duplicates/b{number}").stat()
            assert (found.st_mode & 0o777, found.st_mtime_ns) == (0o600 + number, 6 + number)
        backup.write({"a": b"other"})
        backup.run()
        assert (root / "_duplicates/b1").read_bytes() == content
        backup.call("verify")


def test_a_changed_duplicate_whose_stored_file_is_gone(tmp_path: Path) -> None:
    """It is stored by this very run: what was staged for it isn't given up before all is known."""
    backup = Backup(tmp_path / "one", settings={"duplicates.action": "hardlink"})
    backup.write({"a": SAME, "b": File(b"other bytes\n", mtime_ns=EPOCH_NS)})
    backup.run()
    (backup.root / "b").unlink()
    backup.write({"b": SAME})
    backup.run(expect=3)
    assert (backup.root / backup.entry("docs/b")["stored_at"]).read_bytes() == SAME.content


def test_a_new_first_name_changes_nothing_that_is_stored(linked: Backup) -> None:
    for name in ("x", "y"):
        os.link(linked.source / "a", linked.source / name)
    linked.run()
    before = inodes(linked)
    os.link(linked.source / "a", linked.source / "0")
    linked.run()
    after = inodes(linked)
    assert {path: after[path] for path in before} == before


def test_an_original_with_a_bad_sector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The duplicate is stored by itself, and the run goes on."""
    for name in ("staging/new", "root/a"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("same")
        os.utime(tmp_path / name, ns=(5, 5))
    inode, read = (tmp_path / "root/a").stat().st_ino, os.pread

    def pread(handle: int, *rest: int) -> bytes:
        if os.fstat(handle).st_ino == inode:
            raise OSError(errno.EIO, "bad sector")
        return read(handle, *rest)

    monkeypatch.setattr(os, "pread", pread)
    handles = [calls.open(tmp_path / name, FOLDER_FLAGS) for name in ("staging", "root")]
    new = Staged(b"new", Identity((tmp_path / "staging/new").stat().st_ino, 4, b"d", None))
    sharing = Sharing("hardlink", handles[0], Folders(handles[1]), lambda: b"p-1")
    assert sharing.share(new, None, b"a") == (new, None)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_full_disk_is_met_before_the_group_counts(tmp_path: Path) -> None:
    """What needs room for a file of its own fails while the run can still give up; the next one goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True)
    try:
        settings = {"duplicates.action": "hardlink", "backup_root": str(disk / "backup")}
        backup = Backup(tmp_path / "one", settings=settings)
        backup.write({"m": os.urandom(9 << 20)})
        backup.run()
        for name in ("n", "o", "p"):
            os.link(backup.source / "m", backup.source / name)
            backup.run()
        (backup.source / "m").chmod(0o600)
        backup.run(expect=1)
        (backup.source / "m").chmod(0o644)
        backup.write({"new": "small\n"})
        backup.run()
        assert (disk / "backup/new").exists()
    finally:
        subprocess.run(["umount", disk], check=True)
