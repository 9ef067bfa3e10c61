"""Meetings of rules that are simple by themselves: guard and cut, exclusion and type change, and so on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import REPOSITORY, Backup
from trees import remove

from pipeline.model.record import Kind
from pipeline.store import calls
from pipeline.store.folders import FOLDER_FLAGS, Folders
from pipeline.store.operation import Identity, Place, Remove
from pipeline.store.staging import Expected, Staging


def test_what_is_added_does_not_weaken_the_deletion_guard(tmp_path: Path) -> None:
    """Deletions that were held back stay held back, however often the run is repeated: the files that such a
    run adds don't make the same deletions a smaller share."""
    backup = Backup(tmp_path)
    backup.write({f"old{number}": f"{number}" for number in range(120)})
    backup.run()
    for number in range(100):
        remove(backup.source / f"old{number}")
    backup.write({f"new{number}": f"n{number}" for number in range(120)})
    for _ in range(2):
        assert backup.run("--json", expect=3).summary["delete"] == 0
    assert backup.run("--json", "--set", "safety.max_delete_percent=100").summary["delete"] == 100
    backup.assert_all_well()


def test_a_source_that_is_no_longer_configured_still_has_its_promotions(tmp_path: Path) -> None:
    """Removing a source from the configuration deletes nothing, and what is decided from the state alone
    (a duplicate whose original is gone) is decided for its files too."""
    backup = Backup(tmp_path, sources=["one", "two"])
    for name in ("one", "two"):
        (tmp_path / name / f"{name}.txt").write_text("same\n")
    (tmp_path / "one" / "other.txt").write_text("other\n")
    backup.run()
    assert backup.entry("two/two.txt")["stored_at"] == "_duplicates/two/two.txt"
    backup.sources = ["one"]
    backup.write_config()
    remove(tmp_path / "one" / "one.txt")
    result = backup.run()
    assert "PROMOTE: two/two.txt → two/two.txt" in result.log
    assert backup.entry("two/two.txt")["stored_at"] == "two/two.txt"


def test_the_sibling_that_sorts_directly_after_a_folder_s_content(tmp_path: Path) -> None:
    """A folder that isn't entered is jumped over, and nothing else is: not even a name that follows the
    folder's content at once, the folder's name and the byte 1."""
    backup = Backup(tmp_path)
    backup.write({"d": {"f": "f\n"}, "d\x01": "first\n"})
    backup.run()
    for number in (1, 2):
        backup.write({"d\x01": f"changed {number}\n"})
        backup.run("--set", 'filters.exclude=["d/"]')
    assert [version["n"] for version in backup.entry("docs/d\x01")["versions"]] == [1, 2]
    assert backup.read("d/f") == b"f\n"


def test_a_deleted_folder_with_excluded_content_comes_back_as_a_file(tmp_path: Path) -> None:
    """What was excluded after it was backed up keeps its folder; when the folder's path comes back as a file,
    that content moves to `_deleted/`: nothing of ours is taken for foreign."""
    backup = Backup(tmp_path)
    backup.write({"a": {"in": {"x.tmp": "kept\n"}}, "k": "k\n"})
    backup.run()
    backup.configure(filters__exclude=["*.tmp"])
    remove(backup.source / "a")
    backup.run()
    assert backup.read("a/in/x.tmp") == b"kept\n"
    backup.write({"a": "a file\n"})
    backup.run()
    assert backup.read("a") == b"a file\n"
    assert backup.read("_deleted/a/in/x.tmp") == b"kept\n"
    backup.assert_all_well()


def test_a_dry_run_foresees_a_damaged_stored_file(tmp_path: Path) -> None:
    """The dry run prints the very plan also where a stored file that is to become a version is gone."""
    backup = Backup(tmp_path)
    backup.write({"a": "one\n"})
    backup.run()
    remove(backup.root / "a")
    backup.write({"a": "two, longer\n"})
    planned = backup.run("--dry-run", expect=3).stdout.splitlines()
    carried_out = [line for line in backup.run(expect=3).log if line.startswith("PLANNER")]
    assert [line for line in planned if line.startswith("PLANNER")] == carried_out != []


def test_a_foreign_file_in_a_version_s_place_survives_retention(tmp_path: Path) -> None:
    """Retention unlinks only what is identified as ours; what else stands there stays and is reported."""
    backup = Backup(tmp_path)
    for text in ("1\n", "2\n", "3\n"):
        backup.write({"a": text})
        backup.run()
    version = backup.root / "versions/a/v1.bak"
    remove(version)
    version.write_text("X\n")
    result = backup.run("--set", "retention.max_versions_per_file=1", expect=3)
    assert version.read_text() == "X\n"
    assert "versions/a/v1.bak" in result.said


