"""`ls`: what a run held, in scan order, as `export` has it; names are safe; lists of any length stream."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from harness import REPOSITORY, Backup, command, environment, exact
from with_past import ODD, ODD_SHOWN

KEYS = {"type", "path", "kind", "size", "digest", "mode", "mtime_ns", "target", "stored_at"}


def paths(backup: Backup, *arguments: str) -> list[str]:
    *lines, summary = backup.call("ls", *arguments, "--json").lines
    assert summary["entries"] == len(lines)
    return [exact(line, "path") for line in lines]


def test_now_is_what_export_says(past: Backup) -> None:
    """The same paths in the same order with the same fields; nothing that was deleted."""
    *lines, summary = past.call("ls", "--json").lines
    exported = [line for line in past.export() if not line.get("deleted")]
    assert len(lines) == len(exported) == summary["entries"]
    for line, known in zip(lines, exported, strict=True):
        assert line.keys() - {"path_b64", "stored_at_b64"} == KEYS and line["type"] == "entry"
        kept = {name: known.get(name) for name in line.keys() - {"type"}}
        assert {name: line[name] for name in kept} == kept
    assert summary["files"] + summary["links"] + summary["folders"] == summary["entries"]
    assert summary["bytes"] == sum(line["size"] or 0 for line in lines)


def test_a_part_of_a_run(past: Backup) -> None:
    """`--at` takes a run or a time; a folder comes with what is below it, a file alone, without names that
    begin alike."""
    assert paths(past, "docs/folder", "--at", "1") == ["docs/folder", "docs/folder/a", "docs/folder/b"]
    assert paths(past, "folder", "--at", "3") == [
        "docs/folder", "docs/folder/a", "docs/folder/a/inside", "docs/folder/b", "docs/folder/moved",
    ]  # fmt: skip
    assert paths(past, "one", "--at", "1") == ["docs/one"]
    ended = past.call("runs", "--json").lines[1]["ended"]
    assert paths(past, "--at", ended) == paths(past, "--at", "2") != paths(past)
    started = past.call("runs", "--json").lines[1]["started"]
    assert paths(past, "--at", started) == paths(past, "--at", "1")
    whole_second = past.call("runs", "--json").lines[0]["ended"][:19] + "+00:00"
    assert paths(past, "--at", whole_second), "as people see the end of a run, cut to seconds"
    (old, _) = past.call("ls", "docs/one", "--at", "1", "--json").lines
    assert past.read(old["stored_at"]) == b"one\n"


def test_what_was_not_there(past: Backup) -> None:
    """A known path that a run didn't hold is said to be so; it isn't an empty list."""
    assert "no longer in the source" in past.call("ls", "docs/new", expect=2).stderr
    assert "at the end of run 1" in past.call("ls", "docs/new", "--at", "1", expect=2).stderr
    error, summary = past.call("ls", "--at", "99", "--json", expect=2).lines
    assert (error["type"], summary) == ("error", {"type": "summary", "status": "failed"})


def test_for_people(past: Backup) -> None:
    """Modes as `ls -l` has them, aligned columns, targets, escaped names, one line an entry."""
    titles, *rows, last = past.call("ls").stdout.splitlines()
    assert len(rows) == len(paths(past)) and last.startswith(f"{len(rows)} paths, ")
    column = titles.index("path")
    named = {row[column:]: row for row in rows}
    assert ODD_SHOWN in named and "docs/link -> two" in named
    for name in ("docs/folder", "docs/one"):
        mode = stat.filemode((past.source.parent / name).lstat().st_mode)
        assert named[name].startswith(mode)
    assert paths(past, ODD) == [f"docs/{ODD}"]


def test_a_reader_that_goes_away(past: Backup) -> None:
    """`| head` ends the list without a word, with or without `--json`; nothing is written in the backup."""
    before = sorted(os.listdir(past.root / ".pipeline"))
    for json in ([], ["--json"]):
        words = [*command("ls", "--config", str(past.config)), *json]
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            words, cwd=REPOSITORY, env=environment(), stdout=writing, stderr=subprocess.PIPE, check=False
        )
        os.close(writing)
        assert (done.stderr, done.returncode) == (b"", 1)
    assert sorted(os.listdir(past.root / ".pipeline")) == before


def test_without_a_backup(tmp_path: Path) -> None:
    """Where there is no state, that is an error with exit 1, in JSON too, and nothing is made."""
    backup = Backup(tmp_path)
    for name in ("ls", "runs", "status", "duplicates"):
        error, summary = backup.call(name, "--json", expect=1).lines
        assert (error["type"], summary) == ("error", {"type": "summary", "status": "failed"})
    assert "rebuild" in backup.call("ls", expect=1).stderr
    assert not backup.root.exists()
