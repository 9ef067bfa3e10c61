"""A small history in which the last run does everything that a run can do, for sweeps over its every step.

In: a folder, and a disk for the backup root. Out: a backup whose next run has all kinds of actions before it.
Guarantees: the same history every time; the source isn't touched while a sweep goes over it.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness import Backup, difference, unlike
from images import Disk, mounted
from trees import EPOCH_NS, Link, Snapshot, Tree, remove, walk

FIRST: Tree = {
    "a original": "content shared\n",
    "b copy": "content shared\n",
    "changes": "one\n",
    "changes often": "one\n",
    "comes back": "it comes back\n",
    "copy of changes": "three\n",
    "empty folder": None,
    "folder": {"inside": "inside\n", "deeper": {"x": "x\n", "y": "y\n"}},
    "gone": "gone\n",
    "is a file": "is a file\n",
    "is a link": Link("gone"),
    "is renamed": "renamed\n",
    "large": "large " * 50_000,
    "linked": "one file with two names\n",
    "mode": "mode\n",
    "stays": "stays\n",
}


def write_history(backup: Backup) -> None:
    """Two runs, and the changes for a third one."""
    source = backup.source
    backup.write(FIRST)
    os.link(source / "linked", source / "linked, too")
    _settle(source)
    backup.run()
    backup.write({"changes often": "two\n", "comes back": "other content\n"})
    remove(source / "comes back")
    _settle(source)
    backup.run()
    for name in ("a original", "empty folder", "gone", "folder/deeper", "is a file", "is a link", "linked"):
        remove(source / name)
    os.rename(source / "is renamed", source / "new name")
    (source / "mode").chmod(0o600)
    os.setxattr(source / "mode", "user.name", b"value")
    os.link(source / "large", source / "large, too")
    backup.write(
        {
            "changes": "three\n",
            "changes often": "three, but longer\n",
            "comes back": "it comes back\n",
            "folder": {"deeper": "now a file\n", "new": {"z": "z\n", "a link": Link("z")}},
            "is a file": {"now inside": "is a file\n", "v1.bak": "odd name\n"},
            "is a link": "now a file\n",
            "large": "LARGE " * 50_000,
            "new copy": "stays\n",
        }
    )
    _settle(source)


def _settle(source: Path) -> None:
    """Times that don't hang on the clock, so that two backups of the source are equal."""
    for number, (relative, _) in enumerate(sorted(walk(source), key=lambda pair: pair[0], reverse=True)):
        moment = EPOCH_NS + number * 10**9
        if (source / relative).lstat().st_mtime_ns > EPOCH_NS + 10**15:
            os.utime(source / relative, ns=(moment, moment), follow_symlinks=False)
    os.utime(source, ns=(EPOCH_NS, EPOCH_NS))


class Eventful:
    """The backup before its third run, as an image, and what that run leaves when nothing cuts it."""

    def __init__(self, base: Path, kind: str, **settings: object) -> None:
        self.base = base
        self.backup = Backup(base / "it")
        self.backup.configure(retention__max_versions_per_file=1, **settings)
        self.backup.root.mkdir()
        self.before = Disk(base / "before.img", self.backup.root, kind)
        self.before.make()
        with mounted(self.before):
            write_history(self.backup)
        with mounted(self.copy(self.before)):
            self.backup.run()
            self.wanted = self.found()

    def copy(self, disk: Disk) -> Disk:
        """The disk on which the next try goes on."""
        return disk.copy_to(self.base / "now.img")

    def found(self) -> tuple[bytes, Snapshot]:
        self.backup._exported = None
        tree = self.backup.tree()
        tree.pop("lost+found", None)
        return self.backup.export_bytes(), tree

    def finish(self, where: str, exits: tuple[int, ...] = (0,)) -> int:
        """The next run ends as if nothing had been cut. Its exit code, one of `exits`."""
        result = self.backup.run("--quiet", expect=None)
        assert result.exit in exits, f"{where}: exit {result.exit}: {result.said}"
        exported, tree = self.found()
        unlikeness = unlike(self.wanted[0], exported) or difference(self.wanted[1], tree)
        assert not unlikeness, f"{where}: {unlikeness}"
        return result.exit
