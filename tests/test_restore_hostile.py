"""Promise 8, contained, for `restore`: whatever links stand or appear in the target, all outside stays."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pytest
from harness import Backup
from restored import assert_same, keep, of_type, restore
from trees import EPOCH_NS, File, Link, Tree, remove, walk, write_tree

TREE: Tree = {
    "a": File(b"a\n", 0o640, EPOCH_NS),
    "folder": {"b": "b\n", "deep": {"c": "c\n", "er": {"d": "d\n"}}, "link": Link("b"), "nothing": None},
    "large": bytes(range(256)) * 5000,
}
OUTSIDE: Tree = {
    "file": File(b"precious\n", 0o600, EPOCH_NS),
    "same": File(b"a\n", 0o640, EPOCH_NS),
    "folder": {"a": "1\n", "b": "2\n", "c": "3\n", "deep": {"c": "4\n"}, "er": {"d": "5\n"}},
}

Exact: TypeAlias = dict[str, tuple[int, ...] | str | bytes]


def exactly(root: Path) -> Exact:
    """All that could change, inodes and times of change included."""
    seen: Exact = {}
    for relative, entry in walk(root):
        found = entry.stat(follow_symlinks=False)
        seen[relative] = (
            found.st_ino, found.st_mode, found.st_uid, found.st_mtime_ns, found.st_ctime_ns, found.st_nlink
        )  # fmt: skip
        if entry.is_file(follow_symlinks=False):
            seen[f"{relative} (content)"] = Path(entry.path).read_bytes()
    found = root.stat()
    return {**seen, ".": (found.st_ino, found.st_mode, found.st_mtime_ns, found.st_ctime_ns)}


class Planted(NamedTuple):
    """A name in the target, and what it is a link to, seen from the folder outside."""

    at: str
    to: str
    hard: bool = False


PLANTED = {
    "at folders' names, to folders": [Planted("folder", "folder")],
    "at a folder's name, to a file": [Planted("folder", "file"), Planted("a", "folder")],
    "in the middle, and at files' names": [
        Planted("folder/deep", "folder"), Planted("folder/link", "folder"),
        Planted("folder/nothing", "folder"), Planted("a", "file"), Planted("large", "file"),
    ],
    "further down, and with the very content": [Planted("folder/deep/er", "folder/er"), Planted("a", "same")],
    "dangling": [Planted("folder", "new"), Planted("a", "new file"), Planted("large", "folder/new/x")],
    "hard links": [Planted("a", "file", True), Planted("large", "same", True)],
    "a hard link at a folder's name": [Planted("folder", "file", True)],
}  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Backup:
    backup = Backup(tmp_path_factory.mktemp("stored"))
    backup.write(TREE)
    backup.run()
    return backup


def plant(planted: Planted, to: Path, outside: Path) -> None:
    (to / planted.at).parent.mkdir(parents=True, exist_ok=True)
    if planted.hard:
        os.link(outside / planted.to, to / planted.at)
    else:
        (to / planted.at).symlink_to(outside / planted.to)


@pytest.mark.parametrize("overwrite", ["if-different", "always"])
@pytest.mark.parametrize("where", PLANTED)
def test_a_planted_link(stored: Backup, tmp_path: Path, where: str, overwrite: str) -> None:
    """Nothing outside is written, made, removed or given other metadata; the link itself makes room for what
    belongs there, and all of the backup comes."""
    outside = tmp_path / "outside"
    write_tree(outside, OUTSIDE)
    for planted in PLANTED[where]:
        plant(planted, tmp_path / "to", outside)
    before = exactly(outside)
    restore(stored, tmp_path / "to", "--overwrite", overwrite)
    after = exactly(outside)
    if any(planted.hard for planted in PLANTED[where]):  # one of its names is gone, which its inode tells
        before, after = ({k: v[:4] for k, v in seen.items()} for seen in (before, after))
    assert after == before
    assert_same(keep(stored.source), tmp_path / "to")


def test_planted_links_in_a_dry_run(stored: Backup, tmp_path: Path) -> None:
    """A dry run follows none of them, replaces none, and touches nothing."""
    write_tree(tmp_path / "outside", OUTSIDE)
    for planted in (Planted("folder", "folder"), Planted("a", "file")):
        plant(planted, tmp_path / "to", tmp_path / "outside")
    before = exactly(tmp_path)
    restore(stored, tmp_path / "to", "--overwrite", "if-different", "--dry-run")
    assert exactly(tmp_path) == before


def swap(real: Path, aside: Path, outside: Path, stop: threading.Event) -> None:
    """Put a link in the place of a folder and the folder back, again and again."""
    while not stop.is_set():
        try:
            real.rename(aside)
            real.symlink_to(outside)
            real.unlink()
            aside.rename(real)
        except OSError:  # the restore was quicker, and has made a folder there
            continue


def while_swapping(at: str, to: Path, outside: Path, work: Callable[[], object]) -> None:
    (to / at).mkdir(parents=True)
    stop = threading.Event()
    thread = threading.Thread(target=swap, args=(to / at, to / "aside", outside, stop))
    thread.start()
    try:
        work()
    finally:
        stop.set()
        thread.join(timeout=20)


@pytest.mark.handles
@pytest.mark.parametrize("at", ["folder", "folder/deep"])
def test_a_link_that_appears_meanwhile(stored: Backup, tmp_path: Path, at: str) -> None:
    """A folder of the target that turns into a link to the outside and back all the time: whatever the
    restore meets, it never goes through the link."""
    outside = tmp_path / "outside"
    write_tree(outside, OUTSIDE)
    before = exactly(outside / "folder")

    def work() -> None:
        for _ in range(3):
            stored.call("restore", "--to", str(tmp_path / "to"), "--overwrite", "always", expect=None)

    while_swapping(at, tmp_path / "to", outside / "folder", work)
    assert exactly(outside / "folder") == before


@pytest.mark.parametrize("what", ["a file", "a folder", "a version"])
def test_a_planted_link_in_the_backup(tmp_path: Path, what: str) -> None:
    """A link in the place of a stored file or folder: nothing outside is read, none of it comes back."""
    backup = Backup(tmp_path / "one")
    backup.write({"a": "a\n", "folder": {"b": "b\n"}})
    backup.run()
    backup.write({"a": "changed\n"})
    backup.run()
    write_tree(tmp_path / "outside", {"a": "a\n", "changed": "changed\n", "folder": {"b": "b\n"}})
    stored, target, run, path = {
        "a file": ("a", "changed", "2", "docs/a"),
        "a folder": ("folder", "folder", "2", "docs/folder/b"),
        "a version": ("versions/a/v1.bak", "a", "1", "docs/a"),
    }[what]
    remove(backup.root / stored)
    (backup.root / stored).symlink_to(tmp_path / "outside" / target)
    result = restore(backup, tmp_path / "to", "--at", run, "--json", expect=3)
    assert of_type(result.lines, "error").keys() == {path}
