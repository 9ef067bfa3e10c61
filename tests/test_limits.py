"""A backup root that can't hold everything: what it can't is told and left out, and nothing meets another."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.images import need
from harness import Backup, Result, exact
from hypothesis import given
from hypothesis import strategies as st
from restored import restore
from trees import Link, Tree, difference, snapshot

from pipeline.store import calls
from pipeline.store.folders import FOLDER_FLAGS
from pipeline.store.limits import Limits, folded, probe

LONG = "отчёты: прошлый и этот год"
TREE: Tree = {
    "A": "upper\n",
    "Icon\r": "of a Mac\n",
    "Sub": {"f": "1\n"},
    "Versions": {"x": "v\n"},
    "a": "lower\n",
    "a:b": "colon\n",
    os.fsdecode(b"bad\xff"): "no text\n",
    "link": Link("A"),
    "one": "one\n",
    "sub": {"f": "2\n"},
    "v": {"V1.bak": "not a version\n"},
    LONG: {"f": "long\n"},
    "\u03b1\u03c2": "a final sigma\n",
    "\u03b1\u03c3": "another sigma\n",
}
STORED = {
    "A": "A",
    "Icon\r": "%49con%0d",
    "Sub/f": "Sub/f",
    "Versions/x": "%56ersions/x",
    "a": "%61",
    "a:b": "%61%3ab",
    os.fsdecode(b"bad\xff"): "%62ad%ff",
    "one": "one",
    "sub/f": "%73ub/f",
    "v/V1.bak": "v/%561.bak",
    f"{LONG}/f": "%d0%be%d1%82%d1%87%d1%91%d1%82%d1%8b%3a %d0%bf%d1%80%d0%be%d"
    "1%88%d0%bb%d1%8b%d0%b9 %d0%b8 %d1%8d%d1%82%d0%be%d1%82 %d0%b3%d0%be%/%d0%b4/f",
    "\u03b1\u03c2": "\u03b1\u03c2",
    "\u03b1\u03c3": "%ce%b1%cf%83",
}
"""Where each file of the tree lies, but for the link, which is refused."""
AS_EXFAT = """
import sys
from pipeline import engine
from pipeline.store.limits import Limits
engine.probe = lambda staging: Limits(False, False, b'\\r<>:"|?*', b"", True)
from pipeline.ui.cli import main
main()
"""


def refusals(result: Result) -> dict[str, str]:
    warnings = [
        line.removeprefix("WARNING: ") for line in result.stderr.splitlines() if "not backed up" in line
    ]
    return {line.partition(" (")[0]: line.partition("file system ")[2].rstrip(")") for line in warnings}


def stored(backup: Backup) -> dict[str, str]:
    """Where each file lies, by the state."""
    return {
        exact(line, "path").removeprefix("docs/"): exact(line, "stored_at")
        for line in backup.export()
        if line["kind"] == "file" and "deleted" not in line
    }


def check(backup: Backup, to: Path) -> None:
    """Everything but the link, which is told of at each run, is stored under a name of its own, comes back as
    it was, at any time, and is found again without the state."""
    backup.write(TREE)
    root = Path(str(backup.settings.get("backup_root", backup.root)))
    for _ in range(2):
        assert refusals(backup.run(expect=3)) == {"docs/link": "has no symbolic links"}
        assert stored(backup) == STORED
    assert backup.run("--json", expect=3).summary["skip"] == len(STORED)
    assert {at: (root / at).is_file() for at in STORED.values()} == dict.fromkeys(STORED.values(), True)
    assert not list((root / ".pipeline/quarantine").iterdir())
    restore(backup, to)
    assert not difference(snapshot(backup.source, frozenset({"link"})), snapshot(to))
    change(backup)
    backup.run(expect=3)
    exported, verified = backup.export(), backup.call("verify")
    assert "foreign" not in verified.stderr
    (root / ".pipeline/state.db").unlink()
    backup.call("rebuild")
    assert [lasting(line) for line in backup.export()] == [lasting(line) for line in exported]
    assert refusals(backup.run(expect=3)) == {"docs/link": "has no symbolic links"}


def change(backup: Backup) -> None:
    """A version, a duplicate and a deleted file of what is respelled, and something new beside it."""
    (backup.source / "a").write_text("lower, changed\n")
    (backup.source / "v/V1.bak").unlink()
    backup.write({"ONE": "one\n", "SUB": {"new": "3\n"}})


def lasting(line: dict[str, object]) -> dict[str, object]:
    """What of an exported line the files of a backup tell."""
    kept = ("path", "path_b64", "kind", "size", "digest", "stored_at", "original", "deleted", "versions")
    return {name: value for name, value in line.items() if name in kept}


def test_what_cant_be_held(tmp_path: Path) -> None:
    """As exFAT answers, on a file system that could."""
    backup = Backup(tmp_path / "one")
    backup.program = [sys.executable, "-c", AS_EXFAT]
    check(backup, tmp_path / "to")
    at = {exact(line, "path"): exact(line, "stored_at") for line in backup.export()}
    assert at["docs/ONE"] == "_duplicates/%4f%4e%45" and at["docs/SUB/new"] == "%53%55%42/new"
    assert at["docs/v/V1.bak"] == "_deleted/v/%561.bak"
    assert (backup.root / "versions/%61/v1.bak").read_text() == "lower\n"


def test_a_long_spelling_leaves_no_folder_behind(tmp_path: Path) -> None:
    """What takes more than one component goes as a whole: nothing of it stands in the way of what comes."""
    backup = Backup(tmp_path / "one")
    backup.program = [sys.executable, "-c", AS_EXFAT]
    backup.write({"sub": {LONG: {"f": "1\n"}, f"{LONG}, too": "2\n", "%": "3\n"}})
    backup.run()
    shutil.rmtree(backup.source / "sub")
    backup.write({"sub": "a file by now\n"})
    backup.run()
    assert stored(backup) == {"sub": "sub"}


def test_a_dry_run_says_where_it_will_lie(tmp_path: Path) -> None:
    """It can't try what the file system holds, and goes by what the run before has found."""
    backup = Backup(tmp_path / "one")
    backup.program = [sys.executable, "-c", AS_EXFAT]
    backup.write({"one": "one\n"})
    backup.run()
    backup.write({"ONE": "two\n"})
    lines = [backup.run(*options, "--json", "--verbose").lines for options in (["--dry-run"], [])]
    planned, done = ([one for one in run if one["type"] == "action"] for run in lines)
    assert planned == done and [one["stored_at"] for one in done] == ["%4f%4e%45"]


