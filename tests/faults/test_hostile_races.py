"""Sources that change in the worst way and moment: between a look, the opening and the reading."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import disturbance
import harness
import images
import pytest
from harness import Backup
from trees import Fifo, Link, Tree, walk, write_tree

SECRET = b"what lies outside of every source"
PAIRS = 12
ZERO = os.makedev(1, 5)
ENOUGH_S = 40.0
slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "TIME_LIMIT_S", ENOUGH_S)


def stored_secrets(backup: Backup) -> list[str]:
    """Every file of the backup and of its logs that holds bytes from outside, the state included."""
    return [
        entry.path
        for root in (backup.root, backup.logs)
        if root.exists()
        for _, entry in walk(root)
        if entry.is_file(follow_symlinks=False) and SECRET in Path(entry.path).read_bytes()
    ]


def outside(base: Path) -> Path:
    """The same names as in the source's folders, with other contents."""
    names = {f"file{number}": SECRET for number in range(20)}
    write_tree(base / "outside", {**names, "deep": {**names, "er": names}, "more": names})
    return base / "outside"


INSIDE: Tree = {
    **{f"file{number}": f"{number}\n" for number in range(20)},
    "deep": {"file0": "0\n", "er": {"file0": "deeper 0\n", "file1": "deeper 1\n"}},
}


def pairs_of(backup: Backup, kinds: str) -> list[tuple[Path, Path]]:
    """Places in the source, each with the one beside the source that it is swapped with."""
    elsewhere, aside, pairs = outside(backup.base), backup.base / "aside", []
    partners: dict[str, tuple[Tree | str, Tree | str | Link | Fifo]] = {
        "folder and link": (INSIDE, Link(str(elsewhere))),
        "file and link": ("content\n", Link(str(elsewhere / "file0"))),
        "file and fifo": ("content\n", Fifo()),
        "file and folder": ("content\n", {"inner": {"x": "x\n"}, "y": "y\n"}),
    }
    for kind in kinds.split(", "):
        here, there = partners[kind]
        for number in range(PAIRS):
            name = f"{kind} {number}"
            backup.write({name: here})
            if kind == "file and fifo" and number % 2:
                os.mknod(aside / name, stat.S_IFCHR | 0o666, ZERO)
            else:
                write_tree(aside, {name: there})
            pairs.append((backup.source / name, aside / name))
    return pairs


@pytest.mark.handles
@pytest.mark.parametrize(
    ("kinds", "runs"),
    [
        ("folder and link, file and link, file and fifo, file and folder", 2),
        pytest.param("folder and link", 6, marks=slow),
        pytest.param("file and link", 4, marks=slow),
        pytest.param("file and fifo", 4, marks=slow),
        pytest.param("file and folder", 4, marks=slow),
    ],
)
def test_what_is_swapped_all_the_time(tmp_path: Path, kinds: str, runs: int) -> None:
    """Whatever turns into a link to the outside, a fifo, a device or another kind between a look and the
    opening: no byte from outside is stored, nothing is waited for or taken for an empty file, every backup in
    between is sound, and when it has held still, right.

    Guards: `folders.FOLDER_FLAGS` and `folders.READ_FLAGS` (O_NOFOLLOW, O_NONBLOCK), and the hasher's look at
    what it has opened.
    """
    images.need()
    backup = Backup(tmp_path / "one", settings={"safety.max_delete_percent": 100})
    with disturbance.swapping(pairs_of(backup, kinds)):
        for number in range(runs):
            trust = "stat" if number % 2 else "content"
            result = backup.run("--set", f'detect.trust="{trust}"', expect=None)
            assert result.exit in (0, 3), result.said
            if number % 3:
                backup.assert_sound()
    assert not stored_secrets(backup)
    assert all((backup.root / name).is_symlink() or backup.read(name) for name in backup.names())
    backup.run(expect=None)
    backup.assert_right()


