"""`duplicates`: groups of equal content, what costs most first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from harness import Backup, digest_of, exact
from hypothesis import given
from hypothesis import strategies as st
from trees import Link, remove

from pipeline.store.scratch import Groups

ODD = os.fsdecode(b"\xff\x1b[31m")


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Backup:
    backup = Backup(tmp_path_factory.mktemp("duplicates"))
    backup.write(
        {"a": "small\n", "big1": "b" * 5000, "big2": "b" * 5000, "c": {ODD: "small\n", "d": "small\n"}}
    )
    backup.write({"empty1": "", "empty2": "", "link": Link("a"), "lone": "alone\n", "same size": "other\n"})
    backup.write({"e1": "equal\n", "e2": "equal\n", "e3": "equal\n", "f1": "gone\n", "f2": "gone\n"})
    backup.run()
    remove(backup.source / "f2")
    (backup.source / "c" / "d").chmod(0o600)
    backup.run()
    return backup


def test_groups(backup: Backup) -> None:
    """Files in the source of equal content, empty ones and deleted ones not; by cost, then by first path."""
    *groups, summary = backup.call("duplicates", "--json").lines
    assert [(g["cost_bytes"], g["size"], g["count"], g["paths"][0]) for g in groups] == [
        (5000, 5000, 2, "docs/big1"),
        (12, 6, 3, "docs/a"),
        (12, 6, 3, "docs/e1"),
    ]
    assert groups[0].keys() == {"type", "digest", "size", "count", "cost_bytes", "paths"}
    assert groups[0]["digest"] == digest_of("blake3", b"b" * 5000)
    assert summary == {"type": "summary", "status": "ok", "groups": 3, "files": 8, "cost_bytes": 5024}


def test_names_that_are_not_text(backup: Backup) -> None:
    """They are lossy in `paths`, and exact at the same place of `paths_b64`, which only such groups have."""
    group = backup.call("duplicates", "--json").lines[1]
    assert [encoded is not None for encoded in group["paths_b64"]] == [False, False, True]
    lines = [
        {"path": path, **({"path_b64": encoded} if encoded else {})}
        for path, encoded in zip(group["paths"], group["paths_b64"], strict=True)
    ]
    assert [exact(line, "path") for line in lines] == ["docs/a", "docs/c/d", f"docs/c/{ODD}"]


def test_for_people(backup: Backup) -> None:
    """The paths of a group stand under each other, its figures once; names are escaped."""
    titles, *rows, last = backup.call("duplicates").stdout.splitlines()
    assert titles.split() == ["costs", "size", "files", "path"]
    assert [row.split() for row in rows] == [
        ["5.00", "kB", "5.00", "kB", "2", "docs/big1"],
        ["docs/big2"],
        ["12", "B", "6", "B", "3", "docs/a"],
        ["docs/c/d"],
        ["docs/c/\\xff\\x1b[31m"],
        ["12", "B", "6", "B", "3", "docs/e1"],
        ["docs/e2"],
        ["docs/e3"],
    ]
    assert last == "8 files in 3 groups of equal content; the copies take 5.02 kB"


def test_none(tmp_path: Path) -> None:
    """Without any, that is said, and JSON has its summary."""
    lone = Backup(tmp_path)
    lone.write({"a": "a\n"})
    lone.run()
    assert lone.call("duplicates").stdout == "No two files in the source have the same content.\n"
    assert [line["type"] for line in lone.call("duplicates", "--json").lines] == ["summary"]


CONTENTS = st.tuples(st.sampled_from([b"d1", b"d2", b"d3"]), st.integers(1, 3))


@given(st.dictionaries(st.binary(max_size=2), CONTENTS))
def test_grouping_is_the_plain_one(files: dict[bytes, tuple[bytes, int]]) -> None:
    """As with a dictionary in memory."""
    groups = Groups()
    for path in sorted(files):
        groups.add(*files[path], path)
    groups.group()
    plain: dict[tuple[bytes, int], list[bytes]] = {}
    for path in sorted(files):
        plain.setdefault(files[path], []).append(path)
    shared = [(digest, size, paths) for (digest, size), paths in plain.items() if len(paths) > 1]
    shared.sort(key=lambda group: (-group[1] * (len(group[2]) - 1), group[2][0]))
    assert [(g.digest, g.size, list(groups.paths(g))) for g in groups.groups()] == shared
    groups.close()
