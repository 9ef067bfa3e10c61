"""Everything that a file is comes back: attributes, access lists, owners, hard links, special files.

The judge is `rsync`. These tests need root, since most of this is for root alone.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from everything import (
    GROUP,
    USER,
    access_list,
    judged,
    set_list,
    write_everything,
)
from faults.images import Disk, mounted, need
from harness import Backup
from restored import restore
from trees import EPOCH_NS, remove

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

PRIVATE = access_list(6, 0, 6, 0, (USER, 1234, 6))
LIST = access_list(6, 4, 6, 4, (USER, 1234, 6))


@pytest.fixture
def everything(tmp_path: Path) -> Backup:
    backup = Backup(tmp_path / "one", make_sources=False)
    write_everything(backup.source)
    return backup


def test_everything_comes_back(everything: Backup, tmp_path: Path) -> None:
    """Nothing is left that the judge would change; and a second run finds nothing to do."""
    everything.run()
    restore(everything, tmp_path / "to", "--specials")
    assert judged(everything.source, tmp_path / "to") == ""
    again = everything.run("--json", expect=0)
    assert {again.summary[key] for key in ("backup", "metadata", "modified", "duplicate")} == {0}


def become_another(name: Path) -> None:
    """An equal file in the place of this name of a file."""
    shutil.copy2(name, name.with_name("for a moment"))
    name.with_name("for a moment").replace(name)


def without(name: str) -> Callable[[Path], None]:
    return lambda to: os.removexattr(to / "lists/plain", name)


@pytest.mark.parametrize(
    "harm",
    [
        without("user.bytes"),
        without("trusted.mark"),
        lambda to: os.removexattr(to / "lists/list", "system.posix_acl_access"),
        lambda to: os.removexattr(to / "lists/inherits", "system.posix_acl_default"),
        lambda to: os.chown(to / "kinds/link", 1, 1, follow_symlinks=False),
        lambda to: os.utime(to / "kinds/link", ns=(5, 5), follow_symlinks=False),
        lambda to: become_another(to / "names/zz"),
        lambda to: remove(to / "kinds/character"),
    ],
)  # fmt: skip
def test_the_judge_sees_it(everything: Backup, harm: Callable[[Path], None]) -> None:
    """(What this whole page rests on.)"""
    twin = everything.base / "twin"
    subprocess.run(["cp", "-a", everything.source, twin], check=True)
    assert judged(everything.source, twin) == ""
    harm(twin)
    assert judged(everything.source, twin) != ""


def test_over_what_is_there(everything: Backup, tmp_path: Path) -> None:
    """`--overwrite if-different` leaves alone what is right, and mends every kind of difference."""
    everything.run()
    to = tmp_path / "to"
    restore(everything, to, "--specials")
    first = restore(everything, to, "--specials", "--overwrite", "if-different", "--json").summary
    assert (first["files"], first["links"], first["specials_restored"]) == (0, 0, 0)
    os.removexattr(to / "lists/plain", "user.bytes")
    set_list(to / "lists/large", LIST)
    os.setxattr(to / "empty", "user.more", b"x")
    remove(to / "kinds/block")
    os.mknod(to / "kinds/block", stat.S_IFBLK | 0o660, os.makedev(7, 1))
    remove(to / "names/zz")
    restore(everything, to, "--specials", "--overwrite", "if-different")
    assert judged(everything.source, to) == ""


def test_what_a_stored_file_has(everything: Backup) -> None:
    """What people and `cp -a` can use: attributes of the user and lists. Nothing in a backup runs with rights
    of its own, and nothing private becomes readable through it."""
    everything.run()
    lists = everything.root / "lists"
    assert os.getxattr(lists / "plain", "user.bytes") == b"\0\xff\n"
    assert os.getxattr(lists / "private", "system.posix_acl_access") == PRIVATE
    assert os.listxattr(lists / "capability") == []
    assert "trusted.mark" not in os.listxattr(lists / "plain")
    assert stat.S_IMODE((lists / "list").stat().st_mode) == 0o754


CHANGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "attribute": ("plain (attributes differ)", lambda docs: os.setxattr(docs / "plain", "user.a", b"2")),
    "list": (
        "plain (mode and attributes differ)",
        lambda docs: set_list(docs / "plain", access_list(6, 4, 7, 4, (GROUP, 77, 7))),
    ),
    "another name": ("plain (hard links differ)", lambda docs: os.link(docs / "plain", docs / "a name")),
    "a name less": ("two (hard links differ)", lambda docs: remove(docs / "one")),
    "no name any more": ("two (hard links differ)", lambda docs: become_another(docs / "two")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_metadata_alone(backup: Backup, tmp_path: Path, change: str) -> None:
    """A METADATA action with no version; each run's own are brought back by `--at`."""
    docs = backup.source
    for name in ("plain", "one"):
        (docs / name).write_text(f"{name}\n")
        os.utime(docs / name, ns=(EPOCH_NS, EPOCH_NS))
    os.setxattr(docs / "plain", "user.a", b"1")
    os.link(docs / "one", docs / "two")
    os.utime(docs, ns=(EPOCH_NS, EPOCH_NS))
    before = tmp_path / "before"
    shutil.copytree(docs, before, symlinks=True)
    remove(before / "two")
    os.link(before / "one", before / "two")
    os.utime(before, ns=(EPOCH_NS, EPOCH_NS))
    backup.run()
    planned, make = CHANGES[change]
    make(docs)
    os.utime(docs, ns=(EPOCH_NS, EPOCH_NS))
    result = backup.run()
    assert f"METADATA: docs/{planned}" in result.planned()
    assert not [line for line in result.log if line.startswith(("ARCHIVE:", "UPDATED"))]
    for at, wanted in (("1", before), ("2", docs)):
        restore(backup, tmp_path / at, "--at", at)
        assert judged(wanted, tmp_path / at) == ""


