"""A backup root that can't hold everything: what it can't is told and left out, and nothing meets another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.images import need
from harness import Backup, Result
from hypothesis import given
from hypothesis import strategies as st
from restored import restore
from trees import Link, Tree

from pipeline.store import calls
from pipeline.store.folders import FOLDER_FLAGS
from pipeline.store.limits import Limits, folded, probe

TREE: Tree = {
    "A": "upper\n",
    "Sub": {"f": "1\n"},
    "Versions": {"x": "v\n"},
    "a": "lower\n",
    "a:b": "colon\n",
    os.fsdecode(b"bad\xff"): "no text\n",
    "link": Link("A"),
    "one": "one\n",
    "sub": {"f": "2\n"},
    "v": {"V1.bak": "not a version\n"},
}
REFUSED = {
    "docs/Versions": "can't tell its name from one of the backup's own",
    "docs/a": "can't tell its name from A",
    "docs/a:b": "can't hold this name",
    "docs/bad\\xff": "can't hold this name",
    "docs/link": "has no symbolic links",
    "docs/sub": "can't tell its name from Sub",
    "docs/v/V1.bak": "can't tell its name from one of the backup's own",
}
AS_EXFAT = """
import sys
from pipeline import engine
from pipeline.store.limits import Limits
engine.probe = lambda staging: Limits(False, False, b'<>:"|?*', b"", True)
from pipeline.ui.cli import main
main()
"""


def refusals(result: Result) -> dict[str, str]:
    warnings = [
        line.removeprefix("WARNING: ") for line in result.stderr.splitlines() if "not backed up" in line
    ]
    return {line.partition(" (")[0]: line.partition("file system ")[2].rstrip(")") for line in warnings}


def check(backup: Backup, to: Path) -> None:
    """What can't be stored is named at each run, and nothing else of it is: no quarantine, no second copy."""
    backup.write(TREE)
    for _ in range(2):
        assert refusals(backup.run(expect=3)) == REFUSED
    root = Path(str(backup.settings.get("backup_root", backup.root)))
    assert not list((root / ".pipeline/quarantine").iterdir())
    backup.call("verify")
    restore(backup, to)
    assert sorted(os.listdir(to)) == ["A", "Sub", "one", "v"]
    assert (to / "A").read_text() == "upper\n" and (to / "Sub/f").read_text() == "1\n"


def test_what_is_left_out(tmp_path: Path) -> None:
    """As exFAT answers, on a file system that could."""
    backup = Backup(tmp_path / "one")
    backup.program = [sys.executable, "-c", AS_EXFAT]
    check(backup, tmp_path / "to")


def test_a_backup_that_was_copied_there(tmp_path: Path) -> None:
    """Names that were stored on another disk are taken as well; a name stays taken when its path is gone."""
    backup = Backup(tmp_path / "one")
    backup.write({"A": "upper\n"})
    backup.run()
    backup.program = [sys.executable, "-c", AS_EXFAT]
    (backup.source / "A").unlink()
    backup.write({"a": "lower\n", "b": "b\n"})
    assert refusals(backup.run(expect=3)) == {"docs/a": "can't tell its name from A"}
    assert backup.entry("docs/A")["deleted"]


def test_nothing_is_missing_here(tmp_path: Path) -> None:
    """The file systems of Linux hold everything, and nothing is left of the look."""
    folder = calls.open(tmp_path, FOLDER_FLAGS)
    for leftover in (b"probe", b"probe "):  # of a run that was cut
        os.close(calls.open(leftover, os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    assert probe(folder) == Limits()
    assert os.listdir(tmp_path) == []
    calls.close(folder)


@given(st.binary(min_size=1, max_size=8).filter(lambda name: b"/" not in name))
def test_names_that_are_one(name: bytes) -> None:
    """Folding says the same of what was folded, and loses no component."""
    assert folded(folded(name)) == folded(name)
    assert folded(name + b"/" + name) == folded(name) + b"/" + folded(name)


@pytest.mark.parametrize(
    ("one", "other"), [("README", "readme"), ("caf\u00e9", "CAFE\u0301"), ("\u00c5", "\u212b")]
)
def test_names_that_meet(one: str, other: str) -> None:
    assert folded(one.encode()) == folded(other.encode())


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    need("mkfs.exfat", "mount.exfat-fuse", "losetup")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.exfat", image], check=True, capture_output=True)
    made = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True)
    device = made.stdout.strip()
    subprocess.run(["mount.exfat-fuse", device, disk], check=True, capture_output=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)
        subprocess.run(["losetup", "-d", device], check=True)


@pytest.mark.slow
def test_on_exfat(exfat: Path, tmp_path: Path) -> None:
    """The real thing: no links, no hard links, no owners, no case."""
    check(Backup(tmp_path / "one", settings={"backup_root": str(exfat / "backup")}), tmp_path / "to")
