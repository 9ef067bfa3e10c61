"""Names of one file: found whatever else happens, and never given to another content."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from everything import USER, access_list, judged, set_list
from faults.images import Disk, mounted, need
from harness import Backup
from restored import restore
from trees import EPOCH_NS, File

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def linked(backup: Backup) -> Backup:
    """One file with three names, the last one in a folder."""
    backup.write({"a": File(b"right\n", mtime_ns=EPOCH_NS), "z": {}})
    for name in ("b", "z/c"):
        os.link(backup.source / "a", backup.source / name)
    backup.run()
    return backup


def test_no_name_for_what_stands_in_the_way(linked: Backup, tmp_path: Path) -> None:
    """A name is given to bytes that were hashed, not to a file that looks right: here one that has rotted in
    the folder, and whose stored file is gone. The other names are one file all the same."""
    to = tmp_path / "to"
    restore(linked, to)
    for name in ("b", "z/c"):
        (to / name).unlink()
    (to / "a").write_bytes(b"wrong\n")
    os.utime(to / "a", ns=(EPOCH_NS, EPOCH_NS))
    (linked.root / "a").unlink()
    restore(linked, to, "--overwrite", "always", expect=3)
    assert (to / "b").read_bytes() == b"right\n"
    assert os.path.samefile(to / "b", to / "z/c")


def test_what_is_there_becomes_what_it_was(linked: Backup, tmp_path: Path) -> None:
    """`--overwrite if-different` makes one of two files that were one, and two of one that were two."""
    linked.write({"two": File(b"right\n", mtime_ns=EPOCH_NS)})
    os.utime(linked.source, ns=(EPOCH_NS, EPOCH_NS))
    linked.run()
    to = tmp_path / "to"
    restore(linked, to)
    shutil.copy2(to / "a", to / "new")
    (to / "new").replace(to / "b")
    (to / "two").unlink()
    os.link(to / "a", to / "two")
    restore(linked, to, "--overwrite", "if-different")
    assert os.path.samefile(to / "a", to / "b") and not os.path.samefile(to / "a", to / "two")
    again = restore(linked, to, "--overwrite", "if-different", "--json").summary
    assert (again["files"], again["already_there"]) == (0, 4)


def test_a_name_that_is_not_looked_at(linked: Backup) -> None:
    """A name that is left out by now, and whose stored file is gone, stops nobody."""
    linked.configure(filters__exclude=["b"])
    (linked.root / "_duplicates/b").unlink()
    (linked.source / "a").chmod(0o600)
    linked.run()


@pytest.mark.slow
def test_where_there_are_no_hard_links(linked: Backup, tmp_path: Path) -> None:
    """Told once, with the number; the files are there."""
    need("strace")
    strace = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=linkat",
        "-e",
        "inject=linkat:error=EPERM",
    ]
    result = linked.call("restore", "--to", str(tmp_path / "to"), under=strace, expect=3)
    assert "hard links not restored, of 2 entries" in result.said
    assert (tmp_path / "to/z/c").read_bytes() == b"right\n"


@needs_root
@pytest.mark.slow
def test_where_lists_can_t_be_held(tmp_path: Path) -> None:
    """What a file lacks there doesn't cost it its names."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", disk], check=True)
    try:
        backup = Backup(tmp_path / "one")
        backup.write({"a": "one file\n"})
        set_list(backup.source / "a", access_list(6, 4, 6, 0, (USER, 1234, 6)))
        os.link(backup.source / "a", backup.source / "b")
        backup.run()
        restore(backup, disk / "to", expect=3)
        assert os.path.samefile(disk / "to/a", disk / "to/b")
    finally:
        subprocess.run(["umount", disk], check=True)


@needs_root
@pytest.mark.slow
def test_a_snapshot_in_its_own_source(tmp_path: Path) -> None:
    """The same inode numbers and time stamps on another file system: two files, not one with four names."""
    need("mkfs.btrfs", "rsync")
    disk = Disk(tmp_path / "image", tmp_path / "disk", "btrfs")
    disk.make()
    with mounted(disk):
        home = disk.mount_point / "home"
        for words in (["create", home], ["snapshot", home, home / "snapshot"]):
            subprocess.run(["btrfs", "-q", "subvolume", *words], check=True, stdout=subprocess.DEVNULL)
            if words[0] == "create":
                (home / "file").write_text("a file with two names\n")
                os.link(home / "file", home / "other")
        backup = Backup(tmp_path / "one", sources=[str(home)], make_sources=False)
        backup.run()
        restore(backup, tmp_path / "to")
        assert judged(home, tmp_path / "to") == ""


def test_names_come_and_go(backup: Backup, tmp_path: Path) -> None:
    """Each run's own names are brought back, whichever of them was first at that time."""
    docs, kept = backup.source, []
    backup.write({"m": File(b"one\n", mtime_ns=EPOCH_NS)})
    for number, change in enumerate(
        (
            lambda: os.link(docs / "m", docs / "z"),
            lambda: os.link(docs / "m", docs / "a"),
            lambda: (docs / "a").unlink(),
            lambda: backup.write({"a": File(b"one\n", mtime_ns=EPOCH_NS)}),
            lambda: ((docs / "m").unlink(), os.link(docs / "a", docs / "m")),
        ),
        1,
    ):
        change()
        os.utime(docs, ns=(EPOCH_NS, EPOCH_NS))
        backup.run()
        kept.append(tmp_path / f"kept {number}")
        subprocess.run(["cp", "-a", docs, kept[-1]], check=True)
    for number, wanted in enumerate(kept, 1):
        restore(backup, tmp_path / f"{number}", "--at", str(number))
        assert judged(wanted, tmp_path / f"{number}") == "", number


def test_a_prune_has_not_looked(linked: Backup) -> None:
    """Which names belong together waits for a run that looks at everything."""
    with sqlite3.connect(linked.root / ".pipeline/state.db") as state:
        state.execute("UPDATE files SET linked_to = NULL")
        state.execute("REPLACE INTO settings VALUES ('names_due', 1)")
    state.close()
    (linked.root / ".pipeline/state.seal").unlink()
    assert not linked.call("prune").planned()
    assert "linked_to" not in linked.entry("docs/b")
    linked.run()
    assert linked.entry("docs/b")["linked_to"] == "docs/a"
