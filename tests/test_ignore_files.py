"""`.pipelineignore` files, and what becomes of what was stored before a rule came.

Whatever is looked at, all of it or a part, the same rules hold: those of the configuration, then those of the
files from the source's root down. What they leave out is kept as it was, or archived where that is asked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import RESTRICT, Backup
from patterns import lines
from scanned import parts, scan, scan_setup, tree
from trees import Fifo, Link, Tree
from watched import watched_backup, watching

from pipeline.filters import Filter
from pipeline.model import message
from pipeline.model.scope import Scope
from pipeline.stages import space
from pipeline.stages.setup import FolderRules
from pipeline.watching.hints import LeftOut
from pipeline.watching.observers import TreeRules

TAG = "Signature: 8a477f597d28d172789f06886806bc55\n"
KNOWN: Tree = {
    "a.tmp": "a", "b/x.tmp": "x", "b/y": "y", "b/z.tmp": "z", "c/deep/one.tmp": "1", "c/deep/two": "2",
    "d/CACHEDIR.TAG": TAG, "d/kept/file": "f", "e/file": "e",
}  # fmt: skip


@pytest.fixture
def known(backup: Backup) -> Backup:
    """A backup of a small tree, in which no rule holds yet."""
    backup.write(KNOWN)
    backup.run()
    return backup


def remove(backup: Backup, *paths: str) -> None:
    for path in paths:
        (backup.source / path).unlink()


def tagged(found: list[tuple[int, str]], tag: int) -> list[str]:
    return [path.removeprefix("docs/") for what, path in found if what == tag]


def files(found: list[tuple[int, str]]) -> list[str]:
    return [path for path in tagged(found, message.FILE) if not path.endswith(".pipelineignore")]


# -- which rules hold -------------------------------------------------------------------------------------


def test_a_file_of_rules_is_about_its_own_folder(known: Backup) -> None:
    """Deeper ones come after shallower ones, the configuration first; in an excluded folder none is read."""
    known.write(
        {".pipelineignore": "/b/*.tmp\n!c/**\nd/\n", "c/deep/.pipelineignore": "/two\n!*.tmp\n"}
        | {"d/.pipelineignore": "!*\n"}
    )
    found = scan(known, patterns=lines("*.tmp", "e"))
    assert files(found) == ["b/y", "c/deep/one.tmp"]
    assert tagged(found, message.FOLDER) == ["docs", "b", "c", "c/deep"]
    known.write({".pipelineignore": "!a.tmp\n!e\n"})
    assert "a.tmp" in files(scan(known, patterns=lines("*.tmp", "e")))
    assert "e/file" in files(scan(known, patterns=lines("*.tmp", "e")))


def test_a_part_is_looked_at_by_the_rules_above_it(known: Backup) -> None:
    """Single files, folders alone and as a whole, and what isn't entered at all."""
    known.write({"b/.pipelineignore": "*.tmp\n", "c/.pipelineignore": "deep\n", ".pipelineignore": "/e/\n"})
    assert scan(known, parts("docs/b/x.tmp", "docs/b/y")) == [(message.FILE, "docs/b/y")]
    assert scan(known, parts("docs/c/deep", "docs/c/deep/two", "docs/c/deep/", "docs/e/file", "docs/e")) == []
    assert files(scan(known, parts("docs/b/", "docs/c/"))) == ["b/y"]
    (known.source / "b/.pipelineignore").unlink()
    assert files(scan(known, parts("docs/b/x.tmp", "docs/b/y"))) == ["b/x.tmp", "b/y"]


def test_what_is_missing_but_left_out_is_no_deletion(known: Backup) -> None:
    """By the rules of the folder that it was in, also of the last entry of a folder, and in gone folders."""
    known.write({"b/.pipelineignore": "x.tmp\nz.tmp\n", "c/.pipelineignore": "deep/\n"})
    remove(known, "a.tmp", "b/x.tmp", "b/z.tmp", "b/y", "c/deep/one.tmp", "c/deep/two")
    (known.source / "c/deep").rmdir()
    for scope in (Scope(), parts("docs/a.tmp", "docs/b/", "docs/c/")._replace(gone=None)):
        assert tagged(scan(known, scope), message.MISSING) == ["a.tmp", "b/y"]


