"""`restore` that is stopped, killed in part, or runs out of room: what is there is whole, and nothing of its
own is left over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from at_work import many_files
from harness import Backup, end_group, wait_until
from processes import alive, descendants, kill, stations
from restored import assert_same, keep, leftovers, of_type, restore
from trees import walk, write_tree

MIB = 1 << 20


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """A backup large enough to be caught while it is restored. Tests only look at it."""
    backup = many_files(tmp_path_factory.mktemp("many"))
    write_tree(backup.source, {f"large{number}": os.urandom(8 * MIB) for number in range(3)})
    backup.run("--quiet")
    return backup


@contextmanager
def restoring(backup: Backup, to: Path) -> Iterator[subprocess.Popen[str]]:
    """A restore that has named some files and waits for somebody to read what it tells."""
    process = backup.start("restore", "--to", str(to), "--json", "--verbose")
    try:
        assert wait_until(lambda: to.is_dir() and any(name.startswith("folder") for name in os.listdir(to)))
        yield process
    finally:
        end_group(process)
        process.communicate()


def assert_parts_are_whole(backup: Backup, to: Path) -> None:
    """Every file that has a name has the content of the source's."""
    for relative, entry in walk(to):
        if entry.is_file(follow_symlinks=False):
            assert Path(entry.path).read_bytes() == (backup.source / relative).read_bytes()


def test_ctrl_c(many: Backup, tmp_path: Path) -> None:
    """Ctrl-C: exit 130, what has a name is whole, no staging and no process is left; the same command with
    --overwrite if-different goes on and ends well."""
    to = tmp_path / "to"
    with restoring(many, to) as process:
        below = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        result = many.finish(process)
    assert result.exit == 130, result.said[-3000:]
    assert result.summary["status"] == "interrupted"
    assert not leftovers(to)
    assert wait_until(lambda: not any(alive(child) for child in below))
    assert_parts_are_whole(many, to)
    restore(many, to, "--overwrite", "if-different")
    assert_same(keep(many.source), to)


@pytest.mark.parametrize("which", ["one", "all"])
def test_killed_workers(many: Backup, tmp_path: Path, which: str) -> None:
    """SIGKILL to workers in the middle: their batches are given out again, also what they had done of them
    already, and everything ends right, nothing reported."""
    to = tmp_path / "to"
    with restoring(many, to) as process:
        os.killpg(process.pid, signal.SIGSTOP)
        workers = stations(process.pid)
        for victim in workers[-1:] if which == "one" else workers:
            kill(victim)
        os.killpg(process.pid, signal.SIGCONT)
        result = many.finish(process)
    if which == "all" and result.exit == 1:
        assert "killed" in result.said  # the walk over the state was still at work
        restore(many, to, "--overwrite", "if-different")
    else:
        assert result.exit == 0, result.said[-3000:]
        assert result.summary["files"] == sum(entry.is_file() for _, entry in walk(many.source))
    assert_same(keep(many.source), to)
    assert not leftovers(to)


def test_a_killed_restore_can_be_done_again(many: Backup, tmp_path: Path) -> None:
    """SIGKILL to the whole restore: parts are whole; what it had begun is in one folder with its name, and
    --overwrite goes on from there."""
    to = tmp_path / "to"
    with restoring(many, to) as process:
        end_group(process)
    for name in leftovers(to):
        shutil.rmtree(to / name)
    assert_parts_are_whole(many, to)
    restore(many, to, "--overwrite", "if-different")
    assert_same(keep(many.source), to)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True, timeout=20
    )
    if made.returncode:
        pytest.skip("a small disk can't be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=20)


@pytest.mark.parametrize(
    ("options", "largest"),
    [("size=5m", 8 * MIB), ("size=5m", MIB // 2), ("nr_inodes=40", 10), ("nr_inodes=3", 10)],
)
def test_a_full_target(tmp_path: Path, options: str, largest: int) -> None:
    """No room, for bytes or for names: exit 1, one clean message, no file with a part of its bytes, and
    nothing of the restore's own left over."""
    backup = Backup(tmp_path / "one")
    write_tree(backup.source, {f"folder{n % 5}/{n:03}": os.urandom(largest) for n in range(80 * MIB // MIB)
                               if n * largest < 20 * MIB})  # fmt: skip
    backup.run()
    with mounted(tmp_path / "to", options):
        result = restore(backup, tmp_path / "to", "--json", expect=1)
        assert_parts_are_whole(backup, tmp_path / "to")
    assert result.summary["status"] == "failed"
    assert [line["cause"] for line in result.lines if line["type"] == "error"]
    assert "No space left" in result.stdout


def test_a_target_that_can_not_be_written(tmp_path: Path) -> None:
    """A read-only disk: exit 1 before anything is done."""
    backup = Backup(tmp_path / "one")
    backup.write({"a": "a\n"})
    backup.run()
    with mounted(tmp_path / "to", "ro"):
        result = restore(backup, tmp_path / "to", expect=1)
    assert "Read-only" in result.stderr and "Traceback" not in result.stderr


def test_one_file_that_kills_every_worker_is_named() -> None:
    """The results for an item at which two workers have died are a problem with its path, of every kind."""
    from pipeline.model import message
    from pipeline.stages.restorer import Restorer

    for tag in (message.FILE, message.LINK, message.SPECIAL):
        assert Restorer.given_up([tag, b"name", []], b"docs\0folder")[:2] == [
            message.PROBLEM,
            b"docs\0folder\0name",
        ]
    assert Restorer.given_up([message.FOLDER, b"docs\0x", []], b"")[:2] == [message.PROBLEM, b"docs\0x"]


def test_problems_and_paths_are_counted(tmp_path: Path) -> None:
    """Specials are counted and not made."""
    backup = Backup(tmp_path / "one")
    backup.write({"a": "a\n"})
    os.mkfifo(backup.source / "pipe")
    backup.run()
    result = restore(backup, tmp_path / "to", "--json")
    assert (result.summary["specials"], result.summary["files"]) == (1, 1)
    assert of_type(result.lines, "error") == {}
    assert os.listdir(tmp_path / "to") == ["a"]