@slow
def test_files_that_are_written_while_they_are_read(tmp_path: Path) -> None:
    """Files that grow, shrink, get other bytes or are replaced while they are read: what is stored has the
    recorded size and digest; and what didn't hold still is reported, exit 3.

    Guards: `_stage` takes the digest of the very pass that it stages; `_read_settled` compares the two looks.
    """
    size = 3 << 20
    backup = Backup(tmp_path / "one")
    names = ("growing", "shrinking", "rewritten", "replaced")
    backup.write({name: os.urandom(size) for name in names})
    backup.run()
    told = set()
    with disturbance.writing(*(backup.source / name for name in names)):
        for number in range(12):
            result = backup.run("--json", expect=None)
            assert result.exit in (0, 3), result.said
            told |= {line["path"] for line in result.lines if line["type"] == "warning"}
            backup.assert_sound()
            if number >= 4 and told:
                break
    assert told & {f"docs/{name}" for name in names}, "none was ever caught in the act"
    backup.run()
    backup.assert_all_well()


SWAP_AFTER_THE_LOOK = """
import os, sys
from pathlib import Path
from pipeline import sources
from pipeline.ui.cli import main
place, outside, what = Path(sys.argv.pop(1)), sys.argv.pop(1), sys.argv.pop(1)
look = sources.check_places
def look_and_swap(*arguments):
    look(*arguments)
    place.rename(place.with_name("aside"))
    if what != "gone":
        place.symlink_to(outside)
sources.check_places = look_and_swap
main()
"""


@pytest.mark.handles
@pytest.mark.parametrize(
    "what", ["link", pytest.param("gone", marks=slow), pytest.param("parent", marks=slow)]
)
def test_a_source_that_is_another_one_after_the_look_at_it(tmp_path: Path, what: str) -> None:
    """A source, or a folder above it, that vanishes or becomes a link just after the sources were looked at:
    the run ends with a message, exit 1, reads nothing elsewhere, and takes nothing for deleted.

    Guard: the stations open a source's root without following a link, and see that it is the one that was
    looked at.
    """
    backup = Backup(tmp_path / "one", sources=["up/docs"])
    backup.write(INSIDE)
    backup.run()
    elsewhere = outside(tmp_path / "one")
    write_tree(elsewhere / "docs", {"file0": SECRET})
    before = backup.tree()
    place = backup.source.parent if what == "parent" else backup.source
    backup.program = [sys.executable, "-c", SWAP_AFTER_THE_LOOK, str(place), str(elsewhere), what]
    result = backup.run(expect=None)
    assert not stored_secrets(backup)
    assert result.exit == 1, result.said
    assert "docs" in result.stderr
    assert backup.tree() == before


@pytest.mark.handles
@slow
def test_a_stored_file_that_is_swapped_all_the_time(tmp_path: Path) -> None:
    """The same on the backup's side: stored files and folders that turn into links to the outside and back
    while `verify` and `restore` read them: no byte from outside comes back, nothing outside is written.

    Guards, one behind the other: `folders.FOLDER_FLAGS` and `folders.READ_FLAGS`, and the restorer's
    comparison of what it has read with the recorded digest.
    """
    images.need()
    backup = Backup(tmp_path / "one")
    elsewhere, aside = outside(tmp_path), tmp_path / "aside"
    alike = {f"file{number}": f"{number}".ljust(len(SECRET)) for number in range(PAIRS)}
    backup.write({f"folder{number}": {**alike, "deep": {"er": alike}} for number in range(PAIRS)})
    backup.write(alike)
    backup.run()
    pairs = []
    for number in range(PAIRS):
        write_tree(aside, {f"folder{number}": Link(str(elsewhere))})
        write_tree(aside, {f"file{number}": Link(str(elsewhere / "file0"))})
        pairs += [(backup.root / name, aside / name) for name in (f"folder{number}", f"file{number}")]
    with disturbance.swapping(pairs):
        for number in range(4):
            backup.call("verify", expect=None)
            backup.call("restore", "--to", str(tmp_path / f"to{number}"), expect=None)
    for number in range(4):
        for name, entry in walk(tmp_path / f"to{number}"):
            assert not entry.is_file(follow_symlinks=False) or SECRET not in Path(entry.path).read_bytes(), (
                name
            )
    assert {entry.name for _, entry in walk(elsewhere)} <= {f"file{n}" for n in range(20)} | {
        "deep",
        "er",
        "more",
    }
    backup.call("verify")
