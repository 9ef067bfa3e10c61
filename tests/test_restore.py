"""`restore` end to end: whole trees, parts, earlier runs, single versions, and everything that a tree can be.

Every restored tree is compared with what the source was at that run: names, contents, links, modes, times.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from at_work import at_work, many_files
from harness import Backup
from restored import Kept, assert_same, keep, mode_of, of_type, restore
from test_names import NOT_UTF8, RESERVED, rewritten
from trees import EPOCH_NS, File, Folder, Link, Tree, remove, set_times_of_new, snapshot, write_tree
from with_past import ODD

LARGE = bytes(range(256)) * 8192 + b"an odd end"
FIRST: Tree = {
    "again": "a\n",
    "changed": "first\n",
    "copy": "a\n",
    "empty": "",
    "folder": {"a": "a\n", "gone": "gone\n", "deep": {"er": {"x": "x\n"}}, "nothing": None},
    "large": LARGE,
    "link": Link("folder/a"),
    "outside": Link("/etc/passwd"),
    "turns": "a file\n",
}


class History:
    """Three runs over a small tree, and what the source was at each of them. Tests only look at it."""

    def __init__(self, base: Path) -> None:
        self.backup = Backup(base)
        self.kept: dict[int, Kept] = {}
        source = self.backup.source
        self._run(FIRST)
        remove(source / "folder" / "gone")
        remove(source / "copy")
        remove(source / "turns")
        self._run({"changed": "second\n", "large": LARGE[::-1], "turns": {"inside": "yes\n"}, "new": "new\n"})
        (source / "folder" / "deep").rename(source / "moved")
        (source / "changed").chmod(0o600)
        remove(source / "link")
        self._run({"changed": File(b"third\n", 0o600), "folder": {"gone": "back\n"}, "link": "a file now\n"})

    def _run(self, tree: Tree) -> None:
        import random

        self.backup.write(tree)
        set_times_of_new(self.backup.source, random.Random(len(self.kept)))
        os.utime(self.backup.source, ns=(EPOCH_NS, EPOCH_NS + len(self.kept)))
        self.backup.run()
        self.kept[len(self.kept) + 1] = keep(self.backup.source)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return History(tmp_path_factory.mktemp("history"))


@pytest.mark.parametrize("run", [1, 2, 3, None])
def test_a_whole_tree_as_it_was(history: History, tmp_path: Path, run: int | None) -> None:
    """A content lies in any of the four places by now: live, a duplicate, a version, deleted. Every run comes
    back exactly, the folder itself included; without --at it is the latest state."""
    result = restore(history.backup, tmp_path / "to", *(["--at", str(run)] if run else []), "--json")
    assert_same(history.kept[run or 3], tmp_path / "to")
    assert result.summary["status"] == "ok"
    assert result.summary["run"] == run
    files = [seen for seen in history.kept[run or 3].seen.values() if seen.kind in ("file", "link")]
    assert result.summary["files"] + result.summary["links"] == len(files)


def test_all_four_places_are_read(history: History, tmp_path: Path) -> None:
    """Where each content of run 1 lies by now, as --verbose tells it."""
    lines = restore(history.backup, tmp_path / "to", "--at", "1", "--verbose", "--json").lines
    actions = of_type(lines, "action")
    found = {path: line["stored_at"] for path, line in actions.items() if path != "docs/outside"}
    assert found == {
        "docs/again": "again", "docs/changed": "versions/changed/v1.bak", "docs/copy": "_deleted/copy",
        "docs/empty": "empty", "docs/folder/a": "_duplicates/folder/a",
        "docs/folder/deep/er/x": "_deleted/folder/deep/er/x",
        "docs/folder/gone": "versions/folder/gone/v1.bak", "docs/large": "versions/large/v1.bak",
        "docs/link": "versions/link/v1.bak", "docs/turns": "versions/turns/v1.bak",
    }  # fmt: skip
    assert {line["action"] for line in actions.values()} == {"RESTORE"}


PARTS: dict[str, tuple[Sequence[str], set[str]]] = {
    "a file as it is shown": (["docs/folder/a"], {"folder", "folder/a"}),
    "inside the source": (["folder/a"], {"folder", "folder/a"}),
    "a folder": (["docs/moved"], {"moved", "moved/er", "moved/er/x"}),
    "a folder without anything in it": (["folder/nothing"], {"folder", "folder/nothing"}),
    "several": (["new", "moved/er", "docs/link"], {"link", "moved", "moved/er", "moved/er/x", "new"}),
    "one inside another": (["moved/er/x", "moved", "moved/er"], {"moved", "moved/er", "moved/er/x"}),
    "with odd slashes": (["./moved//er/"], {"moved", "moved/er", "moved/er/x"}),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part(history: History, tmp_path: Path, part: str) -> None:
    """What was named, all below it, and the folders that it lies in, with their modes and times."""
    paths, wanted = PARTS[part]
    restore(history.backup, tmp_path / "to", *paths)
    kept = {name: seen for name, seen in history.kept[3].seen.items() if name in wanted}
    assert kept.keys() == wanted
    assert dict(snapshot(tmp_path / "to", folder_times=True)) == kept


def test_a_part_by_its_absolute_path(history: History, tmp_path: Path) -> None:
    """A path as it is on the disk, also of what is no longer there."""
    source = history.backup.source
    restore(history.backup, tmp_path / "to", str(source / "moved"))
    assert (tmp_path / "to/moved/er/x").read_text() == "x\n"
    restore(history.backup, tmp_path / "before", str(source / "folder" / "deep"), "--at", "2")
    assert (tmp_path / "before/folder/deep/er/x").read_text() == "x\n"
    restore(history.backup, tmp_path / "all", str(source))
    assert_same(history.kept[3], tmp_path / "all", whole=False)


def test_at_a_time(history: History, tmp_path: Path) -> None:
    """`--at` takes a time, too: the last run that had ended by then."""
    ends = [line["ended"] for line in history.backup.call("runs", "--json").lines if "ended" in line]
    second = datetime.fromisoformat(ends[1]).astimezone(UTC).isoformat()
    restore(history.backup, tmp_path / "to", "--at", second)
    assert keep(tmp_path / "to").seen in [history.kept[run].seen for run in (2, 3)]
    refused = restore(history.backup, tmp_path / "early", "--at", "2001-01-01", expect=2)
    assert "run 1" in refused.stderr and not (tmp_path / "early").exists()


VERSIONS = {
    "an older one": (["changed", "--version", "1"], {"changed": "first\n"}),
    "the latest": (["changed", "--version", "3"], {"changed": "third\n"}),
    "of a deleted path": (["copy", "--version", "1"], {"copy": "a\n"}),
    "of a path that came back": (["folder/gone", "--version", "1"], {"folder/gone": "gone\n"}),
    "of what is a folder now": (["turns", "--version", "1"], {"turns": "a file\n"}),
    "of several": (
        ["folder/gone", "changed", "folder/a", "--version", "1"],
        {"changed": "first\n", "folder/a": "a\n", "folder/gone": "gone\n"},
    ),
}


@pytest.mark.parametrize("which", VERSIONS)
def test_one_content_by_its_number(history: History, tmp_path: Path, which: str) -> None:
    """`--version N` brings back that content, also after the path was deleted or became another kind."""
    arguments, wanted = VERSIONS[which]
    restore(history.backup, tmp_path / "to", *arguments)
    found = {name: (tmp_path / "to" / name) for name, seen in keep(tmp_path / "to").seen.items()}
    files = {name: place.read_text() for name, place in found.items() if place.is_file()}
    assert files == wanted


def test_a_version_that_is_a_link(history: History, tmp_path: Path) -> None:
    restore(history.backup, tmp_path / "to", "link", "--version", "1")
    assert os.readlink(tmp_path / "to/link") == "folder/a"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--at", "9"], "3"),
        (["--at", "yesterday"], "yesterday"),
        (["nowhere"], "nowhere"),
        (["folder/../changed"], "folder/../changed"),
        (["copy"], "run 1"),
        (["new", "--at", "1"], "run 2"),
        (["changed", "--version", "7"], "version 7"),
        (["--version", "1"], "--version"),
        (["changed", "--version", "1", "--at", "1"], "--version"),
    ],
)
def test_what_is_not_known(history: History, tmp_path: Path, arguments: Sequence[str], says: str) -> None:
    """Unknown runs, times, paths and versions: exit 2, the message names what there is, nothing is made."""
    result = restore(history.backup, tmp_path / "to", *arguments, expect=2)
    assert says in result.stderr
    assert not (tmp_path / "to").exists()


def test_a_run_that_was_cut(tmp_path: Path) -> None:
    """A run that was cut has no end to look at: exit 2, and the neighbours are named."""
    backup = many_files(tmp_path / "one")
    small = tmp_path / "small"
    write_tree(small, {"a": "a\n"})
    backup.call("run", "--set", f'sources=["{small}"]', expect=None)
    with at_work(backup):
        pass
    backup.run("--quiet")
    ended = backup.call("runs", "--json").lines[:-1]
    runs = [line["run"] for line in ended if line["status"] == "ok"]
    cut = next(number for number in range(1, max(runs)) if number not in runs)
    refused = restore(backup, tmp_path / "to", "--at", str(cut), expect=2)
    assert str(max(runs)) in refused.stderr and not (tmp_path / "to").exists()


ALL_SORTS: Tree = {
    "closed": Folder({"a": "a\n"}, 0o500),
    "set": File(b"set\n", 0o4755, EPOCH_NS + 1),
    "group": File(b"group\n", 0o2711, EPOCH_NS + 123_456_789),
    "sticky": Folder({"open": Folder({}, 0o777)}, 0o3777),
    "secret": File(b"", 0o000, EPOCH_NS),
    "no one": Folder({}, 0o000),
    "loop": Link("loop"),
    "to a folder": Link("closed"),
    os.fsdecode(b"to \xff"): Link(os.fsdecode(b"\xfe\n")),
    "n" * 255: {"ü" * 127: {"n" * 255: "long names\n"}},
    NOT_UTF8: "not text\n",
    ODD: {"new\nline": "a line break\n", NOT_UTF8: Link(NOT_UTF8)},
    "just below": bytes((1 << 20) - 1),
    "just at": bytes(1 << 20),
    "just above": bytes((1 << 20) + 1),
    "some more": LARGE * 3,
}


def test_all_sorts_of_things(user_backup: Backup, tmp_path: Path) -> None:
    """Set-id bits, folders and files of mode 0, names that are no text, long names, links that lead nowhere,
    files around the size of the reading buffer; times to the nanosecond, of links and folders too."""
    source = user_backup.source
    user_backup.restricted = False
    write_tree(source, ALL_SORTS)
    os.utime(source / "loop", ns=(5, 1_234_567_891), follow_symlinks=False)
    os.utime(source / "closed", ns=(5, -1_500_000_000))
    source.chmod(0o555)
    os.utime(source, ns=(EPOCH_NS, EPOCH_NS + 987_654_321))
    user_backup.run("--quiet", expect=None if os.geteuid() else 0)
    restore(user_backup, tmp_path / "to")
    assert_same(keep(source), tmp_path / "to")
    source.chmod(0o755)


def test_a_source_without_the_right_to_write_in_it(user_backup: Backup, tmp_path: Path) -> None:
    """Folders get their modes after their content, so a tree that nobody may write in comes back as well: the
    same without root's right to write everywhere."""
    source = user_backup.source
    write_tree(source, {"a": {"b": Folder({"c": "c\n", "d": Folder({}, 0o500)}, 0o500)}, "x": "x\n"})
    source.chmod(0o500)
    os.utime(source, ns=(EPOCH_NS, EPOCH_NS))
    user_backup.run()
    restore(user_backup, tmp_path / "to")
    assert_same(keep(source), tmp_path / "to")
    for folder in (source, tmp_path / "to"):
        folder.chmod(0o700)