def test_a_part_of_the_names(everything: Backup, tmp_path: Path) -> None:
    """Of a file's names only those that were asked for come back, as one file."""
    everything.run()
    restore(everything, tmp_path / "to", "names/deep", "names/zz")
    to = tmp_path / "to/names"
    assert (to / "zz").stat().st_ino == (to / "deep/same").stat().st_ino
    assert (to / "zz").stat().st_nlink == 2


def test_a_name_of_a_file_that_is_rotten(everything: Backup, tmp_path: Path) -> None:
    """Each name has a stored file of its own, so one that is rotten takes no other along; and what stands in
    the rotten one's way is never given a second name."""
    everything.run()
    rotten = everything.root / "names/deep/same"  # first in scan order
    found = rotten.stat()
    rotten.write_bytes(b"rotten")
    os.truncate(rotten, found.st_size)
    os.utime(rotten, ns=(found.st_atime_ns, found.st_mtime_ns))
    to = tmp_path / "to"
    result = restore(everything, to, "--json", expect=3)
    assert [line["path"] for line in result.lines if line["type"] == "error"] == ["docs/names/deep/same"]
    assert (to / "names/file").read_bytes() == (to / "names/zz").read_bytes() == b"one file, three names\n"
    assert not (to / "names/deep/same").exists()


