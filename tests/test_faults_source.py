"""Faults on the side of the sources: missing, emptied, unreadable, and mass deletion."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
from at_work import FILES, at_work, many_files
from harness import Backup, Result, difference
from trees import remove


def assert_untouched(backup: Backup, result: Result, before: tuple[object, bytes]) -> None:
    tree, exported = before
    assert not difference(tree, backup.tree()), result.said  # type: ignore[arg-type]
    assert backup.export_bytes() == exported


@pytest.mark.parametrize("what", ["missing", "a file", "empty", "dangling link"])
def test_a_source_that_is_not_what_it_was(backup: Backup, what: str) -> None:
    """A source that is missing, not a folder, or empty while its history is not: exit 1, nothing touched."""
    backup.write({"a": "a\n", "sub": {"b": "b\n"}})
    backup.run()
    before = backup.tree(), backup.export_bytes()
    shutil.rmtree(backup.source)
    if what == "a file":
        backup.source.write_text("a file\n")
    elif what == "empty":
        backup.source.mkdir()
    elif what == "dangling link":
        backup.source.symlink_to("nowhere")
    result = backup.run("--set", "safety.max_delete_percent=100", expect=1)
    assert "docs" in result.stderr
    assert_untouched(backup, result, before)


def test_a_missing_source_before_the_first_run(backup: Backup) -> None:
    """A source that is missing is an error from the start: exit 1, and no backup root is made."""
    shutil.rmtree(backup.source)
    backup.run(expect=1)
    assert not backup.names()
    backup.source.mkdir()
    backup.run()
    backup.write({"a": "a\n"})
    backup.run()
    backup.assert_right()


def test_one_missing_source_of_two(backup: Backup) -> None:
    """A missing source ends the run before anything is touched, the other sources included."""
    (backup.base / "more").mkdir()
    backup.sources = ["docs", "more"]
    backup.write_config()
    backup.write({"a": "a\n"})
    (backup.base / "more" / "b").write_text("b\n")
    backup.run()
    before = backup.tree(), backup.export_bytes()
    shutil.rmtree(backup.base / "more")
    backup.write({"a": "changed\n"})
    result = backup.run(expect=1)
    assert "more" in result.stderr
    assert_untouched(backup, result, before)


def numbered_files(backup: Backup, files: int) -> None:
    backup.write({f"file{number:03}": f"content {number}\n" for number in range(files)})
    backup.run()


def delete_files(backup: Backup, first: int, last: int) -> None:
    for number in range(first, last):
        remove(backup.source / f"file{number:03}")


def test_mass_deletion_is_held_back(backup: Backup) -> None:
    """More deletions than `safety.max_delete_percent`: new and modified files are backed up, no deletion is
    done, exit 3, and the message says how to allow it."""
    numbered_files(backup, 120)
    delete_files(backup, 0, 80)
    backup.write({"new": "new\n", "file100": "changed\n"})
    result = backup.run(expect=3)
    assert "max_delete_percent" in result.stdout + result.stderr
    assert result.decisions() == ["MODIFIED: docs/file100", "BACKUP: docs/new"]
    assert not any(name.startswith("_deleted/") for name in backup.names())
    assert backup.read("file000") == b"content 0\n"
    backup.assert_sound()
    assert backup.run("--json", expect=3).summary["status"] == "warnings"
    allowed = backup.run("--json", "--set", "safety.max_delete_percent=100")
    assert allowed.summary["delete"] == 80
    backup.assert_all_well()


def test_what_the_message_advises_works(backup: Backup) -> None:
    """With 100 percent nothing is held back, also where more is missing than there was when it was counted:
    what was added while deletions were held back may be gone by then, too."""
    backup.write({f"old{number}": str(number) for number in range(100)})
    backup.run()
    for number in range(60):
        (backup.source / f"old{number}").unlink()
    backup.write({f"new{number}": f"new {number}" for number in range(200)})
    backup.run(expect=3)
    for number in range(200):
        (backup.source / f"new{number}").unlink()
    assert backup.run("--json", expect=3).summary["delete"] == 0
    allowed = backup.run("--json", "--set", "safety.max_delete_percent=100")
    assert allowed.summary["delete"] == 260
    backup.assert_all_well()


def test_deletions_up_to_the_limit_are_done(backup: Backup) -> None:
    """The guard stops more than the limit, not the limit itself; one more is held back."""
    numbered_files(backup, 100)
    delete_files(backup, 0, 51)
    backup.run(expect=3)
    backup.write({"file050": "content 50\n"})
    assert backup.run("--json").summary["delete"] == 50
    backup.assert_right()


def test_small_backups_are_not_guarded(backup: Backup) -> None:
    """The guard counts only from 100 known files up."""
    numbered_files(backup, 99)
    delete_files(backup, 0, 98)
    assert backup.run("--json").summary["delete"] == 98
    backup.assert_right()


def test_a_change_of_kind_counts_as_deletion(backup: Backup) -> None:
    """What a change of kind clears counts towards the deletion guard before it starts; when it is over the
    guard, the change is held back, exit 3."""
    backup.write({"big": {f"file{number:03}": f"{number}\n" for number in range(120)}, "a": "a\n"})
    backup.run()
    shutil.rmtree(backup.source / "big")
    backup.write({"big": "now a file\n", "new": "new\n"})
    result = backup.run(expect=3)
    assert "max_delete_percent" in result.stdout + result.stderr
    assert backup.read("big/file000") == b"0\n" and backup.read("new") == b"new\n"
    assert not any(name.startswith("_deleted/") for name in backup.names())
    backup.assert_sound()
    backup.run("--set", "safety.max_delete_percent=100")
    assert backup.read("big") == b"now a file\n"
    assert backup.read("_deleted/big/file000") == b"0\n"
    backup.assert_all_well()


def test_unreadable_things_are_reported_and_kept(user_backup: Backup) -> None:
    """An unreadable file or folder is reported with its path and cause, what was backed up before stays as it
    is, nothing below it counts as deleted, exit 3."""
    backup = user_backup
    backup.write({"a": "a\n", "file": "file\n", "folder": {"b": "b\n", "deep": {"c": "c\n"}}, "z": "z\n"})
    backup.run()
    (backup.source / "file").write_text("can't be read\n")
    (backup.source / "file").chmod(0)
    (backup.source / "folder").chmod(0)
    backup.write({"new": "new\n"})
    remove(backup.source / "z")
    result = backup.run("--json", expect=3)
    problems = {line["path"]: line["cause"] for line in result.lines if line["type"] in ("warning", "error")}
    assert problems.keys() == {"docs/file", "docs/folder"}
    assert all("ermission denied" in cause for cause in problems.values())
    assert result.decisions() == ["BACKUP: docs/new", "DELETE: docs/z"]
    assert result.summary["status"] == "warnings"
    assert {"file", "folder/b", "folder/deep/c"} <= set(backup.names())
    backup.assert_sound()
    backup.run("--dry-run", "--set", 'filters.exclude=["/file", "/folder/"]')
    (backup.source / "folder").chmod(0o755)
    (backup.source / "file").chmod(0o644)
    assert backup.run().decisions() == ["MODIFIED: docs/file"]
    backup.assert_right()


def test_new_things_that_are_unreadable(user_backup: Backup) -> None:
    """A run that could not read something never exits 0, also when it was never backed up before; each run
    says it again."""
    backup = user_backup
    backup.write({"a": "a\n", "secret": "secret\n", "shut": {"inside": "inside\n"}})
    (backup.source / "secret").chmod(0)
    (backup.source / "shut").chmod(0)
    for _ in range(2):
        result = backup.run(expect=3)
        assert "docs/secret" in result.stderr and "docs/shut" in result.stderr
    assert backup.names() == ["a"]
    backup.assert_sound()


def test_an_unreadable_file_in_place_of_a_folder(user_backup: Backup) -> None:
    """A change of kind whose new entry can't be read is held back: what was there stays as it is, exit 3."""
    backup = user_backup
    backup.write({"x": {"a": "a\n", "b": "b\n"}, "keep": "keep\n"})
    backup.run()
    shutil.rmtree(backup.source / "x")
    backup.write({"x": "unreadable\n"})
    (backup.source / "x").chmod(0)
    backup.run(expect=3)
    assert backup.names() == ["keep", "x/a", "x/b"]
    backup.assert_sound()
    (backup.source / "x").chmod(0o644)
    backup.run()
    assert backup.read("x") == b"unreadable\n"
    backup.assert_all_well()


