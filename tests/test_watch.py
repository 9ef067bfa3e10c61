"""`watch`: what changes is backed up soon after, by runs like any other, and nothing else causes one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Backup, wait_until
from trees import write_tree
from watched import watched_backup, watching


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    return watched_backup(tmp_path)


def run_numbers(backup: Backup) -> list[int]:
    listed = backup.call("runs", "--json").stdout.splitlines()
    return [line["run"] for line in map(json.loads, listed) if line["type"] == "run"]


def statuses(backup: Backup) -> list[str]:
    listed = backup.call("runs", "--json").stdout.splitlines()
    return [line["status"] for line in map(json.loads, listed) if line["type"] == "run"]


def mtime_ns(backup: Backup, path: str) -> int:
    """By the state, as it is now."""
    lines = map(json.loads, backup.call("export").stdout.splitlines())
    return int(next(line["mtime_ns"] for line in lines if line["path"] == path))


def versions_of(backup: Backup, path: str) -> list[str]:
    folder = backup.root / "versions" / path
    return sorted(os.listdir(folder)) if folder.exists() else []


def stored(backup: Backup, path: str, content: str) -> bool:
    """Whether the latest content of a path lies in the backup, as it is or as a duplicate."""
    places = [backup.root / path, backup.root / "_duplicates" / path]
    return any(place.is_file() and place.read_text() == content for place in places)


# What happens in the sources


def test_what_changes_is_in_the_backup_soon(backup: Backup) -> None:
    """New, changed, deleted, moved files and folders, metadata, links: the backup follows, and afterwards it
    is what a run would have made."""
    backup.write(
        {"one.txt": "one", "folder/two.txt": "two", "folder/inner/three.txt": "three", "gone": "gone"}
    )
    source = backup.source
    with watching(backup, "--verbose") as watched:
        assert stored(backup, "one.txt", "one")
        write_tree(source, {"new/deep/file": "new", "one.txt": "other"})
        (source / "link").symlink_to("one.txt")
        (source / "folder/two.txt").chmod(0o600)
        (source / "folder").rename(source / "moved")
        (source / "gone").unlink()
        watched.wait_for(
            lambda: not (backup.root / "gone").exists() and stored(backup, "new/deep/file", "new")
        )
        watched.wait_for(lambda: stored(backup, "moved/inner/three.txt", "three"))
        watched.wait_for(lambda: not (backup.root / "folder").exists())
        watched.wait_until_idle()
        watched.stop()
    actions = {(line["action"], line["path"]) for line in watched.of_type("action")}
    assert {("MODIFIED", "docs/one.txt"), ("DELETE", "docs/gone"), ("BACKUP", "docs/link")} <= actions
    assert (backup.root / "_deleted/gone").read_text() == "gone"
    backup.assert_all_well()


def test_its_first_run_finds_what_changed_while_it_was_away(backup: Backup) -> None:
    """It starts with a full run: what came and went before is found, deletions included."""
    backup.write({"old": "old", "kept": "kept"})
    backup.run()
    (backup.source / "old").unlink()
    backup.write({"new": "new"})
    with watching(backup) as watched:
        assert [line["run"] for line in watched.runs] == [2]
        assert (watched.runs[0]["backup"], watched.runs[0]["delete"]) == (1, 1)
        watched.stop()


def test_a_burst_is_one_run_over_just_those_paths(backup: Backup) -> None:
    """Many paths that change within a moment are one run, which doesn't look at the others."""
    backup.write({f"kept{number}": "kept" for number in range(50)})
    with watching(backup) as watched:
        before = len(watched.runs)
        backup.write({f"burst/file{number}": str(number) for number in range(100)})
        watched.wait_until_idle(before + 1)
        (run,) = watched.runs[before:]
        watched.stop()
    assert run["backup"] == run["files"] == 100


