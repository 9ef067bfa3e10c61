"""Each decision that a run can take, as a scenario through the real command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from harness import NOTHING_DONE, Backup, Result, assert_log
from trees import EPOCH_NS, File, Link


def counts(result: Result) -> dict[str, int]:
    """The figures of a `--json` run that aren't nothing."""
    return {key: result.summary[key] for key in NOTHING_DONE if result.summary[key]}


@pytest.mark.parametrize(("old", "new"), [("a.txt", "b.txt"), ("b.txt", "a.txt")])
def test_rename_ends_with_the_new_path_live(backup: Backup, old: str, new: str) -> None:
    """A rename ends with the new path at its live place and the old one in `_deleted/`, never with a lone
    copy under `_duplicates/`; it counts as duplicate, deletion and promotion."""
    backup.write({old: "the content\n", "other.txt": "other\n"})
    backup.run()
    (backup.source / old).rename(backup.source / new)
    result = backup.run("--json")
    assert counts(result) == {"duplicate": 1, "delete": 1, "promote": 1}
    assert_log(
        result,
        [
            f"PLANNER → DUPLICATE: docs/{new} (same content as {old})",
            f"DUPLICATE: docs/{new} → _duplicates/{new}",
            f"PLANNER → DELETE: docs/{old} (…)",
            f"ARCHIVE DELETE: {old} → _deleted/{old}",
            f"STATE REMOVE: docs/{old}",
            f"PLANNER → PROMOTE: docs/{new} (…)",
            f"PROMOTE: docs/{new} → {new}",
            "Run complete",
        ],
    )
    assert backup.names() == [f"_deleted/{old}", new, "other.txt"]
    assert backup.entry(f"docs/{new}").get("original") is None
    backup.assert_all_well()


def test_first_duplicate_takes_over(backup: Backup) -> None:
    """When an original's path is gone, the first duplicate in scan order moves to its live place and the
    others have it as their original."""
    backup.write({"a": "same\n", "d/z": "same\n", "d-b": "same\n", "e": "same\n"})
    backup.run()
    assert backup.names() == ["_duplicates/d-b", "_duplicates/d/z", "_duplicates/e", "a"]
    (backup.source / "a").unlink()
    result = backup.run("--json")
    assert counts(result) == {"delete": 1, "promote": 1}
    assert result.decisions() == ["DELETE: docs/a", "PROMOTE: docs/d/z"]
    assert backup.names() == ["_deleted/a", "_duplicates/d-b", "_duplicates/e", "d/z"]
    entries = backup.entries()
    assert entries["docs/d-b"]["original"] == entries["docs/e"]["original"] == "docs/d/z"
    backup.assert_all_well()


def test_an_original_keeps_its_role(backup: Backup) -> None:
    """A new, smaller path doesn't take the role of an original over; an original that is modified leaves
    its old duplicates where they are."""
    backup.write({"m": "same\n", "n": "same\n"})
    backup.run()
    backup.write({"a": "same\n", "m": "modified\n"})
    result = backup.run()
    assert result.decisions() == ["DUPLICATE: docs/a", "MODIFIED: docs/m"]
    assert backup.names() == ["_duplicates/a", "_duplicates/n", "m", "versions/m/v1.bak"]
    backup.assert_right()


def test_content_live_elsewhere_needs_no_promotion(backup: Backup) -> None:
    """Where the content of an orphaned duplicate is live at another path, that path becomes its original
    and nothing moves."""
    backup.write({"a": "same\n", "b": "same\n"})
    backup.run()
    backup.write({"a": "modified\n"})
    backup.run()
    backup.write({"c": "same\n"})
    assert backup.run().decisions() == ["BACKUP: docs/c"]
    (backup.source / "a").unlink()
    assert backup.run().decisions() == ["DELETE: docs/a"]
    assert backup.names() == ["_deleted/a", "_duplicates/b", "c", "versions/a/v1.bak"]
    assert backup.entry("docs/b")["original"] == "docs/c"
    backup.assert_all_well()


def test_modified_original_that_is_deleted_leaves_its_duplicate_live(backup: Backup) -> None:
    """A duplicate is promoted when its original path is no longer there and its content is live nowhere,
    also when that path had another content by then."""
    backup.write({"a": "same\n", "b": "same\n"})
    backup.run()
    backup.write({"a": "modified\n"})
    backup.run()
    (backup.source / "a").unlink()
    assert backup.run().decisions() == ["DELETE: docs/a", "PROMOTE: docs/b"]
    assert backup.names() == ["_deleted/a", "b", "versions/a/v1.bak"]
    backup.assert_right()