def test_owners_by_name(backup: Backup, tmp_path: Path) -> None:
    """Numbers are called differently on two machines: who it was by name comes first, unless numbers are
    wanted, or nobody has that name here."""
    for name, uid in (("known", 4242), ("unknown", 4243), ("nameless", 4244)):
        (backup.source / name).write_text(name)
        os.chown(backup.source / name, uid, uid)
    backup.run()
    with sqlite3.connect(backup.root / ".pipeline/state.db") as state:
        for is_group in (0, 1):
            state.execute("INSERT INTO owners VALUES (?, 4242, 'daemon')", (is_group,))
            state.execute("INSERT INTO owners VALUES (?, 4243, 'nobody-by-this-name')", (is_group,))
    state.close()
    (backup.root / ".pipeline/state.seal").unlink()
    restore(backup, tmp_path / "names")
    restore(backup, tmp_path / "numbers", "--numeric-ids")
    owners = {to: {p.name: p.stat().st_uid for p in (tmp_path / to).iterdir()} for to in ("names", "numbers")}
    assert owners["names"] == {"known": 1, "unknown": 4243, "nameless": 4244}
    assert owners["numbers"] == {"known": 4242, "unknown": 4243, "nameless": 4244}
    groups = {p.name: p.stat().st_gid for p in (tmp_path / "names").iterdir()}
    assert groups == {"known": 1, "unknown": 4243, "nameless": 4244}


def test_names_of_owners_are_recorded(backup: Backup) -> None:
    (backup.source / "one").write_text("one")
    os.chown(backup.source / "one", 1, 2)
    backup.run()
    with sqlite3.connect(backup.root / ".pipeline/state.db") as state:
        rows = state.execute("SELECT * FROM owners ORDER BY is_group, id").fetchall()
    state.close()
    assert rows == [(0, 0, "root"), (0, 1, "daemon"), (1, 0, "root"), (1, 2, "bin")]


def test_without_rights(everything: Backup, tmp_path: Path) -> None:
    """Who isn't root can't give everything back: one warning for each kind, with the number, and the rest is
    there."""
    everything.run()
    to = tmp_path / "to"
    to.mkdir()
    os.chown(to, 65534, 65534)
    program = everything.program
    rights = "+dac_override,+dac_read_search"  # to read what root has made here
    everything.program = [
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps={rights}",
        f"--ambient-caps={rights}", *program,
    ]  # fmt: skip
    result = restore(everything, to, "--specials", "--json", expect=3)
    warnings = [line["cause"].partition(":")[0] for line in result.lines if line["type"] == "warning"]
    assert warnings == [
        "devices not restored, of 2 entries",
        "extended attributes (security.*) not restored, of 1 entries",
        "extended attributes (trusted.*) not restored, of 2 entries",
        "owners not restored, of 25 entries",
    ]
    assert not [line for line in result.lines if line["type"] == "error"]
    assert (to / "lists/capability").read_text() == "capability\n"
    assert os.getxattr(to / "lists/plain", "user.bytes") == b"\0\xff\n"


def test_set_id_bits_come_with_the_owner_alone(everything: Backup, tmp_path: Path) -> None:
    """Also for root, where it can't give owners: in a container, on a share. Else what was somebody else's
    would run with the rights of root."""
    everything.run()
    everything.program = ["setpriv", "--bounding-set=-chown", "--inh-caps=-chown", *everything.program]
    restore(everything, tmp_path / "to", "--specials", expect=3)
    for name, mode in (
        ("lists/list", 0o754), ("kinds/set", 0o755), ("kinds/fifo", 0o750), ("empty", 0o1775),
    ):  # fmt: skip
        found = (tmp_path / "to" / name).stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, mode), name


