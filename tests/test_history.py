"""`history`: every content and state of a path, and where it lies, also after a deletion or a rebuild."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edited import edited_state
from harness import Backup, Line, digest_of
from with_past import ODD, ODD_SHOWN

KEYS = {
    "type", "n", "kind", "size", "digest", "target", "mode", "mtime_ns", "uid", "gid", "from_run", "to_run",
    "from_time", "stored_at", "pinned", "pruned_by", "pruned_why", "lost", "current", "deleted",
}  # fmt: skip


def contents(backup: Backup, path: str) -> list[Line]:
    *lines, summary = backup.call("history", path, "--json").lines
    assert (summary["type"], summary["status"], summary["states"]) == ("summary", "ok", len(lines))
    assert all(line.keys() == KEYS and line["type"] == "content" for line in lines)
    return lines


def parts(lines: list[Line], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(line[name] for name in names) for line in lines]


def test_contents_and_their_states(past: Backup) -> None:
    """Oldest first; states that differ in metadata only share the number of a content; places are real."""
    lines = contents(past, "docs/one")
    assert parts(lines, "n", "from_run", "to_run", "mode", "current", "stored_at") == [
        (1, 1, 2, 0o644, False, "versions/one/v1.bak"),
        (2, 2, 3, 0o644, False, "one"),
        (2, 3, None, 0o640, True, "one"),
    ]
    for line in lines:
        content = past.read(line["stored_at"])
        assert (line["digest"], line["size"]) == (digest_of("blake3", content), len(content))
        assert (line["uid"], line["gid"]) == (os.geteuid(), os.getegid())
    started = [line["started"] for line in past.call("runs", "--json").lines[:-1]]
    assert [line["from_time"] for line in lines] == started[:3]
    links = contents(past, "link")
    assert parts(links, "kind", "target", "size", "digest", "stored_at") == [
        ("link", "one", None, None, "versions/link/v1.bak"),
        ("link", "two", None, None, "link"),
    ]


def test_deleted_and_come_back(past: Backup) -> None:
    """A deleted path says so, and from which run on; a comeback has the number that its content had."""
    assert parts(contents(past, "docs/new"), "to_run", "deleted", "current", "stored_at") == [
        (3, True, False, "_deleted/new")
    ]
    rows = past.call("history", "docs/new").stdout.splitlines()
    assert "deleted" in rows[2] and rows[2].split()[:2] == ["3", "-"]
    assert parts(contents(past, "docs/back"), "n", "from_run", "to_run", "deleted", "stored_at") == [
        (1, 1, 2, True, "back"),
        (1, 3, None, False, "back"),
    ]


def test_another_kind(past: Backup) -> None:
    """A folder has no content number, and only a current one has a place."""
    assert parts(contents(past, "docs/folder/a"), "n", "kind", "size", "stored_at", "deleted") == [
        (1, "file", 2, "versions/folder/a/v1.bak", False),
        (None, "folder", None, "folder/a", False),
    ]


def test_names_are_escaped(past: Backup) -> None:
    """A name is one line and no markup, whatever it holds."""
    told = past.call("history", ODD).stdout
    assert ODD_SHOWN in told and len(told.splitlines()) == 3


def test_an_unknown_path(past: Backup) -> None:
    """A path that never was is bad usage, for people and for programs."""
    assert "never was" in past.call("history", "docs/none", expect=2).stderr
    error, summary = past.call("history", "docs/none", "--json", expect=2).lines
    assert error["type"] == "error" and error["path"] is None and "never was" in error["cause"]
    assert summary == {"type": "summary", "status": "failed"}
    past.call("history", ".", expect=2)


def test_pruned_lost_pinned_and_unknown_to_the_history(tmp_path: Path) -> None:
    """What retention took says by which run; lost and pinned versions say so; versions that no history knows,
    as after a rebuild, are listed first, without runs."""
    backup = Backup(tmp_path, settings={"retention.max_versions_per_file": 2})
    for number in range(4):
        backup.write({"a": f"{number}\n" * (number + 1)})
        backup.run()
    lines = contents(backup, "docs/a")
    assert parts(lines, "n", "pruned_by", "stored_at", "lost") == [
        (1, 4, None, False),
        (2, None, "versions/a/v2.bak", False),
        (3, None, "versions/a/v3.bak", False),
        (4, None, "a", False),
    ]
    assert "dropped by run 4" in backup.call("history", "a").stdout
    assert backup.call("status", "--json").lines[0]["space"]["versions"] == {"files": 2, "bytes": 10}
    with edited_state(backup) as state:
        state.execute("DELETE FROM history WHERE number < 3")
        state.execute("UPDATE versions SET pinned = 1 WHERE number = 2")
        state.execute("UPDATE versions SET status = 2, ended_run = 4 WHERE number = 3")
    lines = contents(backup, "docs/a")
    assert parts(lines, "n", "from_run", "mode", "pinned", "lost") == [
        (1, None, None, False, False),
        (2, None, None, True, False),
        (3, 3, 0o644, False, True),
        (4, 4, 0o644, False, False),
    ]
    told = backup.call("history", "a").stdout
    assert "(pinned)" in told and "lost" in told
