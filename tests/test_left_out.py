"""What is left out by what it is, or holds: caches, marked folders, other file systems, large files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from harness import Backup
from watched import watched_backup, watching

TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# made by a program\n"


def stored(backup: Backup) -> list[str]:
    """Names of what lies in the backup, folders with a slash."""
    return [name + "/" * (seen.kind == "folder") for name, seen in sorted(backup.tree().items())]


def test_caches(tmp_path: Path) -> None:
    """A folder with a valid tag is kept, not what lies in it; a tag without the signature says nothing."""
    backup = Backup(tmp_path, settings={"filters.exclude_caches": True})
    backup.write({"cache/CACHEDIR.TAG": TAG, "cache/a": "a", "cache/deep/b": "b"})
    backup.write({"no/CACHEDIR.TAG": "Signature: something else", "no/c": "c"})
    (backup.source / "link").mkdir()
    (backup.source / "link/CACHEDIR.TAG").symlink_to("../cache/CACHEDIR.TAG")
    (backup.source / "link/e").write_text("e")
    backup.run()
    kept = ["cache/", "link/", "link/CACHEDIR.TAG", "link/e", "no/", "no/CACHEDIR.TAG", "no/c"]
    assert stored(backup) == kept
    backup.assert_nothing_left_to_do()


def test_marked_folders(tmp_path: Path) -> None:
    """Whatever the marker is; what was backed up before it came is kept as it was, and is no deletion."""
    backup = Backup(tmp_path, settings={"filters.exclude_if_present": [".nobackup", ".skip"]})
    backup.write({"a/.nobackup": "", "a/x": "x", "b/y": "y", "c/z": "z"})
    (backup.source / "c/.skip").mkdir()
    backup.run()
    assert stored(backup) == ["a/", "b/", "b/y", "c/"]
    backup.write({"b/.nobackup": "", "b/y": "other", "b/new": "new"})
    (backup.source / "b/y").unlink()
    assert backup.run("--json").summary["delete"] == 0
    assert stored(backup) == ["a/", "b/", "b/y", "c/"]
    (backup.source / "b/.nobackup").unlink()
    summary = backup.run("--json").summary
    assert (summary["delete"], summary["backup"]) == (1, 1)
    backup.assert_sound()
    backup.assert_nothing_left_to_do()


def test_large_files(tmp_path: Path) -> None:
    """Files beyond the limit are left out; one that has grown beyond it keeps what was stored."""
    backup = Backup(tmp_path, settings={"filters.max_file_size": 100})
    backup.write({"small": "s" * 100, "large": "l" * 101})
    backup.run()
    assert stored(backup) == ["small"]
    backup.write({"small": "s" * 101})
    backup.assert_nothing_left_to_do()
    assert len(backup.read("small")) == 100


def test_large_files_by_pattern(tmp_path: Path) -> None:
    """Only those that match; the last pattern that does decides, but `max_file_size` is for all."""
    sizes = 'filters.exclude_larger_than={ "*.iso" = 5, "/b/*.iso" = 8, "keep.iso" = 0, "*.raw" = 50 }'
    backup = Backup(tmp_path, settings={"filters.max_file_size": 20})
    content = {"a.iso": 6, "b/a.iso": 6, "b/c.iso": 9, "keep.iso": 20, "other": 20, "x.raw": 20, "d/x.iso": 5}
    backup.write({path: str(number) * size for number, (path, size) in enumerate(content.items())})
    backup.write({"more.raw": "r" * 21})
    said = backup.run("--set", sizes, "--dry-run", "--verbose").stdout
    assert 'EXCLUDED: docs/a.iso (--set: filters.exclude_larger_than["*.iso"] = 5)' in said
    assert "EXCLUDED: docs/more.raw (filters.max_file_size = 20)" in said
    backup.run("--set", sizes)
    assert stored(backup) == ["b/", "b/a.iso", "d/", "d/x.iso", "keep.iso", "other", "x.raw"]
    fate = backup.call("config", "check", "--set", sizes, str(backup.source / "b/c.iso")).stdout
    assert 'c.iso is larger than --set: filters.exclude_larger_than["/b/*.iso"] = 8' in fate


def test_what_is_included_comes_back(tmp_path: Path) -> None:
    """From an exclude; not from a folder that is left out as a whole."""
    filters = {"filters.exclude": ["*.log", "build/"], "filters.include": ["keep.log", "build/kept"]}
    backup = Backup(tmp_path, settings=filters)
    backup.write({"a.log": "a", "keep.log": "k", "x/keep.log": "x", "build/kept": "b"})
    backup.run()
    assert stored(backup) == ["keep.log", "x/", "x/keep.log"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.slow
def test_one_file_system(tmp_path: Path) -> None:
    """What is mounted inside a source is left out, but for the folder that it is mounted on."""
    backup = Backup(tmp_path, settings={"filters.one_file_system": True})
    backup.write({"disk/under": "u", "a": "a"})
    subprocess.run(["mount", "-t", "tmpfs", "none", backup.source / "disk"], check=True, timeout=20)
    try:
        (backup.source / "disk/there").write_text("t")
        backup.run()
        assert stored(backup) == ["a", "disk/"]
    finally:
        subprocess.run(["umount", "-l", backup.source / "disk"], check=True, timeout=20)


def test_a_watch_leaves_them_out_too(tmp_path: Path) -> None:
    """What happens in a marked folder, or to a large file, is looked at, and left out."""
    filters = {"filters.exclude_if_present": [".nobackup"], "filters.max_file_size": 100}
    backup = watched_backup(tmp_path, filters)
    backup.write({"a/.nobackup": "", "a/x": "x", "b": "b"})
    with watching(backup) as watched:
        backup.write({"a/x": "other", "a/deep/new": "new", "large": "l" * 200})
        backup.write({"b": "other"})
        watched.wait_until_idle(2)
        watched.stop()
    assert sum(run["backup"] for run in watched.runs) == 1
    assert stored(backup)[:2] == ["a/", "b"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('filters.include=["!a"]', "filters.exclude"),
        ('filters.exclude_if_present=["a/b"]', "the name of a file"),
        ("filters.max_file_size=-1", "at least 0"),
        ('filters.exclude_larger_than={"!a"=1}', "not a gitignore pattern"),
        ('filters.exclude_larger_than={"a"=-1}', "at least 0"),
        ('filters.on_newly_excluded="delete"', '"keep" or "archive"'),
    ],
)
def test_mistakes(backup: Backup, setting: str, said: str) -> None:
    """Told with the key, and what would be right."""
    result = backup.run("--set", setting, expect=2)
    assert said in result.stderr and setting.partition("=")[0] in result.stderr


def test_the_fate_of_a_path(tmp_path: Path) -> None:
    """`config check PATH` names the rule, in the order in which a run comes there."""
    filters = {
        "filters.exclude": ["*.log", "build/"],
        "filters.include": ["keep.log"],
        "filters.exclude_if_present": [".nobackup"],
        "filters.max_file_size": 10,
        "log_dir": "docs/logs",
    }
    backup = Backup(tmp_path, settings=filters)
    backup.write(
        {"a.log": "", "keep.log": "", "build/x/y": "", "m/.nobackup": "", "m/z": "", "large": "l" * 11}
    )
    backup.write({"logs/one": "", "plain": ""})
    told = {
        "a.log": 'a.log matches config.toml: filters.exclude[0] "*.log"',
        "build/x/y": 'build matches config.toml: filters.exclude[1] "build/"',
        "m/z": "the content of m is left out: .nobackup in it",
        "large": "large is larger than filters.max_file_size = 10",
        "logs/one": "logs belongs to the backup itself",
        "missing": "missing: No such file or directory",
        "..": "it lies in no source",
    }
    places = [str(backup.source / path) for path in told]
    expected = [f"{place} is left out: {why}" for place, why in zip(places, told.values(), strict=True)]
    assert backup.call("config", "check", *places).stdout.splitlines() == expected
    kept = [str(backup.source / path) for path in ("keep.log", "m", "plain")]
    assert all(line["backed_up"] for line in backup.call("config", "check", "--json", *kept).lines)
    backup.run()
    assert {"keep.log", "plain"} <= set(backup.names()), "and so it is"
    assert not {"a.log", "build/x/y", "m/z", "large", "logs/one"} & set(backup.names())