def test_an_unreadable_source_root(user_backup: Backup) -> None:
    """A source that can't be read at all deletes nothing and never ends with exit 0."""
    backup = user_backup
    backup.write({"a": "a\n"})
    backup.run()
    before = backup.tree()
    backup.source.chmod(0)
    result = backup.run(expect=None)
    backup.source.chmod(0o755)
    assert result.exit in (1, 3), result.said
    assert not difference(before, backup.tree())


def test_files_that_vanish_while_the_run_is_at_work(tmp_path: Path) -> None:
    """A file that vanishes after it was listed is counted, not an error, and so is a folder; the backup then
    has what was there."""
    backup = many_files(tmp_path)
    with at_work(backup) as run:
        os.killpg(run.pid, signal.SIGSTOP)
        shutil.rmtree(backup.source / "folder29")
        for place in sorted((backup.source / "folder28").iterdir())[::2]:
            place.unlink()
        os.killpg(run.pid, signal.SIGCONT)
        result = backup.finish(run)
    assert result.exit == 0, result.said[-3000:]
    backup.assert_sound()
    backup.run()
    backup.assert_right()
    assert FILES - 40 <= len(backup.names()) < FILES


def test_a_file_that_changes_while_it_is_read(backup: Backup) -> None:
    """A file that changes while it is read is read again, up to 3 times, then stored as read, reported and
    not trusted by the next run; exit 3. Its hash is that of the stored bytes all the same."""
    backup.write({"a": "a\n", "busy": os.urandom(64 << 20)})
    stop = threading.Event()

    def keep_writing() -> None:
        with (backup.source / "busy").open("rb+", buffering=0) as busy:
            while not stop.is_set():
                os.pwrite(busy.fileno(), os.urandom(8), 1000)
                os.pwrite(busy.fileno(), os.urandom(8), (64 << 20) - 1000)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        for _ in range(6):  # on a busy machine the writer may sleep through a whole read
            result = backup.run(expect=None)
            backup.assert_sound()
            if result.exit != 0:
                break
    finally:
        stop.set()
        writer.join()
    assert result.exit == 3 and "docs/busy" in result.stderr, result.said
    backup.run()
    backup.assert_all_well()
