"""Rules of age, periods, deleted paths and space, and `prune`, through the command line with clocks that are
shifted.

`test_retention_rules.py` has the rules themselves. Guarded here: what goes says so in the log, in the state
and in `history`; a dry run tells the same; a kill leaves what the next call finishes; no number comes back; a
clock that can't be right takes nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from cut_short import run_cut_after
from harness import Backup, Result
from tampered_clock import DAY_S, shifted
from trees import Link, Snapshot, difference, remove
from watched import watched_backup, watching


class Aged:
    """A backup whose calls are made on chosen days, in one boot of the machine."""

    def __init__(self, base: Path, **numbers: Any) -> None:
        self.base = base
        self.backup = Backup(base / "one", settings={f"retention.{key}": n for key, n in numbers.items()})

    def on(self, day: int, *words: str, up: int | None = None, expect: int = 0) -> Result:
        """A call on a day. up: for how many days the machine has been up, those that have passed if left
        out."""
        passed = day if up is None else up
        return self.backup.call(*(words or ("run",)), expect=expect, variables=self.clock(day, passed))

    def clock(self, day: int, up: int) -> dict[str, str]:
        return shifted(self.base / "site", day * DAY_S, up * DAY_S)

    def contents(self, path: str, day: int, *names: str) -> list[tuple[Any, ...]]:
        *lines, _ = self.on(day, "history", path, "--why", "--json").lines
        return [tuple(line[name] for name in names) for line in lines]

    def stored(self, area: str) -> list[str]:
        return [name for name in self.backup.names() if name.startswith(area)]


def with_past(base: Path, **numbers: Any) -> Aged:
    """Three versions of one file, from days 1, 2 and 3; two paths are deleted on day 1."""
    aged = Aged(base, max_versions_per_file=99, **numbers)
    aged.backup.write({"one.txt": "0\n", "old.txt": "old\n", "link": Link("old.txt"), "logs": {"a": "0\n"}})
    aged.on(0)
    for name in ("old.txt", "link"):
        remove(aged.backup.source / name)
    for day in (1, 2, 3):
        aged.backup.write({"one.txt": f"{day}\n", "logs": {"a": f"{day}\n"}})
        aged.on(day)
    return aged


def test_each_version_says_which_rule_took_it(tmp_path: Path) -> None:
    """In the log, in `history` and for those that stay; an override speaks for what lies below its folder;
    the rebuilt state gives no number a second time."""
    numbers = {"keep_monthly": 1, "max_age_days": 30, "deleted_max_age_days": 60}
    aged = with_past(tmp_path, override=[], **numbers)
    backup = aged.backup
    overrides = ("--set", 'retention.override=[{pattern="logs/",max_age_days=0}]')
    old = "not the latest for more than 30 days"
    assert aged.on(31, "prune", *overrides).log == [
        f"PLANNER → RETENTION: docs/one.txt (version 1: {old})",
        "RETENTION delete: versions/one.txt/v1.bak",
        "Run complete",
    ]
    assert aged.contents("docs/one.txt", 31, "n", "pruned_by", "pruned_why", "why") == [
        (1, 5, old, None),
        (2, None, None, "max_versions_per_file, max_age_days"),
        (3, None, None, "newest, keep_monthly"),
        (4, None, None, "latest content"),
    ]
    assert f"dropped by run 5: {old}" in aged.on(31, "history", "one.txt").stdout
    expected = [
        "PLANNER → RETENTION: docs/link (deleted for more than 60 days)",
        "RETENTION delete: _deleted/link",
        "PLANNER → RETENTION: docs/old.txt (deleted for more than 60 days)",
        "RETENTION delete: _deleted/old.txt",
        "PLANNER → RETENTION: docs/one.txt (version 2: not the latest for more than 30 days)",
        "RETENTION delete: versions/one.txt/v2.bak",
    ]
    before = backup.tree()
    dry = aged.on(62, "prune", "--dry-run", *overrides)
    assert dry.stdout.splitlines()[: len(expected)] == expected and not difference(before, backup.tree())
    assert aged.on(62, "prune", *overrides).log == [*expected, "Run complete"]
    assert aged.stored("_deleted/") == []
    assert aged.stored("versions/") == [
        "versions/link/v1.pruned", *(f"versions/logs/a/v{number}.bak" for number in (1, 2, 3)),
        "versions/old.txt/v1.pruned", "versions/one.txt/v3.bak",
    ]  # fmt: skip
    shutil.rmtree(backup.root / ".pipeline")
    aged.on(63, "rebuild")
    backup.write({"old.txt": "back\n"})
    aged.on(64)
    backup.write({"old.txt": "changed\n"})
    aged.on(65)
    assert "versions/old.txt/v2.bak" in aged.stored("versions/")
    backup.assert_right()


@pytest.mark.slow
def test_a_budget_and_the_summary_of_a_prune(tmp_path: Path) -> None:
    """The oldest of all paths go until the rest fits; `prune` ends with the fields of a run, and needs no
    source."""
    aged = with_past(tmp_path)
    remove(aged.backup.source)
    result = aged.on(4, "prune", "--json", "--verbose", "--set", "retention.max_versions_bytes=9")
    why = "all versions together take more than 9 bytes"
    actions = [line for line in result.lines if line["type"] == "action"]
    assert [(line["path"], line["reason"], line["stored_at"]) for line in actions] == [
        ("docs/logs/a", f"version 1: {why}", "versions/logs/a/v1.bak"),
        ("docs/one.txt", f"version 1: {why}", "versions/one.txt/v1.bak"),
    ]
    done = {key: result.summary[key] for key in ("run", "status", "retention", "files", "delete")}
    assert done == {"run": 5, "status": "ok", "retention": 2, "files": 0, "delete": 0}
    again = aged.on(4, "prune", "--set", "retention.max_versions_bytes=9")
    assert again.stdout.startswith("Nothing has to go.") and again.log == ["Run complete"]
    missing = aged.on(4, "prune", "--set", "backup_root=nowhere", expect=1)
    assert "there is no state" in missing.stderr and not (aged.backup.base / "nowhere").exists()


def test_a_clock_that_has_jumped_takes_nothing(tmp_path: Path) -> None:
    """Ahead while the machine was up, or back behind an earlier run: exit 3 with the way to allow it, until
    the clock is right or a person says so. Rules that don't ask for the time go on."""
    aged = with_past(tmp_path, max_age_days=10)
    for up in (3, 4):  # the clock isn't trusted for being told so twice
        held = aged.on(40, "prune", up=up, expect=3)
        assert len(held.log) == 2 and "jumped ahead" in held.log[0] and "--accept-clock" in held.stderr
    assert aged.on(40, "prune", "--set", "retention.max_age_days=0", up=4).log == ["Run complete"]
    counted = aged.on(40, "run", "--set", "retention.max_versions_per_file=2", up=4, expect=3)
    assert [line.partition(" (")[2] for line in counted.planned()] == ["version 1: more than 2 versions)"] * 2
    back = aged.on(5, "run", expect=3)
    assert "lies before the start of an earlier run" in back.stderr
    # If this clock is right, that of the runs before wasn't: what they did counts from now on.
    assert aged.on(40, "prune", "--accept-clock", up=5).log == ["Run complete"]
    assert aged.on(41, "prune", up=6).log == ["Run complete"]
    assert aged.on(51, "prune", up=16).planned() == [
        f"RETENTION: docs/{name} (version 2: not the latest for more than 10 days)"
        for name in ("logs/a", "one.txt")
    ]