def test_a_backup_that_was_copied_there(tmp_path: Path) -> None:
    """Names that were stored on another disk are taken as well, also those that look like spellings; a name
    stays taken when its path is gone."""
    backup = Backup(tmp_path / "one")
    backup.write({"A": "upper\n", "%62": "percent\n"})
    backup.run()
    backup.program = [sys.executable, "-c", AS_EXFAT]
    (backup.source / "A").unlink()
    backup.write({"a": "lower\n", "b": "b\n", "B": "B\n", "%63": "c\n"})
    assert refusals(backup.run(expect=3)) == {"docs/b": "can't tell its name from %62"}
    assert stored(backup) == {"%62": "%62", "%63": "%2563", "B": "B", "a": "%61"}
    backup.call("verify")


def test_there_and_back(tmp_path: Path) -> None:
    """What was stored meanwhile, on a disk that tells case, is taken too."""
    backup = Backup(tmp_path / "one")
    backup.write({"first": "1\n"})
    other_program, backup.program = backup.program, [sys.executable, "-c", AS_EXFAT]
    backup.run()
    backup.program, exfat = other_program, backup.program
    backup.write({"meanwhile": "2\n"})
    backup.run()
    backup.program = exfat
    backup.write({"Meanwhile": "3\n"})
    backup.run()
    assert stored(backup) == {"first": "first", "meanwhile": "meanwhile", "Meanwhile": "%4deanwhile"}


def refuses_control(name: bytes) -> bool:
    return any(byte < 32 or byte == ord(":") for byte in name) or name.endswith((b".", b" "))


CONTROL = bytes(range(1, 32))


@pytest.mark.parametrize(
    ("refuses", "found"),
    [
        (refuses_control, Limits(refused=CONTROL + b":", refused_last=b". ")),
        (lambda name: len(name) > 143, Limits(longest=143)),
        (lambda name: len(name) > 254, Limits(longest=254)),
        (lambda name: len(name) > 255 or b"\xff" in name, Limits(only_text=True)),
    ],
)
def test_what_is_refused_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Callable[[bytes], bool], found: Limits
) -> None:
    """Each control character, and names that are longer than an encrypting file system has them."""
    there = calls.open

    def picky(path: bytes, *rest: int, **more: int) -> int:
        if path != b"." and refuses(path):
            raise FileNotFoundError(errno.ENOENT, "as exfat-fuse says it", path)
        return there(path, *rest, **more)

    folder = calls.open(tmp_path, FOLDER_FLAGS)
    monkeypatch.setattr(calls, "open", picky)
    assert probe(folder) == found
    assert os.listdir(tmp_path) == []
    assert found.can_hold(b"a" * found.longest) and not found.can_hold(b"a" * (found.longest + 1))
    calls.close(folder)


def test_a_handle_that_lists_what_was_there_when_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the btrfs of some kernels does: that a new name isn't in it says nothing about names."""
    there, opened = calls.listdir, calls.open
    folder = calls.open(tmp_path, FOLDER_FLAGS)
    seen: dict[int, list[str]] = {folder: []}

    def open_and_list(path: bytes, *rest: int, **more: int) -> int:
        handle = opened(path, *rest, **more)
        if path == b".":
            seen[handle] = there(handle)
        return handle

    monkeypatch.setattr(calls, "open", open_and_list)
    monkeypatch.setattr(calls, "listdir", lambda handle: seen[handle])
    assert probe(folder) == Limits()
    calls.close(folder)


def test_a_full_disk_says_nothing_about_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that is full for a moment: it is an error, and no finding by which names are respelled."""
    opened, tries = calls.open, iter([errno.ENOSPC])

    def full(path: bytes, *rest: int, **more: int) -> int:
        for error in tries:
            raise OSError(error, os.strerror(error), path)
        return opened(path, *rest, **more)

    folder = calls.open(tmp_path, FOLDER_FLAGS)
    monkeypatch.setattr(calls, "open", full)
    with pytest.raises(OSError, match="No space left"):
        probe(folder)
    calls.close(folder)


def test_nothing_is_missing_here(tmp_path: Path) -> None:
    """The file systems of Linux hold everything, and nothing is left of the look."""
    folder = calls.open(tmp_path, FOLDER_FLAGS)
    for leftover in ("prob\u00e9".encode(), b"probe "):  # of a run that was cut
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
    ("one", "other"),
    [
        ("README", "readme"),
        ("caf\u00e9", "CAFE\u0301"),
        ("\u00c5", "\u212b"),
        ("stra\u00dfe", "STRASSE"),
        ("\u03c3\u03bf\u03c6\u03cc\u03c2", "\u03a3\u039f\u03a6\u038c\u03a3"),
        ("\u2764\ufe0f", "\u2764"),
        ("soft\u00adly", "softly"),
        ("\u03b1\u03c2", "\u03b1\u03c3"),
        ("\u0391\u03a3", "\u03b1\u03c3"),
    ],
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
