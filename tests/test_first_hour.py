"""What a new user sees in the first hour: the tree, the log and the state after each step, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Backup, Result, assert_log

CHANGES = 12
LIMIT = 10


@pytest.fixture
def first_hour(tmp_path: Path) -> Backup:
    backup = Backup(tmp_path, settings={"log.skips": True})
    backup.write({"one.txt": "first\n", "one_copy.txt": "first\n", "two.txt": "two\n"})
    return backup


def change_and_add(backup: Backup) -> Result:
    backup.write({"one.txt": "second\n", "three.txt": "three\n"})
    return backup.run()


def change_often(backup: Backup) -> list[Result]:
    """Twelve changes of one.txt, a run after each."""
    results = []
    for number in range(CHANGES):
        backup.write({"one.txt": f"change {number}\n"})
        results.append(backup.run())
    return results


def content_after(version: int) -> bytes:
    """What one.txt held when it became that version."""
    return {1: b"first\n", 2: b"second\n"}.get(version, f"change {version - 3}\n".encode())


def check_first_run(backup: Backup) -> None:
    assert_log(
        backup.run(),
        [
            "PLANNER → BACKUP: docs/one.txt (new path)",
            "BACKUP: docs/one.txt → one.txt",
            "PLANNER → DUPLICATE: docs/one_copy.txt (same content as one.txt)",
            "DUPLICATE: docs/one_copy.txt → _duplicates/one_copy.txt",
            "PLANNER → BACKUP: docs/two.txt (new path)",
            "BACKUP: docs/two.txt → two.txt",
            "Run complete",
        ],
    )
    assert backup.names() == ["_duplicates/one_copy.txt", "one.txt", "two.txt"]
    entries = backup.entries()
    assert entries["docs/one.txt"]["stored_at"] == "one.txt"
    assert entries["docs/one_copy.txt"]["stored_at"] == "_duplicates/one_copy.txt"
    assert entries["docs/one_copy.txt"]["original"] == "docs/one.txt"
    assert not any(line.get("versions") or line.get("deleted") for line in entries.values())


def check_second_run(backup: Backup) -> None:
    assert_log(
        change_and_add(backup),
        [
            "PLANNER → MODIFIED: docs/one.txt (content differs)",
            "ARCHIVE: one.txt → versions/one.txt/v1.bak",
            "UPDATED: docs/one.txt → one.txt",
            "SKIP: docs/one_copy.txt",
            "PLANNER → BACKUP: docs/three.txt (new path)",
            "BACKUP: docs/three.txt → three.txt",
            "SKIP: docs/two.txt",
            "Run complete",
        ],
    )
    assert backup.names() == [
        "_duplicates/one_copy.txt", "one.txt", "three.txt", "two.txt", "versions/one.txt/v1.bak",
    ]  # fmt: skip
    entries = backup.entries()
    assert [version["n"] for version in entries["docs/one.txt"]["versions"]] == [1]
    assert entries["docs/one_copy.txt"]["original"] == "docs/one.txt"


def check_many_changes(backup: Backup) -> None:
    for number, result in enumerate(change_often(backup)):
        made = number + 2
        gone = made - LIMIT
        retention = [
            "PLANNER → RETENTION: docs/one.txt (…)",
            f"RETENTION delete: versions/one.txt/v{gone}.bak",
        ]
        expected = [
            "PLANNER → MODIFIED: docs/one.txt (content differs)",
            f"ARCHIVE: one.txt → versions/one.txt/v{made}.bak",
            "UPDATED: docs/one.txt → one.txt",
            "SKIP: docs/one_copy.txt",
            "SKIP: docs/three.txt",
            "SKIP: docs/two.txt",
            *(retention if gone > 0 else []),
            "Run complete",
        ]
        assert_log(result, expected)
    assert backup.names() == sorted(
        ["_duplicates/one_copy.txt", "one.txt", "three.txt", "two.txt"]
        + [f"versions/one.txt/v{number}.bak" for number in range(4, 14)]
    )
    for number in range(4, 14):
        assert backup.read(f"versions/one.txt/v{number}.bak") == content_after(number)
    versions = backup.entry("docs/one.txt")["versions"]
    assert [version["n"] for version in versions] == list(range(4, 14))
    assert all(version["stored_at"] == f"versions/one.txt/v{version['n']}.bak" for version in versions)


def check_deletion(backup: Backup) -> None:
    (backup.source / "two.txt").unlink()
    assert_log(
        backup.run(),
        [
            "SKIP: docs/one.txt",
            "SKIP: docs/one_copy.txt",
            "SKIP: docs/three.txt",
            "PLANNER → DELETE: docs/two.txt (…)",
            "ARCHIVE DELETE: two.txt → _deleted/two.txt",
            "STATE REMOVE: docs/two.txt",
            "Run complete",
        ],
    )
    assert "two.txt" not in backup.names() and backup.read("_deleted/two.txt") == b"two\n"
    gone = backup.entry("docs/two.txt")
    assert gone["deleted"] is True and gone["stored_at"] == "_deleted/two.txt"


def test_the_first_hour_of_a_user(first_hour: Backup) -> None:
    """Decisions, retention, log and export are what the rules say after each step of a small history:
    duplicates in `_duplicates/`, v4 to v13 left of 13 versions, a deleted file in `_deleted/`."""
    first_hour.is_warm = False
    check_first_run(first_hour)
    check_second_run(first_hour)
    check_many_changes(first_hour)
    check_deletion(first_hour)
    first_hour.assert_all_well()