def test_the_estimate_of_space_goes_by_them(backup: Backup, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left out takes no space."""
    backup.write({"one": "1"})
    backup.run()
    monkeypatch.setattr(space, "_free_bytes", lambda root: 0)
    backup.write({"new.tmp": "n" * 5_000_000, "new": "n" * 2_000_000, ".pipelineignore": "*.tmp\n"})
    problem = space.shortage(scan_setup(backup), backup.root, None, lambda: False)
    assert problem is not None and "2.0 MB are new in the sources (2 files)" in problem.cause


def test_a_watch_hears_by_the_same_rules(known: Backup) -> None:
    """What its hints leave out; and that what decides about that has changed, told once for its folder."""
    known.write({"b/.pipelineignore": "*.tmp\n", "c/.pipelineignore": "deep\n", ".pipelineignore": "!e\n"})
    left_out = LeftOut(Filter(lines("e")), FolderRules(caches=True, if_present=(b".nobackup",)))
    root = known.source.stat()
    left_out.roots[b"docs"] = (os.fsencode(known.source), root.st_dev)

    def out(*paths: str) -> list[str]:
        return [path for path in paths if left_out.has(tree(f"docs/{path}"), False)]

    every = (
        "a.tmp",
        "b/x.tmp",
        "b/y",
        "c/deep/two",
        "d/kept/file",
        "d/CACHEDIR.TAG",
        "e/file",
        "b/gone/x.tmp",
    )
    assert out(*every) == ["b/x.tmp", "c/deep/two", "d/kept/file", "d/CACHEDIR.TAG", "b/gone/x.tmp"]
    assert not left_out.has(tree("docs/d"), True) and left_out.has(tree("docs/c/deep"), True)
    remove(known, "b/.pipelineignore", "d/CACHEDIR.TAG")
    known.write({"e/.nobackup": ""})
    for path in ("b/.pipelineignore", "d/CACHEDIR.TAG", "e/.nobackup"):
        assert left_out.is_rule(tree(f"docs/{path}"))
        assert left_out.changed(tree(f"docs/{path}"), False, True)
    assert not left_out.changed(tree("docs/e/.nobackup"), False, False)  # its bytes say nothing
    assert not left_out.changed(tree("docs/c/deep/.pipelineignore"), False, True)  # where nobody reads it
    assert out(*every) == ["c/deep/two", "e/file"]
    rules = TreeRules(left_out, b"docs")
    assert not rules(b"e", (0, 0), None) and rules(b"c/deep", (0, 0), None) and rules(b"e/new", (0, 0), None)


# -- what becomes of what was stored ----------------------------------------------------------------------


def test_what_is_excluded_now_counts_as_deleted_where_that_is_asked(known: Backup) -> None:
    """By patterns, files of rules and marks, in the walked parts only; not by another disk or a size."""
    known.write({"c/.pipelineignore": "*.tmp\n"})
    rules = FolderRules(caches=True, max_file_bytes=1)
    known.write({"e/file": "larger"})
    limits = {"patterns": lines("b/"), "rules": rules, "archives_excluded": True}
    excluded = ["b", "b/x.tmp", "b/y", "b/z.tmp", "c/deep/one.tmp", "d/CACHEDIR.TAG", "d/kept", "d/kept/file"]
    assert tagged(scan(known, **limits), message.EXCLUDED) == excluded
    assert tagged(scan(known, parts("docs/c/", "docs/d", "docs/b/y"), **limits), message.EXCLUDED) == [
        "c/deep/one.tmp"
    ]
    assert tagged(scan(known, parts("docs/d/", "docs/b/"), **limits), message.EXCLUDED) == [
        path for path in excluded if path[0] in "bd"
    ]
    kept = scan(known, **limits | {"archives_excluded": False})
    assert not tagged(kept, message.EXCLUDED) and not tagged(kept, message.MISSING)


def test_another_disk_archives_nothing(known: Backup, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on another file system now says nothing about what had been there."""
    setup = scan_setup(known)
    root = setup.sources[0]
    elsewhere = root._replace(identity=(root.identity[0] + 1, root.identity[1]))
    monkeypatch.setattr(
        "pipeline.stages.scanner.open_source", lambda source: os.open(source.path, os.O_RDONLY)
    )
    monkeypatch.setattr("scanned.SourceRoot", lambda *_: elsewhere)
    found = scan(known, rules=FolderRules(one_file_system=True), archives_excluded=True)
    assert found == [(message.FOLDER, "docs")]


@pytest.mark.parametrize("content", ["*.tmp\n[a\n", Link("nowhere"), Fifo(), {"x": ""}, "#" + "\n" * 10_001])
def test_rules_that_are_not_understood_archive_nothing(known: Backup, content: Tree) -> None:
    """One warning for the file; what it says beside that holds, and who knows what else it was to say."""
    known.write({"b/.pipelineignore": content})
    found = scan(known, patterns=lines("z.tmp", "e/"), archives_excluded=True)
    assert tagged(found, message.EXCLUDED) == ["e", "e/file"]
    assert tagged(found, message.PROBLEM) == ["b/.pipelineignore"]
    assert "b/x.tmp" in files(found) or (isinstance(content, str) and content.startswith("*.tmp"))
    assert tagged(scan(known, parts("docs/b/y"), archives_excluded=True), message.PROBLEM) == []


def test_rules_that_are_being_written_archive_nothing(known: Backup) -> None:
    """An editor may have written half of them. What is missing counts as deleted as ever."""
    known.write({"b/.pipelineignore": "*\n"})
    waiting = Scope(waiting=frozenset([tree("docs/b/.pipelineignore")]))
    assert tagged(scan(known, waiting, archives_excluded=True), message.EXCLUDED) == []
    excluded = tagged(scan(known, archives_excluded=True), message.EXCLUDED)
    assert excluded == ["b/x.tmp", "b/y", "b/z.tmp"]


def test_archived_and_back(tmp_path: Path) -> None:
    """Each with its reason in the log, counted by the guard against mass deletion; what is included again
    comes back from where it was archived. What was kept before is archived once that is asked."""
    backup = Backup(tmp_path, settings={"safety.max_delete_percent": 2})
    backup.write({f"many/{number}": "x" * number for number in range(100)})
    backup.write({"a.tmp": "a", "b/c.tmp": "c", "b/d/.nobackup": "", "b/d/e": "ee", "plain": "p"})
    backup.run()
    backup.write({".pipelineignore": "*.tmp\n"})
    assert backup.run().decisions() == ["BACKUP: docs/.pipelineignore"]
    backup.configure(
        filters__on_newly_excluded="archive",
        filters__exclude_if_present=[".nobackup"],
        safety__max_delete_percent=3,
    )
    held_back = backup.run("--set", "safety.max_delete_percent=2", expect=3)
    assert "4 of 106 files would count as deleted" in held_back.stderr, held_back.said
    done = backup.run("--set", "safety.max_delete_percent=4")
    excluded = ["a.tmp", "b/c.tmp", "b/d/.nobackup", "b/d/e"]
    assert done.planned() == [f"DELETE: docs/{path} (excluded now)" for path in excluded]
    assert [path for path in excluded if (backup.root / "_deleted" / path).exists()] == excluded
    assert (backup.root / "b/d").is_dir() and not list((backup.root / "b/d").iterdir())
    backup.assert_sound()
    backup.assert_nothing_left_to_do()
    backup.write({".pipelineignore": "/b/*.tmp\n"})
    assert backup.run().planned()[-1] == "BACKUP: docs/a.tmp (came back)"
    backup.assert_sound()


# -- what people are told ---------------------------------------------------------------------------------


def test_a_dry_run_tells_what_is_left_out_and_by_which_rule(tmp_path: Path) -> None:
    """With `--verbose`: a line for each excluded entry, nothing below an excluded folder; else none."""
    settings = {
        "filters.exclude": ["*.o", "cache/", "!keep.o"],
        "filters.exclude_caches": True,
        "filters.exclude_if_present": [".nobackup"],
        "filters.max_file_size": 100,
    }
    backup = Backup(tmp_path, settings=settings)
    backup.write(
        {"a.o": "", "keep.o": "", "cache/x/y.o": "", "m/.nobackup": "", "m/z.o": "", "large": "l" * 101}
    )
    backup.write(
        {"t/CACHEDIR.TAG": TAG, "b/.pipelineignore": "# none\n/out\n!a.o\n", "b/out": "", "b/a.o": ""}
    )
    backup.write({"b/c\n.o": ""})
    said = backup.run("--dry-run", "--verbose", "--set", 'filters.include=["no"]').stdout.splitlines()
    rules = [
        ("a.o", 'config.toml: filters.exclude[0] "*.o"'),
        ("b/c\\x0a.o", 'config.toml: filters.exclude[0] "*.o"'),
        ("b/out", 'docs/b/.pipelineignore:2 "/out"'),
        ("cache/", 'config.toml: filters.exclude[1] "cache/"'),
        ("large", "filters.max_file_size = 100"),
        ("m/", ".nobackup in it"),
        ("t/", "CACHEDIR.TAG in it"),
    ]
    expected = [f"EXCLUDED: docs/{path} ({why})" for path, why in rules]
    assert [line for line in said if line.startswith("EXCLUDED")] == expected
    assert "EXCLUDED" not in backup.run("--dry-run").stdout
    told = backup.run("--dry-run", "--verbose", "--json", "--set", 'filters.exclude=["*.o", "cache/"]').lines
    excluded = [line for line in told if line["type"] == "excluded"]
    assert excluded[0] == {
        "type": "excluded",
        "path": "docs/a.o",
        "reason": '--set: filters.exclude[0] "*.o"',
    }
    assert len(excluded) == len(rules) + 1
    assert "excluded" not in {line["type"] for line in backup.run("--verbose", "--json").lines}
    fates = backup.call(
        "config", "check", "--json", str(backup.source / "b/out"), str(backup.source / "b/a.o")
    )
    assert [json.loads(line)["why"] for line in fates.stdout.splitlines()] == [
        'b/out matches docs/b/.pipelineignore:2 "/out"',
        "no rule leaves it out",
    ]


def test_what_is_wrong_with_a_file_of_rules(tmp_path: Path) -> None:
    """One warning for each, with its file and line; the rest holds, and is backed up like any other."""
    backup = Backup(tmp_path)
    backup.write({"a/.pipelineignore": "*.o\n[z\nx\\\n*.p\n", "a/x.o": "", "a/x.p": "", "a/y": "y"})
    backup.write({"outside": "*\n", "b/.pipelineignore": Link("../outside"), "b/z": "z"})
    backup.write(
        {"c/.pipelineignore": "*\n" + "#" * (1 << 20), "c/z": "zz", "d/.pipelineignore": "*\n", "d/z": "d"}
    )
    (backup.source / "d/.pipelineignore").chmod(0)
    result = backup.finish(backup.start("run", under=RESTRICT if os.geteuid() == 0 else ()))
    assert result.exit == 3
    assert sorted(line for line in result.stderr.splitlines() if "WARNING" in line) == [
        "WARNING: docs/a/.pipelineignore (line 2 is not a gitignore pattern: [z, and 1 more)",
        "WARNING: docs/b/.pipelineignore (its rules don't hold: it is a link)",
        "WARNING: docs/c/.pipelineignore"
        " (its rules don't hold: it is not a file of at most 1048576 bytes and 10000 lines)",
        "WARNING: docs/d/.pipelineignore (can't read: Permission denied)",
        "WARNING: docs/d/.pipelineignore (its rules don't hold: Permission denied)",
    ]
    stored = {line["path"].removeprefix("docs/") for line in backup.export() if line["kind"] == "file"}
    assert stored == {"a/.pipelineignore", "a/y", "outside", "b/z", "c/.pipelineignore", "c/z", "d/z"}


# -- a watch ----------------------------------------------------------------------------------------------


def test_a_watch_goes_by_rules_that_change(tmp_path: Path) -> None:
    """What a changed file of rules excludes is archived, what it includes is backed up, and from then on
    watched; the same of a mark that is taken away. What they leave out is no reason for a run."""
    settings = {
        "filters.exclude": ["out"],
        "filters.exclude_if_present": [".nobackup"],
        "filters.on_newly_excluded": "archive",
    }
    backup = watched_backup(tmp_path, settings)
    backup.write({"a/x.tmp": "x", "a/y": "y", "out/in/file": "o", "skip/.nobackup": "", "skip/deep/z": "z"})

    def stored(path: str, content: str) -> Callable[[], bool]:
        place = backup.root / path
        return lambda: place.exists() and place.read_text() == content

    with watching(backup) as watched:
        assert watched.of_type("watching")[0]["folders"] == 3  # docs, a and skip
        backup.write({"a/.pipelineignore": "*.tmp\n"})
        watched.wait_for(stored("_deleted/a/x.tmp", "x"))
        watched.wait_until_idle(2)
        assert {note.partition(";")[0] for note in watched.notes} == {"docs/a/.pipelineignore has changed"}
        backup.write({"a/more.tmp": "more", "skip/deep/z": "skipped", "out/in/file": "other"})
        backup.write({".pipelineignore": "!out\n", "a/y": "yes"})
        watched.wait_for(stored("a/y", "yes"))
        watched.wait_for(stored("out/in/file", "other"))
        watched.wait_until_idle(3)
        backup.write({"out/in/file": "watched"})
        watched.wait_for(stored("out/in/file", "watched"))
        remove(backup, "a/.pipelineignore", "skip/.nobackup")
        watched.wait_for(stored("a/x.tmp", "x"))
        watched.wait_for(stored("skip/deep/z", "skipped"))
        watched.wait_until_idle(4)
        backup.write({"skip/deep/z": "watched, too"})
        watched.wait_for(stored("skip/deep/z", "watched, too"))
        watched.stop()
    backup.assert_right()
