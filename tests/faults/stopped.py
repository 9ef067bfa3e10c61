"""A backup with a past, and what must be so after a run on it that could not go on.

In: a folder. Out: a backup of two runs that uses all four areas, and the checks after a run that had to stop.
Guarantees: the history is the same every time; a small disk is unmounted whatever the test does on it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Backup, Result
from trees import Tree, remove

FIRST: Tree = {
    "a": "a, the original\n",
    "changes": "one\n",
    "copy of a": "a, the original\n",
    "gone": "gone\n",
    "sub": {"deep": "deep\n"},
}
CONTENTS = {b"a, the original\n", b"one\n", b"two\n", b"gone\n", b"deep\n"}
"""All that was ever committed, of which not a byte may be missing afterwards."""


def give_history(backup: Backup) -> None:
    """Two runs: live files, a duplicate, a version, a deleted file."""
    backup.write(FIRST)
    backup.run()
    backup.write({"changes": "two\n"})
    remove(backup.source / "gone")
    backup.run()
    assert backup.all_contents() >= CONTENTS


@contextmanager
def on_a_small_disk(base: Path, size: str, inodes: int = 0) -> Iterator[Backup]:
    """A backup whose root is a file system of its own. inodes: 0 for as many as it likes."""
    backup = Backup(base)
    backup.root.mkdir()
    options = f"size={size},mode=700" + (f",nr_inodes={inodes}" if inodes else "")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(backup.root)], check=True)
    try:
        yield backup
    finally:
        subprocess.run(["umount", "-l", str(backup.root)], check=True)


def enlarge(backup: Backup) -> None:
    options = "remount,size=256m,nr_inodes=100k"
    subprocess.run(["mount", "-o", options, str(backup.root)], check=True)


def use_up_inodes(backup: Backup, left: int) -> None:
    """Leave only so many inodes on the small disk."""
    found = os.statvfs(backup.root)
    used = found.f_files - found.f_ffree
    subprocess.run(["mount", "-o", f"remount,nr_inodes={used + left}", str(backup.root)], check=True)


def assert_stopped(backup: Backup, result: Result, causes: Sequence[str]) -> None:
    """A clean end: exit 1, a message of a line or two with one of the causes, all old contents in place.

    That there is no traceback, `Backup.finish` has seen to.
    """
    assert result.exit == 1, result.said
    message = result.stderr.strip()
    assert any(cause in message for cause in causes), result.said
    assert len(message.splitlines()) <= 2, message
    assert not CONTENTS - backup.all_contents(), CONTENTS - backup.all_contents()


def assert_goes_on(backup: Backup, foreign: str = "") -> None:
    """The next run completes, the backup is right, and nothing that was there before is lost."""
    backup.run("--quiet")
    assert not CONTENTS - backup.all_contents(), CONTENTS - backup.all_contents()
    backup.assert_all_well(foreign)


def failing_at(place: Path, calls: str, error: str, when: str) -> list[str]:
    """An error as the answer to some calls, of whichever process, on one file or folder alone."""
    return [
        "strace", "-f", "-o", "/dev/null", "-P", str(place), "-e", f"trace={calls}",
        "-e", f"inject={calls}:error={error}:when={when}",
    ]  # fmt: skip


def deep_and_wide() -> Tree:
    """60 levels, each with a file and a folder beside the way down; contents that are there twice."""
    tree: dict[str, str] = {}
    path = ""
    for level in range(60):
        path += f"level{level:02}/"
        tree[f"{path}file"] = f"file {level}\n"
        tree[f"{path}copy"] = f"file {level % 7}\n"
        tree[f"{path}beside/of {level}"] = f"beside {level}\n"
        tree[f"wide/{level:02}/one"] = f"wide {level}\n"
    return tree


def change_everywhere(source: Path) -> None:
    """Something becomes a version, something is deleted, on every level."""
    for place in sorted(source.rglob("file")):
        place.write_text(f"changed: {place.parent.name}\n")
    for place in sorted(source.rglob("of *")):
        place.unlink()


def break_ext4(mount_point: Path) -> None:
    """As if ext4 had met an error: mounted with errors=remount-ro, it is read-only from now on."""
    found = subprocess.run(
        ["findmnt", "-no", "SOURCE", mount_point], capture_output=True, text=True, check=True
    )
    trigger = Path("/sys/fs/ext4") / Path(found.stdout.strip()).name / "trigger_fs_error"
    if not trigger.exists():
        pytest.skip("this kernel has no trigger_fs_error")
    trigger.write_text("a test\n")


def large(count: int) -> Tree:
    return {f"large{number}": os.urandom(500_000) for number in range(count)}


def change_all(backup: Backup) -> None:
    """Work of every kind for the next run; nothing of it makes a number of calls depend on chance."""
    remove(backup.source / "a")
    backup.write(
        {"changes": "three\n", "new": "new\n", "sub": {"deep": "deeper\n", "large": "x" * 3_000_000}}
    )