def test_a_log_folder_inside_the_backup_is_refused_at_once(tmp_path: Path) -> None:
    """Nothing but the backup lies in the backup root, from the first run on."""
    backup = Backup(tmp_path, settings={"log_dir": "backup/logs"})
    backup.write({"a": "a\n"})
    assert "log_dir" in backup.run(expect=2).stderr
    assert not backup.root.exists()


def test_sigterm_to_the_whole_group_is_an_interruption(tmp_path: Path) -> None:
    """A service manager's stop reaches every process of the run; it ends as interrupted, and the next one
    completes it."""
    backup = Backup(tmp_path)
    for folder in range(20):
        backup.write({f"d{folder}": {f"f{number}": f"{folder} {number}" for number in range(300)}})
    process = backup.start("run", "--json")
    assert process.stdout is not None
    process.stdout.readline()  # a status line: the run is under way
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode in (0, 130)
    backup.run()
    backup.assert_all_well()


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.LINK])
def test_old_content_gets_a_second_name_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    """Where the file system has no hard links, a stored file that is to be moved is copied to staging, with
    its metadata, and still recognised under its old name."""

    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(calls, "link", no_links)
    stored = tmp_path / "stored"
    if kind == Kind.FILE:
        stored.write_bytes(b"content")
        os.utime(stored, ns=(5, 5))
        expected = Expected(kind, 7, b"digest", None, 5)
    else:
        stored.symlink_to("target")
        expected = Expected(kind, 6, None, b"target", 5)
    (tmp_path / "staging").mkdir()
    root, folder = (calls.open(place, FOLDER_FLAGS) for place in (tmp_path, tmp_path / "staging"))
    folders = Folders(root)
    adopted = Staging(folder, folders).adopt(b"stored", expected)
    copy = tmp_path / "staging" / os.fsdecode(adopted.name)
    assert copy.is_symlink() if kind == Kind.LINK else copy.read_bytes() == b"content"
    assert kind == Kind.LINK or copy.stat().st_mtime_ns == 5
    assert adopted.identity.inode == copy.lstat().st_ino
    assert adopted.origin.inode == stored.lstat().st_ino
    folders.close()
    calls.close(root)
    calls.close(folder)


def test_a_lost_second_name_does_not_cost_the_content(tmp_path: Path) -> None:
    """When recovery finds that an old content's name in staging is lost, but the content is still under its
    stored name, it gets its new name from there, before the old one goes."""
    from pipeline.store.files import StoredFiles

    (tmp_path / "staging").mkdir()
    stored = tmp_path / "a"
    stored.write_bytes(b"old content")
    identity = Identity(stored.stat().st_ino, 11, b"digest", None)
    handles = [calls.open(place, FOLDER_FLAGS) for place in (tmp_path, tmp_path / "staging", tmp_path)]
    files = StoredFiles(*handles, hash_file=lambda handle: b"digest")
    operations = [
        Place(b"gone", b"_deleted/a", identity, b"docs\0a", 0, None, b"a"),
        Remove(b"a", identity),
    ]
    for _ in range(2):  # and once more: it is idempotent
        assert files.apply(operations, redo=True) == []
        assert (tmp_path / "_deleted/a").read_bytes() == b"old content"
        assert not stored.exists()
    files.close()
    for handle in handles:
        calls.close(handle)


CUT_BEFORE_THE_FIRST_RENAME = """
import os, signal, sys
from pipeline.store import system
system.rename_new = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
from pipeline.ui.cli import main
main()
"""


def test_a_dry_run_after_a_cut_sees_through_what_is_pending(tmp_path: Path) -> None:
    """A run was killed between its transaction and its first rename: the state is ahead of the files. A dry
    run recovers nothing, and still prints the plan of the run that does, without taking files for damaged."""
    backup = Backup(tmp_path)
    backup.write({"deleted": "1\n", "changed": "2\n", "kept": "3\n"})
    backup.run()
    remove(backup.source / "deleted")
    backup.write({"changed": "two\n", "new": "4\n"})
    cut = [sys.executable, "-c", CUT_BEFORE_THE_FIRST_RENAME, "run", "--config", str(backup.config)]
    assert subprocess.run(cut, cwd=REPOSITORY, timeout=60, check=False).returncode == -signal.SIGKILL
    remove(backup.source / "new")
    backup.write({"changed": "two again\n"})
    planned = [line for line in backup.run("--dry-run").stdout.splitlines() if line.startswith("PLANNER")]
    result = backup.run()
    assert planned == [line for line in result.log if line.startswith("PLANNER")] != []
    backup.assert_all_well()