def test_versions_in_a_folder_without_the_right_to_write_in_it(user_backup: Backup, tmp_path: Path) -> None:
    """Several contents from one closed folder: it is closed once, after the last of them."""
    source = user_backup.source
    names = [f"{number:03}" for number in range(300)]
    write_tree(source, {"closed": Folder(dict.fromkeys(names, "x\n"), 0o500)})
    user_backup.run()
    paths = [f"closed/{name}" for name in names]
    result = restore(user_backup, tmp_path / "to", *paths, "--version", "1", "--json")
    assert (result.summary["files"], result.summary["folders"]) == (300, 2)
    assert_same(keep(source), tmp_path / "to", whole=False)


def test_several_sources(tmp_path: Path) -> None:
    """Several sources land in folders with their names, whole or in part; also the one that lies at the
    backup's root because it was there first."""
    backup = Backup(tmp_path / "one", sources=["docs"])
    backup.write({"a": "a\n", "same": "same\n", "pics": {"x": "not a source\n"}})
    backup.run()
    backup.sources = ["docs", ("others", "more")]
    backup.write_config()
    write_tree(backup.base / "others", {"same": "same too\n", "b": {"c": "c\n"}})
    backup.run()
    restore(backup, tmp_path / "to")
    for name, folder in (("docs", "docs"), ("more", "others")):
        assert_same(keep(backup.base / folder), tmp_path / "to" / name)
    restore(backup, tmp_path / "part", "more/b", "a")
    assert set(keep(tmp_path / "part").seen) == {"docs", "docs/a", "more", "more/b", "more/b/c"}
    restore(backup, tmp_path / "twice", "same", expect=2)
    restore(backup, tmp_path / "before", "--at", "1")
    assert {path.name for path in (tmp_path / "before").iterdir()} == {"docs"}


