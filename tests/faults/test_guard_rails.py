"""What keeps a user from losing a backup by an accident: rot in a source, a disk that isn't mounted, another
list of sources, too little space.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Backup, difference
from images import Disk, mounted, need

MARKER = b"the first letter of this line is going to rot\n"


@pytest.fixture
def source_disk(tmp_path: Path) -> Iterator[tuple[Backup, Disk]]:
    """A backup whose source is a disk of its own, in an image."""
    need("mkfs.ext4", "debugfs")
    backup = Backup(tmp_path / "it")
    disk = Disk(tmp_path / "source.img", backup.source, "ext4")
    disk.make()
    yield backup, disk
    if os.path.ismount(disk.mount_point):
        disk.unmount()


def long_ago(disk: Disk, name: str) -> None:
    """An unmounted disk's file was last changed years ago, by its ctime too."""
    for field in ("ctime", "mtime"):
        words = ["debugfs", "-w", "-R", f"set_inode_field /{name} {field} 20200101000000", str(disk.image)]
        subprocess.run(words, check=True, capture_output=True)


def rot(disk: Disk) -> None:
    """One bit of an unmounted disk flips, in the content that begins with MARKER."""
    content = disk.image.read_bytes()
    assert content.count(MARKER) == 1
    with disk.image.open("r+b") as image:
        image.seek(content.index(MARKER))
        image.write(bytes([MARKER[0] ^ 1]))


@pytest.mark.slow
def test_rot_in_the_source_s_disk_is_suspect_end_to_end(source_disk: tuple[Backup, Disk]) -> None:
    """A bit that flips on the source's own disk, so that not even its ctime changes: a warning, exit 3; the
    old content is kept as a pinned version that no retention ever takes, `history` shows it and `restore`
    gives it back. Guards: the case SUSPECT of `planner.entries`, and `pinned` in what retention counts."""
    backup, disk = source_disk
    with mounted(disk):
        backup.write({"rots": MARKER + bytes(9000), "stays": "stays\n"})
    long_ago(disk, "rots")
    with mounted(disk):
        backup.run()
    rot(disk)
    with mounted(disk):
        result = backup.run(expect=3)
        assert result.decisions() == ["SUSPECT: docs/rots"] and "bit rot" in result.said
        backup.configure(retention__max_versions_per_file=0)
        for content in ("newer\n", "newest\n"):
            backup.write({"rots": content})
            backup.run()
        shown = backup.call("history", "rots").stdout
        assert re.search(r"\bv1\b.*pinned|pinned.*\bv1\b", shown), shown
        assert backup.read("versions/rots/v1.bak").startswith(MARKER)
        assert "versions/rots/v1.pinned" in backup.names()
        backup.call("restore", "rots", "--version", "1", "--to", str(backup.base / "there"), "--quiet")
        assert (backup.base / "there" / "rots").read_bytes().startswith(MARKER)
        backup.assert_all_well()


def test_a_source_whose_disk_is_not_mounted(source_disk: tuple[Backup, Disk]) -> None:
    """An unmounted disk isn't a deletion: exit 1, nothing touched, and the message asks for it. Guard:
    `sources._refuse_empty`."""
    backup, disk = source_disk
    with mounted(disk):
        shutil.rmtree(backup.source / "lost+found")
        backup.write({"a": "a\n", "folder": {"b": "b\n"}})
        backup.run()
    before = backup.tree()
    result = backup.run("--set", "safety.max_delete_percent=100", expect=1)
    assert "mounted?" in result.stderr
    assert not difference(before, backup.tree())
    with mounted(disk):
        backup.assert_all_well()


def test_a_source_that_points_elsewhere_deletes_nothing(tmp_path: Path) -> None:
    """A `sources` list that is changed by mistake never clears the backup. Another folder under the old name
    is a mass deletion, and held back; under its own name it is a source of its own. Guards: the deletion
    guard of `Committer`, and that missing paths are looked for in configured sources only."""
    backup = Backup(tmp_path)
    backup.write({f"file{number:03}": f"{number}\n" for number in range(120)})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "alone").write_text("alone\n")
    backup.run()
    names = set(backup.names())
    backup.sources = [("other", "docs")]
    backup.write_config()
    result = backup.run(expect=3)
    assert "max_delete_percent" in result.stderr
    assert names <= set(backup.names()) and backup.read("alone") == b"alone\n"
    (tmp_path / "other" / "alone").write_text("not so\n")
    backup.sources = ["other"]
    backup.write_config()
    backup.run()
    assert names <= set(backup.names()) and backup.read("other/alone") == b"not so\n"
    backup.sources = ["docs"]
    backup.write_config()
    assert backup.run().decisions() == ["DELETE: docs/alone"]
    backup.assert_sound()


def test_too_little_space_is_told_before_a_large_run(tmp_path: Path) -> None:
    """Before a first run that can't fit there is a warning with both figures; where holes make it fit after
    all, and when there is enough, there is none. Guard: `space.shortage`."""
    need("mount")
    backup = Backup(tmp_path)
    backup.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "none", backup.root], check=True)
    try:
        backup.write({f"large{number}": os.urandom(1_000_000) for number in range(6)})
        with (backup.source / "sparse").open("wb") as sparse:
            sparse.truncate(300 << 20)
        result = backup.run("--json", expect=1)
        told = [line["cause"] for line in result.lines if line["type"] == "warning"]
        assert len(told) == 1 and re.search(
            r"6\.[01] MB are new .*\(7 files\), 4\.[0-9] MB are free", told[0]
        ), told
        assert not os.listdir(backup.root / ".pipeline" / "staging"), "the run gives the space back"
        for number in range(3):
            (backup.source / f"large{number}").unlink()
        backup.run("--set", "safety.max_delete_percent=100")
        backup.assert_right()
    finally:
        subprocess.run(["umount", "-l", backup.root], check=True)