def test_each_run_is_one_like_any_other(backup: Backup) -> None:
    """Numbered, with a log of its own, in `runs` and `history`, and to be restored with `--at`."""
    backup.write({"text": "first"})
    with watching(backup) as watched:
        backup.write({"text": "second"})
        watched.wait_until_idle(2)
        watched.stop()
    assert run_numbers(backup) == [1, 2]
    assert len(backup.log_names()) == 2
    assert backup.read_log(max(backup.log_names())) == [
        "PLANNER → MODIFIED: docs/text (content differs)",
        "ARCHIVE: text → versions/text/v1.bak",
        "UPDATED: docs/text → text",
        "Run complete",
    ]
    backup.call("restore", "--to", str(backup.base / "then"), "--at", "1")
    assert (backup.base / "then/text").read_text() == "first"
    assert "second" in (backup.root / "text").read_text()


def test_where_nothing_is_to_be_done_no_trace_is_left(backup: Backup) -> None:
    """A file that comes and goes, one that is touched by nothing but an open: no run, no log, no number."""
    backup.write({"text": "text", "folder/inner": "inner"})
    with watching(backup) as watched:
        for number in range(3):
            (backup.source / f"passing{number}").write_text("passing")
            (backup.source / f"passing{number}").unlink()
        with (backup.source / "text").open("r+"):
            pass  # opened for writing, and closed
        watched.wait_for(lambda: any(line.get("paths") for line in watched.of_type("status")))
        watched.wait_until_idle()
        assert len(watched.runs) == 1
        backup.write({"folder/inner": "other"})
        watched.wait_until_idle(2)
        watched.stop()
    assert run_numbers(backup) == [1, 2]
    assert len(backup.log_names()) == 2
    backup.assert_all_well()


@pytest.mark.slow
def test_a_number_that_was_given_back_confuses_nobody(backup: Backup) -> None:
    """What a run without a trace has refreshed (the time of a folder) counts for the next one: each run comes
    back as it was, with its own state of the folder, and nothing is left to do."""
    backup.write({"folder/text": "first"})
    with watching(backup) as watched:
        then = (backup.source / "folder").stat().st_mtime_ns
        (backup.source / "folder/passing").write_text("passing")
        (backup.source / "folder/passing").unlink()
        watched.wait_for(lambda: mtime_ns(backup, "docs/folder") != then)
        watched.wait_until_idle()
        backup.write({"folder/text": "second"})
        watched.wait_until_idle(2)
        watched.stop()
    assert run_numbers(backup) == [1, 2]
    for run, content in ((1, "first"), (2, "second")):
        backup.call("restore", "--to", str(backup.base / f"at{run}"), "--at", str(run))
        assert (backup.base / f"at{run}/folder/text").read_text() == content
    assert (backup.base / "at1/folder").stat().st_mtime_ns == then
    backup.call("verify")
    backup.assert_all_well()


def test_a_folder_alone_is_a_run(backup: Backup) -> None:
    """A folder that appears, or gets another mode, has no action, yet its record is part of the history."""
    with watching(backup) as watched:
        runs = len(watched.runs)
        (backup.source / "empty").mkdir()
        watched.wait_until_idle(runs + 1)
        (backup.source / "empty").chmod(0o750)
        watched.wait_until_idle(runs + 2)
        watched.stop()
    assert backup.entry("docs/empty")["mode"] == 0o750
    backup.assert_all_well()


# Editors


def save_in_place(file: Path, content: str) -> None:
    with file.open("r+") as opened:
        opened.write(content)


def save_by_rename(file: Path, content: str) -> None:
    draft = file.with_name(".draft")
    draft.write_text(content)
    draft.replace(file)


def save_by_truncation(file: Path, content: str) -> None:
    with file.open("w") as opened:
        opened.flush()
        opened.write(content)


def save_by_hard_link(file: Path, content: str) -> None:
    """The old content keeps a second name for as long as it takes."""
    before = file.with_name(file.name + "~")
    before.hardlink_to(file)
    file.unlink()
    file.write_text(content)
    before.unlink()


def save_by_moving_away(file: Path, content: str) -> None:
    """As vim does with `backupcopy=no`."""
    before = file.with_name(file.name + "~")
    file.rename(before)
    file.write_text(content)
    before.unlink()


SAVES = (save_in_place, save_by_rename, save_by_truncation, save_by_hard_link, save_by_moving_away)