@pytest.mark.handles
def test_what_can_t_be_seen_keeps_nothing_out(backup: Backup) -> None:
    """More names of attributes than the system tells (64 KiB), and links where there is no /proc: all is
    backed up, with a warning; and what is private stays so, since a list can be asked for by its name."""
    (backup.source / "folder").mkdir()
    for place in (backup.source / "folder", backup.source / "folder/one"):
        if place.name == "one":
            place.write_text("one")
            set_list(place, PRIVATE)
        for number in range(300):
            os.setxattr(place, f"trusted.{number:03}" + "x" * 230, b"")
    for number in range(3):
        (backup.source / f"link{number}").symlink_to("nowhere")
    without_proc = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    result = backup.run("--json", expect=3, under=without_proc)
    warned = [line["path"] for line in result.lines if line["type"] == "warning"]
    assert warned == ["docs/folder", "docs/folder/one", "docs/link0"]
    assert (backup.root / "folder/one").read_text() == "one"
    assert os.listxattr(backup.root / "folder/one") == ["system.posix_acl_access"]
    assert [os.path.lexists(backup.root / f"link{number}") for number in range(3)] == [True] * 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_on_other_file_systems(kind: str, tmp_path: Path) -> None:
    """Source, backup and restored tree, all on a disk of that kind."""
    need(f"mkfs.{kind}", "rsync")
    disk = Disk(tmp_path / "image", tmp_path / "disk", kind)
    disk.make()
    with mounted(disk):
        backup = Backup(disk.mount_point / "one", make_sources=False)
        write_everything(backup.source)
        backup.run()
        restore(backup, disk.mount_point / "to", "--specials")
        assert judged(backup.source, disk.mount_point / "to") == ""
        (backup.root / ".pipeline/state.db").unlink()
        backup.call("rebuild", expect=0)
        again = backup.run()
        assert {line.partition(":")[0] for line in again.planned()} <= {"METADATA"}
        restore(backup, disk.mount_point / "again", "--specials")
        assert judged(backup.source, disk.mount_point / "again") == ""


@pytest.mark.slow
def test_where_attributes_can_t_be_held(tmp_path: Path) -> None:
    """A backup, and a restore, on a file system without attributes and lists: never an abort. What the state
    knows is brought back elsewhere; what was private stays private in the backup."""
    need("rsync")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", disk], check=True)
    try:
        backup = Backup(tmp_path / "one", settings={"backup_root": str(disk / "backup")})
        source = backup.source
        for name in ("a", "b", "c"):
            (source / name).write_text(name)
            set_list(source / name, PRIVATE)
            os.setxattr(source / name, "user.name", name.encode())
        (source / "b").chmod(0o600)  # the mask is empty by now
        set_list(source / "c", access_list(6, 4, 4, 4, (USER, 1234, 0)))  # one is shut out
        backup.run()
        assert [stat.S_IMODE((disk / "backup" / name).stat().st_mode) for name in "abc"] == [0o600] * 3
        restore(backup, tmp_path / "to")
        assert judged(source, tmp_path / "to") == ""
        result = restore(backup, disk / "to", "--json", expect=3)
        causes = sorted(line["cause"].partition(":")[0] for line in result.lines if line["type"] == "warning")
        assert causes == [
            "access control lists not restored, of 3 entries",
            "extended attributes (user.*) not restored, of 3 entries",
        ]
        assert [stat.S_IMODE((disk / "to" / name).stat().st_mode) for name in "abc"] == [0o600] * 3
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("harm", "command"),
    [
        ("UPDATE attributes SET packed = x'c1c1c1'", "export"),
        ("UPDATE attributes SET packed = x'c1c1c1'", "restore one"),
        ("UPDATE attributes SET packed = x'c1c1c1'", "run"),
        ("DELETE FROM attributes", "restore one"),
    ],
)
def test_attributes_that_the_state_has_lost(backup: Backup, tmp_path: Path, harm: str, command: str) -> None:
    """Named with the path that they belong to, and never restored without a word; a new state can be made."""
    (backup.source / "one").write_text("one")
    os.setxattr(backup.source / "one", "user.a", b"1")
    backup.run()
    with sqlite3.connect(backup.root / ".pipeline/state.db") as state:
        state.execute(harm)
    state.close()
    (backup.root / ".pipeline/state.seal").unlink()
    to = ("--to", str(tmp_path / "to")) if command.startswith("restore") else ()
    result = backup.call(*command.split(), *to, expect=None)
    assert result.exit in (1, 3) and "docs/one" in result.said
    if command == "run":
        backup.call("rebuild", expect=0)
        assert backup.run("--json").summary["metadata"] == 0
