"""What a run prints: the dry run's plan, JSON lines, quiet and plain output."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TypeAlias

import pytest
from harness import SUMMARY_KEYS, Backup, command, environment, without_time_stamp
from trees import Link, change, grow, remove, snapshot, walk

ACTION_KEYS = {"type", "action", "path", "reason", "stored_at"}
VERSION_KEYS = {"n", "size", "digest", "stored_at", "target"}
EXPORT_KEYS = {"path", "kind", "size", "digest", "mode", "mtime_ns", "target", "stored_at", "original"}
EXPORT_KEYS |= {"deleted", "versions"}
Everything: TypeAlias = dict[str, tuple[object, ...]]


def everything(base: Path) -> Everything:
    """All there is below `base`, with folder times, change times and inode numbers: any touch shows."""
    contents = snapshot(base, folder_times=True)
    seen: Everything = {}
    for relative, entry in walk(base):
        found = entry.stat(follow_symlinks=False)
        seen[relative] = (*contents[relative], found.st_ctime_ns, found.st_ino, found.st_nlink)
    return seen


def planned(text: str) -> list[str]:
    lines = [without_time_stamp(line) for line in text.split("\n")]
    return [line for line in lines if line.startswith("PLANNER → ")]


def small_history(backup: Backup) -> None:
    """A run, then changes of every kind."""
    backup.write({"a": "same\n", "b": "same\n", "c": "c\n", "d": "d\n", "odd\nname": "e\n", "x": "x\n"})
    backup.run()
    backup.write({"c": "changed\n", "new": "new\n", "copy": "d\n"})
    (backup.source / "d").chmod(0o600)
    remove(backup.source / "a")
    remove(backup.source / "x")
    backup.write({"x": {"y": "y\n"}})


def test_dry_run_prints_the_plan_and_touches_nothing(backup: Backup) -> None:
    """`--dry-run` prints the very plan that the next run carries out, and touches nothing at all: not a byte,
    not a time stamp, no log."""
    small_history(backup)
    arguments = ["--set", "retention.max_versions_per_file=0"]
    before = everything(backup.base)
    dry = backup.run("--dry-run", *arguments)
    assert everything(backup.base) == before
    real = backup.run(*arguments)
    assert planned(dry.stdout) == [line for line in real.log if line.startswith("PLANNER → ")]
    assert {line.split(": ")[0] for line in real.planned()} == {
        "BACKUP", "DELETE", "DUPLICATE", "METADATA", "MODIFIED", "PROMOTE", "RETENTION",
    }  # fmt: skip


def test_dry_run_of_a_larger_change(tmp_path: Path) -> None:
    """The dry run's plan is the plan, also for many changes of all kinds at once."""
    backup = Backup(tmp_path)
    grow(backup.source, 150, seed=11)
    first = backup.run("--dry-run")
    assert not backup.root.exists() and not backup.logs.exists()
    assert planned(first.stdout) == [line for line in backup.run().log if line.startswith("PLANNER → ")]
    change(backup.source, seed=12, share=0.06)
    dry = backup.run("--dry-run")
    assert planned(dry.stdout) == [line for line in backup.run().log if line.startswith("PLANNER → ")]
    backup.assert_all_well()


def test_dry_run_with_nothing_there(backup: Backup) -> None:
    """A dry run before the first run makes neither the backup root nor the log folder."""
    backup.write({"a": "a\n"})
    result = backup.run("--dry-run", "--json")
    assert not backup.root.exists() and not backup.logs.exists()
    (action,) = (line for line in result.lines if line["type"] == "action")
    assert (action["action"], action["path"], action["reason"]) == ("BACKUP", "docs/a", "new path")
    assert result.summary["backup"] == 1


def test_dry_run_reports_as_the_run_would(backup: Backup) -> None:
    """A dry run has the exit code and the held-back deletions that the run has, and still touches nothing."""
    backup.write({f"file{number:03}": f"{number}\n" for number in range(110)})
    backup.run()
    for number in range(80):
        remove(backup.source / f"file{number:03}")
    before = everything(backup.base)
    dry = backup.run("--dry-run", expect=3)
    assert everything(backup.base) == before
    assert planned(dry.stdout) == []


def test_json_lines_and_their_summary(backup: Backup) -> None:
    """`--json` prints JSON lines and nothing else, the summary last, with exactly its keys; the action keys
    count files and links, not folders."""
    small_history(backup)
    backup.write({"l": Link("a"), "folder": {"empty": None}})
    result = backup.run("--json")
    assert [line["type"] for line in result.lines].count("summary") == 1
    assert {line["type"] for line in result.lines} <= {"status", "summary"}
    summary = result.summary
    assert summary.keys() == SUMMARY_KEYS
    assert summary["type"] == "summary" and summary["status"] == "ok" and summary["run"] == 2
    expected = {
        "files": 7, "backup": 3, "duplicate": 1, "metadata": 1, "skip": 2, "promote": 1, "retention": 0,
        "suspect": 0, "warnings": 0, "errors": 0,
    }  # fmt: skip
    assert {key: summary[key] for key in expected} == expected
    # a file that became a folder is modified or gone, as one sees it
    assert (summary["modified"], summary["delete"]) in ((1, 2), (2, 1))
    assert summary["bytes_read"] > 0 and summary["bytes_stored"] > 0 and summary["seconds"] > 0