def test_reserved_names_come_back_as_they_were(backup: Backup, tmp_path: Path) -> None:
    """Names that the backup has to store under other names: `versions/v1.bak`, `_escaped`, `.pipeline`."""
    kept = []
    for tree in (RESERVED, rewritten(RESERVED, "changed\n")):
        backup.write(tree)
        backup.run()
        kept.append(keep(backup.source))
    for number, wanted in enumerate(kept, 1):
        restore(backup, tmp_path / str(number), "--at", str(number))
        assert_same(wanted, tmp_path / str(number))


@pytest.mark.handles
def test_a_path_longer_than_one_call_takes(backup: Backup, tmp_path: Path) -> None:
    """Deep below what the system takes as one path, a file comes back with its folders."""
    deep = Path(*(f"{depth:0250}" for depth in range(20)))
    with_handles(backup.source, deep, write=b"deep down\n")
    backup.run()
    restore(backup, tmp_path / "to")
    assert with_handles(tmp_path / "to", deep) == b"deep down\n"


def with_handles(root: Path, below: Path, write: bytes | None = None) -> bytes:
    """Write or read the file `bottom`, folder by folder."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for name in below.parts:
        if write is not None:
            os.mkdir(name, dir_fd=handle)
        handle, above = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle), handle
        os.close(above)
    flags = os.O_RDONLY if write is None else os.O_WRONLY | os.O_CREAT
    file = os.open("bottom", flags, 0o644, dir_fd=handle)
    content = os.read(file, 100) if write is None else write[: os.write(file, write)]
    os.close(file)
    os.close(handle)
    return content


def test_the_umask_has_no_say(history: History, tmp_path: Path) -> None:
    """Modes are those that were recorded, whatever the umask; what a folder's content waits in is private."""
    before = os.umask(0o077)
    try:
        restore(history.backup, tmp_path / "to")
    finally:
        os.umask(before)
    assert_same(history.kept[3], tmp_path / "to")
    assert mode_of(tmp_path / "to/again") == 0o644