def test_each_way_to_save_makes_exactly_one_version(backup: Backup) -> None:
    """In place, by rename, truncated and written, by hard link, moved away: one version, no deletion, and no
    trace of what the editor needed on the way."""
    names = [save.__name__ for save in SAVES]
    backup.write({f"{name}/text": f"{name} before" for name in names})
    with watching(backup) as watched:
        for number, save in enumerate(SAVES, 2):
            save(backup.source / save.__name__ / "text", f"{save.__name__} after!")
            watched.wait_until_idle(number)
        watched.stop()
    for name in names:
        assert versions_of(backup, f"{name}/text") == ["v1.bak"]
        assert stored(backup, f"{name}/text", f"{name} after!")
    assert {key: sum(run[key] for run in watched.runs[1:]) for key in ("backup", "modified", "delete")} == {
        "backup": 0, "modified": len(SAVES), "delete": 0,
    }  # fmt: skip
    backup.assert_all_well()


def test_a_folder_that_is_replaced_is_not_deleted(backup: Backup) -> None:
    """A tool that removes a folder and writes it anew within the delay makes no deletion and no version of
    what is the same."""
    tree = {f"site/page{number}": f"page {number}" for number in range(20)}
    backup.write(tree)
    with watching(backup) as watched:
        shutil.rmtree(backup.source / "site")
        backup.write({**tree, "site/page3": "other"})
        watched.wait_until_idle(2)
        watched.stop()
    assert sum(run["delete"] for run in watched.runs) == 0
    assert sum(run["modified"] for run in watched.runs) == 1
    backup.assert_all_well()


# What causes no run


@pytest.mark.parametrize("backend", ["native", pytest.param("polling", marks=pytest.mark.slow)])
def test_the_backup_and_the_logs_cause_no_runs(tmp_path: Path, backend: str) -> None:
    """Also inside a source: what a run writes there makes no further run."""
    backup = watched_backup(
        tmp_path, {"backup_root": "docs/backup", "log_dir": "docs/logs", "watch.backend": backend}
    )
    backup.root, backup.logs = backup.source / "backup", backup.source / "logs"
    backup.write({"text": "first"})
    with watching(backup) as watched:
        for number in (2, 3):
            backup.write({"text": f"content {number}"})
            watched.wait_until_idle(number)
        (backup.root / "foreign").write_text("put there by hand")
        backup.write({"last": "last"})
        watched.wait_until_idle(4)
        watched.stop()
    assert [run["run"] for run in watched.runs] == [1, 2, 3, 4]
    assert watched.runs[-1]["backup"] == 1
    looks = [line for line in watched.lines if line.get("phase") == "looking"]
    assert len(looks) <= 8, "what a run writes makes no further look, not even one in vain"


def test_filters_apply(tmp_path: Path) -> None:
    """What is excluded causes no run, nor does what lies in an excluded folder; it isn't even watched."""
    backup = watched_backup(tmp_path, {"filters.exclude": ["*.tmp", "cache/"]})
    backup.write({"text": "text", "cache/inner/a": "a"})
    with watching(backup) as watched:
        assert watched.of_type("watching")[0]["folders"] == 1
        write_tree(backup.source, {"x.tmp": "x", "cache/inner/b": "b", "new/y.tmp": "y", "new/cache/c": "c"})
        backup.write({"text": "other"})
        watched.wait_until_idle(2)
        watched.stop()
    assert sorted(path for path in backup.entries() if "text" not in path) == ["docs", "docs/new"]


# Beside it, and its end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(backup: Backup, number: signal.Signals) -> None:
    """Idle: at once, exit code 0, the last line is the summary of all that it did."""
    backup.write({"one": "one"})
    with watching(backup) as watched:
        backup.write({"two": "two"})
        watched.wait_until_idle(2)
        summary = watched.stop(number)
    assert (summary["run"], summary["status"], summary["backup"]) == (2, "ok", 2)


@pytest.mark.slow
def test_a_signal_during_its_first_run(tmp_path: Path) -> None:
    """It finishes the group; the run is listed as interrupted, and the next one goes on from there."""
    backup = watched_backup(tmp_path)
    backup.write({f"folder{number % 20}/file{number:05}": str(number) for number in range(12_000)})
    with watching(backup, idle=False) as watched:
        assert wait_until(lambda: (backup.root / "folder0").exists())
        watched.stop()
    assert statuses(backup) == ["interrupted"]
    backup.run()
    backup.assert_right()