def timeless(aged: Aged) -> Snapshot:
    """The backup's tree; the markers of numbers have the time at which they were made."""
    tree = aged.backup.tree()
    return {
        name: seen._replace(mtime_ns=0) if name.endswith(".pruned") else seen for name, seen in tree.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("finish", ["prune", "run"])
def test_a_prune_that_is_cut_is_finished_by_what_comes_next(tmp_path: Path, finish: str) -> None:
    """After a cut at each of its file operations, the next call ends with the export and tree of one that was
    never cut."""
    numbers = {"max_age_days": 30, "deleted_max_age_days": 30, "max_versions_bytes": 3}
    base = with_past(tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "whole", symlinks=True)
    whole = Aged(tmp_path / "whole", max_versions_per_file=99, **numbers)
    whole.on(80, "prune")
    exported, tree, operations = whole.backup.export_bytes(), timeless(whole), 0
    assert not whole.stored("_deleted/") and base.stored("_deleted/")
    while True:
        folder = tmp_path / f"cut{operations}"
        shutil.copytree(tmp_path / "base", folder, symlinks=True)
        cut = Aged(folder, max_versions_per_file=99, **numbers)
        if not run_cut_after(cut.backup, operations, "prune", cut.clock(80, 80)):
            break
        cut.on(80, finish)
        assert (cut.backup.export_bytes(), difference(tree, timeless(cut))) == (exported, "")
        operations += 1
    assert operations > 6


@pytest.mark.slow
def test_a_watch_applies_the_rules_in_each_of_its_runs(tmp_path: Path) -> None:
    """Over a part as over everything, and numbers that were given back don't hide a version."""
    settings = {"retention.keep_daily": 1, "retention.max_versions_per_file": 1, "watch.rescan_minutes": 0.1}
    backup = watched_backup(tmp_path, settings)
    backup.write({"text": "0\n", "other": "0\n"})
    with watching(backup) as watched:
        for number in range(1, 4):
            backup.write({"text": f"{number}\n"})
            watched.wait_until_idle(number + 1)
        looks = len(watched.looks_at_everything())
        watched.wait_for(lambda: len(watched.looks_at_everything()) > looks)
        backup.write({"text": "4\n"})
        watched.wait_for(lambda: (backup.root / "versions/text/v4.bak").exists())
        watched.wait_until_idle()
        watched.stop()
    assert [run["retention"] for run in watched.runs] == [0, 0, 1, 1, 1]
    assert [name for name in backup.names() if name.startswith("versions/")] == ["versions/text/v4.bak"]
    backup.assert_all_well()


def test_a_prune_after_a_run_that_was_cut(tmp_path: Path) -> None:
    """It does nothing of what the run has left undone, and doesn't pass for a run that was completed."""
    backup = Backup(tmp_path / "one")
    backup.write({f"folder {number}": {"file": f"{number}\n"} for number in range(4)})
    assert run_cut_after(backup, 5)
    backup.call("prune")
    assert [line["status"] for line in backup.call("runs", "--json").lines if line["type"] == "run"] == [
        "interrupted",
        "interrupted",
    ]
    backup.call("restore", "--to", str(tmp_path / "to"), "--at", "2", expect=2)
    backup.run()
    backup.call("verify")


def test_what_a_doubted_run_did_counts_from_the_next_one(tmp_path: Path) -> None:
    """A clock that was back for one run costs nothing when it is right again."""
    aged = with_past(tmp_path, deleted_max_age_days=365)
    (aged.backup.source / "one.txt").unlink()
    aged.on(-3650, "run", expect=3)
    assert "docs/one.txt" in aged.backup.entries()
    for day in (40, 42):
        assert not [line for line in aged.on(day, "run").planned() if "one.txt" in line]
    assert aged.stored("_deleted/")


def test_what_a_doubted_run_stored_is_kept_by_every_keep_rule(tmp_path: Path) -> None:
    """Nobody knows its day."""
    aged = Aged(tmp_path, max_versions_per_file=1, keep_daily=1)
    for day, expect in ((0, 0), (-3650, 3), (1, 0), (2, 0), (3, 0)):
        aged.backup.write({"one.txt": f"{day}\n"})
        aged.on(day, "run", expect=expect)
    assert aged.stored("versions/one.txt/v2.bak")
    assert not aged.stored("versions/one.txt/v3.bak")
