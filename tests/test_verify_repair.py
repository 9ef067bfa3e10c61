"""`verify --repair`: what is rotten or missing is stored again from the source, if that has the very content
still; everything else is left as it is, and it is said why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from harness import Backup
from restored import mode_of, of_type
from test_verify import copied, findings, flip, made, verify
from trees import EPOCH_NS, File, remove, walk

__all__ = ["copied", "made"]


def errors_of(backup: Backup, *arguments: str) -> dict[str, str]:
    """What is said of each path that could not be repaired."""
    result = verify(backup, "--repair", *arguments, expect=3)
    return {
        path: line["cause"] for path, line in of_type(result.lines, "error").items() if "what" not in line
    }


def test_rotten_and_missing_files_are_stored_again(copied: Backup) -> None:
    """Live files and duplicates, rotten or missing: repaired, told by path and place, with the metadata that
    they had. Then verify is clean, a run finds nothing to do, and the state says what it said."""
    exported = copied.export_bytes()
    for stored_at in ("live", "_duplicates/same"):
        flip(copied.root / stored_at)
    (copied.root / "large").unlink()
    remove(copied.root / "folder" / "deep")
    before = {name: (copied.source / name).lstat().st_mtime_ns for name in ("live", "same", "large")}
    result = verify(copied, "--repair", expect=3)
    repaired = {line["path"]: line["stored_at"] for line in result.lines if line.get("action") == "REPAIR"}
    assert repaired == {
        "docs/folder/deep/x": "folder/deep/x", "docs/large": "large", "docs/live": "live",
        "docs/same": "_duplicates/same",
    }  # fmt: skip
    assert result.summary["repaired"] == 4
    found = findings(verify(copied))
    assert found == {}
    for name, at in (("live", "live"), ("same", "_duplicates/same"), ("large", "large")):
        assert (copied.root / at).stat().st_mtime_ns == before[name]
        assert mode_of(copied.root / at) == mode_of(copied.source / name)
    copied.assert_all_well()
    assert copied.export_bytes() == exported


def test_the_rotten_file_is_kept_aside(copied: Backup) -> None:
    """What stood there isn't thrown away: it is in the quarantine."""
    flip(copied.root / "live")
    rotten = copied.read("live")
    verify(copied, "--repair", expect=3)
    quarantine = copied.root / ".pipeline" / "quarantine"
    kept = [Path(e.path).read_bytes() for _, e in walk(quarantine) if e.is_file(follow_symlinks=False)]
    assert rotten in kept


def test_only_the_very_content_is_stored(copied: Backup) -> None:
    """A source that has changed, in size or not, is no longer there, or is another kind by now can't help;
    that is said. Older contents and deleted files can't be repaired at all; nothing of them is touched."""
    for stored_at in ("live", "large", "old", "copy", "_deleted/gone", "versions/old/v1.bak"):
        flip(copied.root / stored_at)
    (copied.source / "live").write_text("evil\n")
    (copied.source / "large").write_text("shorter\n")
    remove(copied.source / "old")
    remove(copied.source / "copy")
    (copied.source / "copy").symlink_to("same")
    before = {name: copied.read(name) for name in copied.names() if not (copied.root / name).is_symlink()}
    causes = errors_of(copied)
    assert causes.keys() == {"docs/live", "docs/large", "docs/old", "docs/copy"}
    assert all("can't be repaired" in cause for cause in causes.values())
    assert "no longer has that content" in causes["docs/live"]
    assert {name: copied.read(name) for name in before} == before
    assert len(findings(verify(copied, expect=3))) == 6
    copied.run(expect=None)
    assert ("rotten", "versions/old/v1.bak") in findings(verify(copied, expect=3))


def test_without_a_source_to_read(copied: Backup) -> None:
    """A source that is away, or is no longer configured: nothing is touched, each file is named."""
    flip(copied.root / "live")
    copied.source.rename(copied.base / "away")
    assert errors_of(copied).keys() == {"docs/live"}
    (copied.base / "away").rename(copied.source)
    (copied.base / "other").mkdir()
    copied.sources = ["other"]
    copied.write_config()
    assert errors_of(copied).keys() == {"docs/live"}


def test_nothing_to_repair(copied: Backup) -> None:
    """Where all is well, --repair takes no lock and writes nothing."""
    before = copied.tree()
    result = verify(copied, "--repair")
    assert result.summary["repaired"] == 0
    assert copied.tree() == before


def test_a_source_that_is_a_trap(copied: Backup, tmp_path: Path) -> None:
    """A link in the place of the source's file or folder is never followed, wherever it leads."""
    flip(copied.root / "live")
    flip(copied.root / "folder/deep/x")
    for name in ("live", "folder/deep"):
        target = tmp_path / name.replace("/", "-")
        (copied.source / name).rename(target)
        (copied.source / name).symlink_to(target)
    assert errors_of(copied).keys() == {"docs/live", "docs/folder/deep/x"}
    assert len(findings(verify(copied, expect=3))) == 2


@pytest.mark.parametrize("algorithm", ["sha256", "xxh3_128"])
def test_a_digest_that_proves_nothing(tmp_path: Path, algorithm: str) -> None:
    """With xxh3_128 nothing is repaired by digest alone, and no bytes are left to compare with: refused,
    and it is said why. With a digest that proves it, it is repaired."""
    backup = Backup(tmp_path / "one", settings={"hash_algorithm": algorithm})
    backup.write({"a": File(b"a\n", mtime_ns=EPOCH_NS), "b": "b\n"})
    backup.run()
    flip(backup.root / "a")
    if algorithm == "sha256":
        assert verify(backup, "--repair", expect=3).summary["repaired"] == 1
        assert findings(verify(backup)) == {}
    else:
        assert "xxh3_128" in errors_of(backup)["docs/a"]
        assert set(findings(verify(backup, expect=3))) == {("rotten", "a")}


def test_a_repair_while_a_run_is_at_work(copied: Backup) -> None:
    """Another run that holds the lock: exit 11, what was found is told all the same."""
    import fcntl

    flip(copied.root / "live")
    with (copied.root / ".pipeline" / "lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = verify(copied, "--repair", expect=11)
    assert set(findings(result)) == {("rotten", "live")}
    assert os.path.exists(copied.root / "live")