def test_others_work_beside_it(backup: Backup) -> None:
    """The lock is taken for each run only: `run`, `verify` and `restore` work in between."""
    backup.write({"text": "text"})
    with watching(backup) as watched:
        backup.run()
        backup.call("verify")
        backup.call("restore", "--to", str(backup.base / "restored"))
        backup.write({"text": "other"})
        watched.wait_for(lambda: stored(backup, "text", "other"))
        watched.stop()
    backup.assert_all_well()


def test_a_run_in_a_loop_beside_it(backup: Backup) -> None:
    """Whoever comes first takes a change; whoever finds the lock held waits, or says so (exit code 11).
    Nothing is lost and nothing is done twice."""
    backup.write({"text": "0"})
    with watching(backup) as watched:
        exits = []
        for number in range(1, 9):
            backup.write({"text": str(number), f"new{number}": f"new {number}"})
            exits.append(backup.run(expect=None).exit)
        backup.write({"last": "last"})
        watched.wait_for(lambda: stored(backup, "last", "last") and stored(backup, "text", "8"))
        watched.wait_until_idle()
        watched.stop()
    assert set(exits) <= {0, 11}
    kept = {backup.read(f"versions/text/{name}") for name in versions_of(backup, "text")}
    assert len(kept) == len(versions_of(backup, "text")), "no content is a version twice"
    backup.assert_all_well()