def test_modified_duplicate_becomes_live_and_back(backup: Backup) -> None:
    """A known path with other content: the old content becomes the next version, the new one takes the live
    place, or `_duplicates/` where it is live at another path."""
    backup.write({"a": "same\n", "b": "same\n"})
    backup.run()
    backup.write({"b": "own\n"})
    assert_log(
        backup.run(),
        [
            "PLANNER → MODIFIED: docs/b (content differs)",
            "ARCHIVE: _duplicates/b → versions/b/v1.bak",
            "UPDATED: docs/b → b",
            "Run complete",
        ],
    )
    assert backup.names() == ["a", "b", "versions/b/v1.bak"]
    backup.write({"b": "same\n"})
    result = backup.run()
    assert result.log[1:] == [
        "ARCHIVE: b → versions/b/v2.bak",
        "UPDATED: docs/b → _duplicates/b",
        "Run complete",
    ]
    assert backup.names() == ["_duplicates/b", "a", "versions/b/v1.bak", "versions/b/v2.bak"]
    assert backup.entry("docs/b")["original"] == "docs/a"
    backup.assert_right()


def test_two_files_swap_their_contents(backup: Backup) -> None:
    """Nothing is lost and the latest content is there when two known paths exchange their contents."""
    backup.write({"a": "alpha\n", "b": "beta\n"})
    backup.run()
    backup.write({"a": "beta\n", "b": "alpha\n"})
    result = backup.run()
    assert result.decisions() == ["MODIFIED: docs/a", "MODIFIED: docs/b"]
    versions = {name: backup.read(name) for name in backup.names() if name.startswith("versions/")}
    assert versions == {"versions/a/v1.bak": b"alpha\n", "versions/b/v1.bak": b"beta\n"}
    backup.assert_right()


def test_came_back_with_the_same_content(backup: Backup) -> None:
    """A deleted path that comes back with the same content gets its `_deleted/` copy back: BACKUP, reason
    `came back`, no version."""
    stays = File(b"here again\n", 0o644, EPOCH_NS)
    backup.write({"a": stays, "keep": "keep\n"})
    backup.run()
    (backup.source / "a").unlink()
    backup.run()
    assert backup.names() == ["_deleted/a", "keep"]
    backup.write({"a": stays})
    assert_log(backup.run(), ["PLANNER → BACKUP: docs/a (came back)", "BACKUP: docs/a → a", "Run complete"])
    assert backup.names() == ["a", "keep"]
    backup.assert_all_well()


def test_came_back_with_other_content(backup: Backup) -> None:
    """When a deleted path comes back with other content, its `_deleted/` copy becomes the next version;
    no number is used twice."""
    backup.write({"a": "first\n", "keep": "keep\n"})
    backup.run()
    backup.write({"a": "second\n"})
    backup.run()
    (backup.source / "a").unlink()
    backup.run()
    assert backup.names() == ["_deleted/a", "keep", "versions/a/v1.bak"]
    backup.write({"a": "third\n"})
    backup.run()
    assert backup.names() == ["a", "keep", "versions/a/v1.bak", "versions/a/v2.bak"]
    assert backup.read("versions/a/v1.bak") == b"first\n"
    assert backup.read("versions/a/v2.bak") == b"second\n"
    backup.assert_all_well()


@pytest.mark.slow
def test_came_back_as_a_duplicate(backup: Backup) -> None:
    """A deleted path whose content is live at another path by the time it comes back is stored once more
    under one of its names, and nothing is left in `_deleted/` beside it."""
    backup.write({"a": "same\n", "keep": "keep\n"})
    backup.run()
    (backup.source / "a").rename(backup.source / "b")
    backup.run()
    assert backup.names() == ["_deleted/a", "b", "keep"]
    backup.write({"a": "same\n"})
    backup.run()
    assert backup.entry("docs/a")["stored_at"] in ("a", "_duplicates/a")
    assert len(backup.names()) == 3 and "_deleted/a" not in backup.names()
    backup.assert_right()


