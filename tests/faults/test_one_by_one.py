"""Where no call syncs a whole file system: what a commit relies on was synced before it, name by name.

A trace of the parent's calls is read as a disk would see them: what was changed and not synced isn't there.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from eventful import write_history
from harness import Backup
from images import need
from injected import Call, run_killed_at, tracing

SMALL_GROUPS = """
from pipeline.store import journal
journal.GROUP_OPERATIONS = 4
from pipeline.ui.cli import main
main()
"""
NAMES = (
    "fsync", "fdatasync", "syncfs", "sync", "rename", "renameat", "renameat2", "link", "linkat", "symlink",
    "symlinkat", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "chmod", "fchmodat", "utimensat",
)  # fmt: skip
_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')
_HANDLE = re.compile(r"\(\d+<([^>]*)>")


class Disk:
    """What of a backup is on the disk, by the calls of the process that writes it. What lies there already
    is."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.staging = f"{root}/.pipeline/staging"
        there = {str(path) for path in root.rglob("*")}
        self.links = {path for path in there if os.path.islink(path)}  # which nobody can sync
        self.unsynced: set[str] = set()  # folders whose names, and things whose metadata, have changed
        self.synced = {path for path in there if os.path.dirname(path) == self.staging}
        self.counted = set(self.synced)  # by the last commit
        self.left: set[str] = set()  # what was unsynced then
        self.placed = self.commits = 0

    def see(self, line: str) -> None:
        name, where, done = line.partition("(")[0], line.partition("(")[2], line.rpartition(" = ")[2]
        if done.startswith("-1"):
            return
        paths = [path for path in _PATH.findall(where) if path.startswith("/")]
        if name in ("fsync", "fdatasync"):
            found = _HANDLE.search(line)
            assert found is not None, line
            self._sync(found[1])
        elif name in ("syncfs", "sync"):
            raise AssertionError(f"nothing to be had here: {line}")
        elif name in ("rename", "renameat", "renameat2", "link", "linkat"):
            old, new = paths
            self._move(old, new, is_link=name.startswith("link"))
        elif name in ("symlink", "symlinkat"):
            self.links.add(paths[-1])
            self._change(os.path.dirname(paths[-1]))
        elif paths:
            self._change(
                paths[-1] if name in ("chmod", "fchmodat", "utimensat") else os.path.dirname(paths[-1])
            )
            if name in ("rmdir", "unlink", "unlinkat"):
                self._forget(paths[-1])
            elif name.startswith("mkdir"):
                self._change(paths[-1])

    def _sync(self, path: str) -> None:
        if path.endswith("/state.db-wal"):
            self.commits += 1
            self.left, self.counted = set(self.unsynced), set(self.synced)
        self.unsynced.discard(path)
        if os.path.dirname(path) == self.staging:
            self.synced.add(path)

    def _move(self, old: str, new: str, is_link: bool) -> None:
        if os.path.dirname(old) == self.staging and self._is_stored(new):
            assert old in self.counted or old in self.links, f"{old} gets its name {new} unsynced"
            self.placed += 1
        if old in self.links:
            self.links.add(new)
        self._change(os.path.dirname(new))
        if not is_link:
            self._change(os.path.dirname(old))
            self._forget(old)

    def _forget(self, path: str) -> None:
        for known in (self.unsynced, self.synced, self.counted, self.links):
            known.discard(path)

    def _change(self, path: str) -> None:
        """Staging is the only folder of ours that the protocol speaks of, and its files are looked at as they
        get their names."""
        if path == self.root or self._is_stored(path):  # a commit that this follows had a group's intents
            assert not self.left, f"commit {self.commits} dropped intents of what wasn't on the disk"
            self.unsynced.add(path)
        elif path == self.staging:
            self.unsynced.add(path)

    def _is_stored(self, path: str) -> bool:
        return path.startswith(f"{self.root}/") and not path.startswith(f"{self.root}/.pipeline")


def see_all(backup: Backup, log: Path, under: Sequence[str]) -> Disk:
    disk = Disk(backup.root)
    backup.run("--quiet", under=under)
    assert disk.counted, "it was cut where nothing had to be finished"
    for line in log.read_text(errors="replace").splitlines():
        if "(" in line:
            disk.see(line)
    return disk


@pytest.mark.parametrize("durability", ["full", pytest.param("fast", marks=pytest.mark.slow)])
def test_what_a_commit_relies_on_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    """A run that is killed amid the names of a group, and the one that recovers it: no content gets a name
    before it was synced, under one that was, and no intent is dropped before what it has done is on the disk.

    Guard: `Barrier._one_by_one`, which `Journal.close_group` and `settle`, and `recover`, give their
    operations; with `durability = "fast"`, `Engine._syncs_only_once`, which is false then.
    """
    need("strace")
    backup = Backup(
        tmp_path / "it", settings={"retention.max_versions_per_file": 1, "durability": durability}
    )
    write_history(backup)
    backup.write({"new and empty": None})
    log, usual = tmp_path / "trace", backup.program
    with monkeypatch.context() as patch:
        patch.setenv("PIPELINE_PORTABLE", "1")
        backup.program = [sys.executable, "-c", SMALL_GROUPS]
        assert run_killed_at(backup, Call("linkat", 20))
        disk = see_all(backup, log, tracing(log, NAMES))
    assert disk.placed > 10 and disk.commits > 8
    assert not disk.unsynced, "the last commit drops all intents"
    backup.program = usual
    backup.assert_all_well()
