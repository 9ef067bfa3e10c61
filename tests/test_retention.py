"""Which versions stay: retention, and that no version number is ever used twice."""

from __future__ import annotations

from pathlib import Path

from harness import Backup, assert_log


def with_versions(backup: Backup, versions: int) -> None:
    """Give docs/a and docs/b that many versions each."""
    for number in range(versions + 1):
        backup.write({"a": f"a{number}\n", "b": f"b{number}\n"})
        backup.run()


def version_names(backup: Backup) -> list[str]:
    """Versions only: a marker beside them is no version."""
    return [name for name in backup.names() if name.startswith("versions/") and name.endswith(".bak")]


def test_a_lower_limit_takes_the_oldest(tmp_path: Path) -> None:
    """Retention is decided from the state: with a lower limit the next run takes the oldest versions,
    lowest number first, though no source file changed."""
    backup = Backup(tmp_path)
    with_versions(backup, 3)
    result = backup.run("--set", "retention.max_versions_per_file=1", "--json")
    assert result.summary["retention"] == 4
    operations = [line for line in result.log if line.startswith("RETENTION delete")]
    assert operations == [
        "RETENTION delete: versions/a/v1.bak",
        "RETENTION delete: versions/a/v2.bak",
        "RETENTION delete: versions/b/v1.bak",
        "RETENTION delete: versions/b/v2.bak",
    ]
    assert version_names(backup) == ["versions/a/v3.bak", "versions/b/v3.bak"]
    backup.configure(retention__max_versions_per_file=1)
    backup.assert_all_well()


def test_a_limit_of_nothing_keeps_the_numbers(tmp_path: Path) -> None:
    """With a limit of 0 no version stays, and still no number is used twice, also after the path was
    deleted and came back."""
    backup = Backup(tmp_path, settings={"retention.max_versions_per_file": 0})
    backup.write({"a": "a0\n", "keep": "keep\n"})
    backup.run()
    backup.write({"a": "a1\n"})
    assert_log(
        backup.run(),
        [
            "PLANNER → MODIFIED: docs/a (content differs)",
            "ARCHIVE: a → versions/a/v1.bak",
            "UPDATED: docs/a → a",
            "PLANNER → RETENTION: docs/a (…)",
            "RETENTION delete: versions/a/v1.bak",
            "Run complete",
        ],
    )
    assert version_names(backup) == []
    (backup.source / "a").unlink()
    backup.run()
    backup.write({"a": "a2\n"})
    backup.run()
    backup.configure(retention__max_versions_per_file=5)
    backup.write({"a": "a3\n"})
    backup.run()
    assert version_names(backup) == ["versions/a/v3.bak"]
    assert backup.read("versions/a/v3.bak") == b"a2\n"
    backup.assert_right()


def test_a_higher_limit_takes_nothing(tmp_path: Path) -> None:
    """Nothing is lost until a retention rule names it."""
    backup = Backup(tmp_path, settings={"retention.max_versions_per_file": 2})
    with_versions(backup, 2)
    result = backup.run("--set", "retention.max_versions_per_file=9")
    assert result.log == ["Run complete"]
    assert len(version_names(backup)) == 4


def test_deleted_paths_keep_their_versions(tmp_path: Path) -> None:
    """The versions of a deleted path stay, and the limit holds for them as for any other."""
    backup = Backup(tmp_path)
    with_versions(backup, 2)
    (backup.source / "a").unlink()
    backup.run()
    expected = [f"versions/{name}/v{number}.bak" for name in "ab" for number in (1, 2)]
    assert version_names(backup) == expected
    backup.configure(retention__max_versions_per_file=1)
    backup.run()
    assert version_names(backup) == ["versions/a/v2.bak", "versions/b/v2.bak"]
    assert backup.read("_deleted/a") == b"a2\n"
    backup.assert_right()