def test_metadata_alone_makes_no_version(backup: Backup) -> None:
    """Same content, other mode or mtime: the state and the stored file take the new metadata, no version."""
    backup.write({"a": "same\n", "b": "same\n", "c": File(b"c\n"), "l": Link("a")})
    backup.run()
    (backup.source / "b").chmod(0o600)
    os.utime(backup.source / "c", ns=(EPOCH_NS, EPOCH_NS))
    os.utime(backup.source / "l", ns=(EPOCH_NS, EPOCH_NS), follow_symlinks=False)
    result = backup.run("--json")
    assert counts(result) == {"metadata": 3}
    assert_log(
        result,
        [
            "PLANNER → METADATA: docs/b (…)",
            "METADATA: docs/b → _duplicates/b",
            "PLANNER → METADATA: docs/c (…)",
            "METADATA: docs/c → c",
            "PLANNER → METADATA: docs/l (…)",
            "METADATA: docs/l → l",
            "Run complete",
        ],
    )
    assert backup.names() == ["_duplicates/b", "a", "c", "l"]
    backup.assert_all_well()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owner_follows_the_source(backup: Backup) -> None:
    """Another owner is a METADATA action, and as root the stored file gets it."""
    backup.write({"a": "a\n"})
    backup.run()
    os.chown(backup.source / "a", 1234, 2345)
    assert backup.run().decisions() == ["METADATA: docs/a"]
    stored = (backup.root / "a").stat()
    assert (stored.st_uid, stored.st_gid) == (1234, 2345)
    backup.assert_right()


def test_new_content_and_metadata_at_once(backup: Backup) -> None:
    """Other content is MODIFIED whatever else changed; the version keeps the old content's metadata."""
    backup.write({"a": File(b"old\n", 0o600, EPOCH_NS)})
    backup.run()
    backup.write({"a": File(b"new\n", 0o640, EPOCH_NS + 5)})
    assert backup.run().decisions() == ["MODIFIED: docs/a"]
    seen = backup.tree()
    assert (seen["a"].mode, seen["a"].mtime_ns) == (0o640, EPOCH_NS + 5)
    assert (seen["versions/a/v1.bak"].mode, seen["versions/a/v1.bak"].mtime_ns) == (0o600, EPOCH_NS)
    backup.assert_right()


def test_content_is_compared_not_time(backup: Backup) -> None:
    """Change is found by content hash: other bytes under the same size and mtime are a change."""
    backup.write({"a": File(b"old\n", mtime_ns=EPOCH_NS)})
    backup.run()
    backup.write({"a": File(b"new\n", mtime_ns=EPOCH_NS)})
    assert backup.run().decisions() == ["MODIFIED: docs/a"]
    assert backup.read("a") == b"new\n"


def test_trusting_stat_finds_what_stat_tells(tmp_path: Path) -> None:
    """With `detect.trust = "stat"` only what ctime, mtime, size or inode says may have changed is read:
    ordinary changes are found all the same, also where somebody put the old mtime back."""
    backup = Backup(tmp_path, settings={"detect.trust": "stat"})
    backup.write({"a": File(b"old\n", mtime_ns=EPOCH_NS), "b": "b\n", "c": "c\n", "d": "d\n"})
    backup.run()
    backup.write({"a": File(b"new\n", mtime_ns=EPOCH_NS), "b": "longer\n", "e": "c\n"})
    (backup.source / "c").unlink()
    result = backup.run()
    assert result.decisions() == [
        "MODIFIED: docs/a",
        "MODIFIED: docs/b",
        "DUPLICATE: docs/e",
        "DELETE: docs/c",
        "PROMOTE: docs/e",
    ]
    backup.assert_all_well()


def test_empty_files_are_never_duplicates(backup: Backup) -> None:
    """Empty files and links are never duplicates, nor are files below `duplicates.min_size`."""
    backup.write({"a": "", "b": "", "l1": Link("x"), "l2": Link("x"), "s1": "small", "s2": "small"})
    backup.write({"t1": "t" * 10, "t2": "t" * 10})
    backup.run("--set", "duplicates.min_size=10")
    assert backup.names() == ["_duplicates/t2", "a", "b", "l1", "l2", "s1", "s2", "t1"]
    assert not any("original" in line for path, line in backup.entries().items() if path != "docs/t2")
    backup.assert_right()


@pytest.mark.parametrize("algorithm", [pytest.param("sha256", marks=pytest.mark.slow), "xxh3_128"])
def test_other_hash_algorithms(tmp_path: Path, algorithm: str) -> None:
    """Each hash algorithm finds changes and duplicates, and the digest names it."""
    backup = Backup(tmp_path, settings={"hash_algorithm": algorithm})
    backup.write({"a": "same\n", "b": "same\n", "c": "c\n"})
    backup.run()
    backup.write({"c": "d\n"})
    assert backup.run().decisions() == ["MODIFIED: docs/c"]
    assert backup.names() == ["_duplicates/b", "a", "c", "versions/c/v1.bak"]
    backup.assert_right()
