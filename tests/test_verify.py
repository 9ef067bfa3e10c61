"""`verify`: finds what is rotten, missing, foreign or misplaced, exactly, and writes nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cut_short import run_cut_after
from harness import Backup, Line, Result, digest_of, exact
from restored import keep, of_type, restore
from test_restore_hostile import exactly
from test_rot_and_power import rot
from trees import EPOCH_NS, File, Link, Tree, remove, write_tree

FIRST: Tree = {
    "copy": File(b"the same\n", mtime_ns=EPOCH_NS),
    "emptied": "",
    "folder": {"deep": {"x": "x\n"}, "nothing": None},
    "gone": File(b"gone\n", mtime_ns=EPOCH_NS),
    "large": File(bytes(range(256)) * 10_000, mtime_ns=EPOCH_NS),
    "link": Link("large"),
    "live": File(b"live\n", mtime_ns=EPOCH_NS),
    "old": File(b"old\n", mtime_ns=EPOCH_NS),
    "same": File(b"the same\n", mtime_ns=EPOCH_NS),
    "was a link": Link("old"),
}
FOUR = {
    "_deleted/gone": "docs/gone", "_duplicates/same": "docs/same", "live": "docs/live",
    "versions/old/v1.bak": "docs/old",
}  # fmt: skip
"""A content in each of the four places, and whose it is."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """Two runs; everything that can be stored is there. Tests work on copies of it."""
    backup = Backup(tmp_path_factory.mktemp("made") / "one")
    backup.write(FIRST)
    backup.run()
    for name in ("gone", "was a link"):
        remove(backup.source / name)
    backup.write({"old": "newer\n", "was a link": "a file\n"})
    backup.run()
    return backup


@pytest.fixture
def copied(made: Backup, tmp_path: Path) -> Backup:
    return made.twin(tmp_path / "one")


def flip(place: Path) -> None:
    """One byte becomes another one; the time stays."""
    found = place.stat()
    with place.open("r+b") as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes([byte ^ 1]))
    os.utime(place, ns=(found.st_atime_ns, found.st_mtime_ns))


def verify(backup: Backup, *arguments: str, expect: int = 0) -> Result:
    return backup.call("verify", "--json", *arguments, expect=expect)


def findings(result: Result) -> dict[tuple[str, str], Line]:
    return {(line["what"], exact(line, "stored_at")): line for line in result.lines if "what" in line}


def test_all_is_well(made: Backup) -> None:
    """Exit 0, everything stored was read, every byte of it."""
    result = verify(made)
    assert findings(result) == {}
    summary = result.summary
    assert summary["status"] == "ok"
    assert (summary["files"], summary["links"], summary["stored"]) == (10, 2, 12)
    kinds = [entry for entry in made.root.rglob("*") if not entry.is_symlink() and entry.is_file()]
    sizes = [entry.stat().st_size for entry in kinds if ".pipeline" not in entry.parts]
    assert summary["bytes_read"] == sum(sizes)


def test_one_byte_in_each_place(copied: Backup, tmp_path: Path) -> None:
    """Exactly the four are found, each with its path, and exactly those are refused by restore."""
    for stored_at in FOUR:
        flip(copied.root / stored_at)
    result = verify(copied, expect=3)
    assert {key: line["path"] for key, line in findings(result).items()} == {
        ("rotten", stored_at): path for stored_at, path in FOUR.items()
    }
    assert (result.summary["rotten"], result.summary["status"]) == (4, "warnings")
    now = restore(copied, tmp_path / "now", "--json", expect=3)
    assert of_type(now.lines, "error").keys() == {"docs/live", "docs/same"}
    assert not (tmp_path / "now/live").exists() and (tmp_path / "now/copy").exists()
    before = restore(copied, tmp_path / "before", "--at", "1", "--json", expect=3)
    assert of_type(before.lines, "error").keys() == set(FOUR.values())
    assert keep(tmp_path / "now").seen.items() >= {("large", keep(copied.source).seen["large"])}


def test_what_is_not_as_it_was_left(copied: Backup, tmp_path: Path) -> None:
    """Missing, foreign and misplaced files, links that point elsewhere, missing folders, markers that nobody
    made: each is found by its name, and nothing else is."""
    root = copied.root
    (root / "large").rename(root / "folder" / "large")
    (root / "_deleted/gone").rename(root / "versions/old/v7.bak")
    (root / "_duplicates/same").unlink()
    remove(root / "link")
    (root / "link").symlink_to("elsewhere")
    (root / "folder/nothing").rmdir()
    remove(root / "live")
    os.mkfifo(root / "live")
    write_tree(root, {"mine": "mine\n", "versions/old/v1.pinned": "", "versions/old/v9.pruned": "",
                      "_duplicates/deep": {"mine": Link("x")}, "folder/deep/new": {}})  # fmt: skip
    remove(root / "versions/was a link/v1.bak")
    (root / "versions/was a link/v1.bak").write_text("no link\n")
    result = verify(copied, expect=3)
    assert set(findings(result)) == {
        ("misplaced", "folder/large"), ("misplaced", "versions/old/v7.bak"), ("missing", "_duplicates/same"),
        ("rotten", "link"), ("missing", "folder/nothing"), ("rotten", "live"), ("foreign", "mine"),
        ("foreign", "versions/old/v1.pinned"), ("foreign", "versions/old/v9.pruned"),
        ("foreign", "_duplicates/deep/mine"), ("rotten", "versions/was a link/v1.bak"),
    }  # fmt: skip
    assert "large" in findings(result)["misplaced", "folder/large"]["cause"]
    plain = copied.call("verify", expect=3)
    assert "FOREIGN: mine" in plain.stdout and "MISPLACED: folder/large" in plain.stdout


def test_a_pinned_version_has_its_marker(tmp_path: Path) -> None:
    """The marker of a pinned version is looked for, and is no foreign file."""
    backup = Backup(tmp_path / "one")
    backup.write({"four": "four\n"})
    backup.run()
    rot(backup, "docs\0four", b"\1" * 32)
    backup.run(expect=3)
    marker = backup.root / "versions/four/v1.pinned"
    assert set(findings(verify(backup, expect=3))) == {("rotten", "versions/four/v1.bak")}, "as was staged"
    marker.unlink()
    assert ("missing", "versions/four/v1.pinned") in findings(verify(backup, expect=3))


def test_nothing_is_written(copied: Backup) -> None:
    """The whole backup, the program's own folder too, is untouched down to times and inodes, whether all is
    well or not; only a partial call leaves a note, in the log folder."""
    for name in (None, "live"):
        if name is not None:
            flip(copied.root / name)
        before = exactly(copied.base)
        verify(copied, expect=3 if name else 0)
        assert exactly(copied.base) == before
    before = exactly(copied.root)
    verify(copied, "--sample", "50%", expect=None)
    assert exactly(copied.root) == before


def test_on_a_disk_that_can_not_be_written(copied: Backup, tmp_path: Path) -> None:
    """A backup that is mounted read-only is verified and restored like any other."""
    root = str(copied.root)
    for options in (["--bind", root, root], ["-o", "remount,bind,ro", root]):
        if subprocess.run(["mount", *options], capture_output=True, timeout=20).returncode:
            pytest.skip("nothing can be mounted here")
    try:
        verify(copied)
        restore(copied, tmp_path / "to")
        repair = verify(copied, "--repair")
        assert repair.summary["repaired"] == 0
    finally:
        subprocess.run(["umount", "-l", root], check=True, timeout=20)


def test_two_at_once(made: Backup) -> None:
    """Nobody waits for anybody, and both find the same."""
    calls = [made.start("verify", "--json") for _ in range(2)]
    for result in [made.finish(call) for call in calls]:
        assert result.exit == 0 and result.summary["stored"] == 12


MOMENTS = [3, *(pytest.param(number, marks=pytest.mark.slow) for number in (0, 1, 6, 9))]


@pytest.mark.parametrize("operations", MOMENTS)
def test_a_run_that_was_cut(copied: Backup, tmp_path: Path, operations: int) -> None:
    """A run is cut after its group was recorded, before all of it was carried out. Until the next run
    recovers, nothing is reported wrong, and every file that the state knows is restored right, also from
    where it waits; nor is anything changed by looking."""
    remove(copied.source / "live")
    copied.write({"gone": "gone\n", "old": "newest\n", "new": {"file": "new\n", "copy": "newest\n"}})
    copied.write({"large": b"other\n" * 500_000})
    assert run_cut_after(copied, operations)
    assert findings(verify(copied)) == {}
    restore(copied, tmp_path / "now")
    known = {path: line for path, line in copied.entries().items() if not line.get("deleted")}
    for path, line in known.items():
        if line["kind"] == "file":
            content = (tmp_path / "now" / path.removeprefix("docs/")).read_bytes()
            assert digest_of("blake3", content) == line["digest"]
    before = restore(copied, tmp_path / "before", "--at", "1", "--json")
    assert before.summary["files"] + before.summary["links"] == 10
    copied.run()
    assert findings(verify(copied)) == {}
    copied.assert_right()