def test_it_waits_for_the_lock(backup: Backup) -> None:
    """While another run is at work it waits, says so once, and does then what there is to do."""
    import fcntl

    backup.write({"text": "first"})
    backup.run()
    with (backup.root / ".pipeline/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        backup.write({"text": "second"})
        with watching(backup, idle=False) as watched:
            watched.wait_for(lambda: any("goes on after it" in note for note in watched.notes))
            fcntl.flock(lock, fcntl.LOCK_UN)
            watched.wait_for(lambda: stored(backup, "text", "second"))
            watched.stop()
    assert sum("goes on after it" in note for note in watched.notes) == 1


# Safety


def test_the_guard_counts_what_has_accumulated(tmp_path: Path) -> None:
    """Deletions in many small runs count together: beyond the share of what was there at the last full run
    they are held back, and said."""
    backup = watched_backup(tmp_path)
    backup.write(
        {f"folder{number % 4}/file{number}": str(number) for number in range(120)} | {"kept": "kept"}
    )
    with watching(backup) as watched:
        for folder in range(4):
            shutil.rmtree(backup.source / f"folder{folder}")
            if folder < 2:
                watched.wait_until_idle(folder + 2)
        watched.wait_for(lambda: any("max_delete_percent" in w["cause"] for w in watched.of_type("warning")))
        watched.stop()
    kept = [path for path in backup.names() if path.startswith("folder")]
    assert len(kept) == 60


@pytest.mark.slow
def test_what_came_and_went_in_between_does_not_count(tmp_path: Path) -> None:
    """Files that weren't there at the last full run are no part of the share: a build may make and remove
    them all day."""
    backup = watched_backup(tmp_path)
    backup.write({f"file{number}": str(number) for number in range(110)})
    with watching(backup) as watched:
        for number in range(2):
            backup.write({f"build/part{part}": f"{number} {part}" for part in range(90)})
            watched.wait_for(lambda: (backup.root / "build/part89").exists())
            shutil.rmtree(backup.source / "build")
            watched.wait_for(lambda: not (backup.root / "build").exists())
        watched.stop()
    assert not watched.of_type("warning")
    assert sum(run["delete"] for run in watched.runs) == 180


def test_what_a_watch_has_added_counts_for_the_next_run(tmp_path: Path) -> None:
    """Files that were added since the last full run are part of what a later one takes its share of."""
    backup = watched_backup(tmp_path)
    backup.write({f"old{number}": str(number) for number in range(100)})
    with watching(backup) as watched:
        backup.write({f"new{number}": f"new {number}" for number in range(100)})
        watched.wait_until_idle(2)
        watched.stop()
    for number in range(70):
        (backup.source / f"new{number}").unlink()
    assert backup.run("--json").summary["delete"] == 70


@pytest.mark.slow
def test_a_source_in_another_folder_is_watched_there(backup: Backup) -> None:
    """Where another folder takes the source's place, it is seen: the watch goes over to it."""
    backup.write({"text": "first", "same": "same"})
    with watching(backup) as watched:
        shutil.copytree(backup.source, backup.base / "other")
        (backup.base / "other/text").write_text("second")
        backup.source.rename(backup.base / "old")
        (backup.base / "other").rename(backup.source)
        watched.wait_for(lambda: stored(backup, "text", "second"))
        watched.wait_until_idle(2)
        backup.write({"text": "third"})
        watched.wait_for(lambda: stored(backup, "text", "third"))
        watched.stop()
    assert any("moved, removed or unmounted" in note for note in watched.notes)
    backup.assert_all_well()


def test_a_dry_run_writes_nothing(backup: Backup) -> None:
    """It prints what would be done, and leaves no backup behind."""
    backup.write({"text": "text"})
    with watching(backup, "--dry-run") as watched:
        backup.write({"more": "more"})
        watched.wait_for(lambda: any(line["path"] == "docs/more" for line in watched.of_type("action")))
        watched.stop()
    assert not backup.root.exists() and not backup.log_names()


# Backends


@pytest.mark.slow
def test_polling_serves_as_well(tmp_path: Path) -> None:
    """Where the system can't tell of changes, the sources are looked at again and again."""
    backup = watched_backup(tmp_path, {"watch.backend": "polling"})
    backup.write({"text": "first", "old": "old", "folder/a": "a"})
    with watching(backup) as watched:
        assert watched.of_type("watching")[0]["sources"][0]["backend"] == "polling"
        backup.write({"text": "second", "new/deep": "deep"})
        (backup.source / "old").unlink()
        (backup.source / "folder").rename(backup.source / "moved")
        watched.wait_for(lambda: stored(backup, "text", "second") and stored(backup, "new/deep", "deep"))
        watched.wait_for(lambda: not (backup.root / "old").exists() and stored(backup, "moved/a", "a"))
        watched.wait_until_idle()
        watched.stop()
    backup.assert_all_well()


# What people and service managers are told


def test_plain_lines_for_people(backup: Backup) -> None:
    """Without a terminal: where it watches, a line for each run, how it ended."""
    backup.write({"text": "text"})
    process = backup.start("watch")
    assert process.stdout is not None
    lines: Iterator[str] = iter(process.stdout.readline, "")
    assert f"Watching {backup.source} (native); 1 folder" in next(lines)
    assert "Run 1: 1 new; 4 B stored" in next(lines)
    process.send_signal(signal.SIGTERM)
    result = backup.finish(process)
    assert result.exit == 0 and "Stopped." in result.stdout


def test_a_wrong_configuration_is_told_at_once(backup: Backup) -> None:
    """As for any command: exit code 2; with `--json`, the summary is last all the same."""
    result = backup.call("watch", "--json", "--set", "watch.backend=carrier", expect=2)
    assert result.lines[-1]["type"] == "summary" and result.lines[-1]["status"] == "failed"
    assert "watch.backend" in result.lines[0]["cause"]
    result = backup.call("watch", "--set", "watch.rescan_minutes=0", expect=2)
    assert "rescan_minutes" in result.stderr and "at least 0.1" in result.stderr


def test_a_source_that_is_missing_is_told_at_once(backup: Backup) -> None:
    """What ends the first run ends the watch, with its exit code: no folder there, or a circle of links."""
    backup.source.rmdir()
    result = backup.call("watch", expect=1)
    assert "source" in result.stderr and not backup.root.exists()
    assert "Stopped" not in result.stdout
    backup.source.symlink_to(backup.source.name)
    for command in ("watch", "run"):
        assert "source" in backup.call(command, expect=1).stderr


def test_readiness_for_a_service_manager(backup: Backup, tmp_path: Path) -> None:
    """READY when nothing goes unnoticed any more, STATUS for people, STOPPING at the end."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        backup.write({"text": "text"})
        with watching(backup, variables={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as watched:
            said = [manager.recv(4096).decode()]
            watched.stop()
        while said[-1] != "STOPPING=1":
            said.append(manager.recv(4096).decode())
    assert said[0] == "READY=1"
    assert any(words.startswith("STATUS=Run 1: 1 new") for words in said)