def test_json_actions(backup: Backup) -> None:
    """With `--verbose` each decision is a JSON line with its action, path, reason and place."""
    small_history(backup)
    result = backup.run("--json", "--verbose")
    actions = [line for line in result.lines if line["type"] == "action"]
    logged = [line.split(" (")[0] for line in result.planned()]
    spelled = [f"{line['action']}: {line['path']}" for line in actions if line["action"] != "SKIP"]
    assert spelled == [line.replace("\\x0a", "\n") for line in logged]
    for line in actions:
        assert line.keys() - {"path_b64", "stored_at_b64"} == ACTION_KEYS
        assert line["reason"]
    places = {(line["action"], line["path"]): line["stored_at"] for line in actions}
    assert places["BACKUP", "docs/new"] == "new"
    assert places["DUPLICATE", "docs/copy"] == "_duplicates/copy"
    assert places["MODIFIED", "docs/c"] == "c"
    assert places["DELETE", "docs/a"] == "_deleted/a"
    assert places["PROMOTE", "docs/b"] == "b"


@pytest.mark.parametrize("expect", [1, 2])
def test_json_of_a_run_that_fails(backup: Backup, expect: int) -> None:
    """With `--json` the last line is a summary also when a run fails; the cause is a JSON line of its own."""
    backup.write({"a": "a\n"})
    backup.run()
    if expect == 1:
        remove(backup.source)
    else:
        backup.configure(hash_algorithm="sha256")
    result = backup.run("--json", expect=expect)
    assert result.summary["type"] == "summary" and result.summary["status"] == "failed"
    assert any(line["type"] == "error" and line["cause"] for line in result.lines)


def test_json_leaves_standard_output_to_json(backup: Backup) -> None:
    """With `--json` every line of standard output is JSON, also when names are odd and warnings come up."""
    backup.write({"odd\n\x1b[31m\u2028name": "1", os.fsdecode(b"\xff"): "2", '"quoted"': "3"})
    result = backup.run("--json", "--verbose")
    paths = {line["path"] for line in result.lines if line["type"] == "action"}
    assert paths == {"docs/odd\n\x1b[31m\u2028name", "docs/�", 'docs/"quoted"'}


def test_quiet_and_plain_output(backup: Backup) -> None:
    """Where the output is no terminal there are plain lines, no escape sequences; `--quiet` prints nothing
    when all went well; a run with nothing to do says so."""
    backup.write({"a": "a\n"})
    plain = backup.run()
    assert "\x1b" not in plain.stdout + plain.stderr and plain.stdout + plain.stderr
    backup.write({"a": "changed\n"})
    quiet = backup.run("--quiet")
    assert quiet.stdout + quiet.stderr == ""
    assert "nothing" in backup.run().stdout.lower()


def test_one_log_for_each_run(backup: Backup) -> None:
    """One log file per run, named by its time in UTC and its number."""
    backup.write({"a": "a\n"})
    for _ in range(3):
        backup.run()
    numbers = sorted(int(name.removesuffix(".log").rpartition("-")[2]) for name in backup.log_names())
    assert numbers == [1, 2, 3]
    assert all(name.startswith("run-2") for name in backup.log_names())


def test_config_is_found_in_the_current_folder(backup: Backup) -> None:
    """A missing `--config` means `config.toml` in the current folder; `--set` goes over what it says."""
    backup.write({"a": "a\n"})
    finished = subprocess.run(
        command("run", "--json", "--set", "log_dir=\"other logs\""), cwd=backup.base, env=environment(),
        capture_output=True, timeout=60, check=False, text=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout.splitlines()[-1])["backup"] == 1
    assert (backup.base / "other logs").is_dir() and not backup.logs.exists()


def test_export_is_canonical(backup: Backup) -> None:
    """`export` prints the state as JSON lines in scan order, each field in its place, without times of runs
    or inode numbers."""
    small_history(backup)
    backup.run()
    lines = backup.export()
    for line in lines:
        assert {key.removesuffix("_b64") for key in line} <= EXPORT_KEYS
        for version in line.get("versions") or []:
            assert {key.removesuffix("_b64") for key in version} <= VERSION_KEYS
    paths = [line["path"].encode().replace(b"/", b"\0") for line in lines]
    assert paths == sorted(paths)
    assert backup.call("export").stdout.encode() == backup.export_bytes()
