"""Names that attack: whoever reads them in a terminal, the backup's own names, the limits of a path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Backup, difference
from restored import Kept, assert_same, keep, restore
from terminals import is_obeyed, on_a_terminal
from trees import Link, Tree, remove, snapshot

EVIL = (
    os.fsdecode(b"\xff\xfe not text"),
    "two\nlines",
    "-rf",
    "\x1b[2J cleared",
    "\x1b]0;title\x07",
    "\x1b[31m red",
    "\x9b2J eight bits",
    "\x9d0;title\x9c",
    "\x7f\x08\x08 rubbed out",
    "\u202etxt.exe",
    "\u2066isolated\u2069",
    "line\u2028separator",
    "[red]markup[/red]",
    "back\\x1b[2Jslash",
    "\r over the line",
)
NFC, NFD = "caf\u00e9", "cafe\u0301"


def evil_tree(word: str) -> Tree:
    """Every evil name as a file's, a folder's, a link's and a link's target."""
    tree: dict[str, Tree | str | Link] = {}
    for number, name in enumerate(EVIL):
        tree[f"{name} {word}"] = f"{word} {number}\n"
        tree[f"{name} folder"] = {name: f"{word} below {number}\n", "same": "same content\n"}
    return tree


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """Two runs over evil names, among them new, changed, deleted and unreadable ones, and duplicates."""
    base = tmp_path_factory.mktemp("evil") / "\x1b[2J\x9b base \u202e"
    backup = Backup(base, sources=[("docs", "\x1b[2Jdocs\u202e")])
    backup.write(evil_tree("one"))
    backup.write({f"{name} link": Link(name) for name in EVIL if not name.startswith("[")})
    backup.run()
    backup.write(evil_tree("two"))
    for name in EVIL:
        remove(backup.source / f"{name} one")
        backup.write({f"{name} folder": {name: "changed\n"}})
        (backup.root / f"{name} two").mkdir()  # foreign: what it is moved for is told
        (backup.root / f"{name} foreign").write_text("verify tells of it\n")
    return backup


COMMANDS = {
    "status": ["status"], "runs": ["runs"], "ls": ["ls"], "diff": ["diff", "1", "2"],
    "duplicates": ["duplicates"], "verify": ["verify"], "config": ["config", "check"],
    "history": ["history", f"{EVIL[3]} folder/{EVIL[3]}"], "nothing": ["history", f"{EVIL[3]}\u202e nothing"],
}  # fmt: skip
IN_EVERY_RUN = ("ls", "verify")


def assert_tame(backup: Backup, *words: str, only_errors: bool = False, shows: bool = True) -> None:
    words = (*words, "--config", str(backup.config))
    shown = on_a_terminal([*backup.program, *words], only_errors=only_errors)
    assert b"Traceback" not in shown.screen, shown.screen
    assert not shown.raw(), f"{words}: {shown.raw()} in {shown.screen!r}"
    assert not shows or b"\\x1b[2J" in shown.screen, shown.screen


def test_evil_names_never_reach_the_terminal(evil: Backup, tmp_path: Path) -> None:
    """Nothing that a terminal would obey, or that turns the order of what is read, gets from a name to the
    screen or raw into the run log: with `--verbose`, from the warnings of a run, and from what reads a
    backup.

    Guard: `treepath.escaped`, through which every name goes.
    """
    assert_tame(evil, "run", "--verbose")
    for name in evil.log_names():
        text = (evil.logs / name).read_bytes().decode()
        assert not {character for character in text if is_obeyed(character)}, text
        assert "\\x1b[2J" in text
    for name in IN_EVERY_RUN:
        assert_tame(evil, *COMMANDS[name])
    assert_tame(evil, "restore", "--verbose", "--to", str(tmp_path / "\x1b[2J to"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in IN_EVERY_RUN])
def test_evil_names_in_other_commands(evil: Backup, name: str) -> None:
    """The same for every other command that prints names, and for mistakes in the arguments.

    Guard: `treepath.escaped`, through which every name goes.
    """
    evil.run(expect=None)
    assert_tame(evil, *COMMANDS[name], shows=name not in ("runs", "config"))


@pytest.mark.slow
def test_evil_names_above_the_bars(tmp_path: Path) -> None:
    """Warnings that are printed above bars that are being drawn are as tame as any, also where what is in
    them looks like markup.

    Guards: `problem_line`, and that `print_above` prints text and no markup.
    """
    backup = Backup(tmp_path / "one")
    backup.write({f"many{number}": {f"{n}": f"{number} {n}\n" for n in range(250)} for number in range(40)})
    backup.write({f"zz {name}": f"{number}\n" for number, name in enumerate(EVIL)})
    backup.run()
    for number, name in enumerate(EVIL):
        (backup.root / f"zz {name}").write_text("damaged behind our back\n")
        backup.write({f"zz {name}": f"changed {number}\n"})
    backup.write(
        {f"many{number}": {f"{n}": f"other {number} {n}\n" for n in range(250)} for number in range(40)}
    )
    shown = on_a_terminal([*backup.program, "run", "--config", str(backup.config)], only_errors=True)
    assert b"Committing" in shown.screen, "no bars were drawn"
    assert b"\\x1b[2J" in shown.screen and b"[red]markup[/red]" in shown.screen
    assert not shown.raw(), f"{shown.raw()} in {shown.screen[-3000:]!r}"


OWN_NAMES: Tree = {
    "versions": {"a": {"v1.bak": "v1\n", "v1.pinned": "", "v2.pruned": ""}, "v7.bak": {"v1.bak": "deep\n"}},
    "_deleted": {"a": "deleted a\n", "_escaped": {"versions": "x\n"}},
    "_duplicates": {"a": "same\n", "versions": {"a": "same\n"}},
    "_escaped": {"_escaped": {"_escaped": "three\n"}, "versions": "escaped versions\n", "v1.bak": "e\n"},
    ".pipeline": {
        "state.db": "SQLite format 3\0", "state.db-wal": "wal\n", "lock": "lock\n", "staging": {"p-1": "p\n"},
        "quarantine": {"1-a": "q\n"}, "sources.json": "[]\n",
    },
    "v1.bak": {"v1.bak": {"v1.bak": "3 times\n"}},
    "a": {"v1.bak": "the first\n", "v1.pinned": "p\n", "v1.pruned": "r\n", "_escaped": {"v1.bak": "e\n"}},
    NFC: "composed\n",
    NFD: "decomposed\n",
    f"{NFC} folder": {NFD: "1\n", NFC: "2\n"},
    f"{NFD} folder": {NFD: "3\n", NFC: "4\n"},
    "n" * 255: {"n" * 255: {"v1.bak": "long\n"}},
    "\u00fc" * 127: "wide\n",
}  # fmt: skip


def turned(tree: Tree) -> Tree:
    """The same names, but what was a file is a folder with a file of the same name in it."""
    turned_tree: dict[str, Tree] = {}
    for name, what in tree.items():
        if isinstance(what, str):
            turned_tree[name] = {name: what, "v1.bak": f"in {name[:20]}\n"}
        elif isinstance(what, dict):
            turned_tree[name] = turned(what)
    return turned_tree


def edited(tree: Tree, word: str) -> Tree:
    return {
        name: f"{what}{word}\n" if isinstance(what, str) else edited(what, word)
        for name, what in tree.items()
        if isinstance(what, str | dict)
    }


def cleared(backup: Backup) -> None:
    for place in list(backup.source.iterdir()):
        remove(place)


def five_runs(backup: Backup) -> list[Kept]:
    """Changed, turned from files into folders, deleted, and back."""
    kept: list[Kept] = []
    for tree in (OWN_NAMES, edited(OWN_NAMES, "changed"), turned(OWN_NAMES), {"left": "alone\n"}, OWN_NAMES):
        if len(kept) != 1:
            cleared(backup)
        backup.write(tree)
        kept.append(keep(backup.source))
        backup.run("--set", "safety.max_delete_percent=100")
    return kept


def restored_at(backup: Backup, number: int, to: Path, wanted: Kept) -> None:
    restore(backup, to, "--at", str(number))
    assert_same(wanted, to)


@pytest.mark.slow
def test_a_source_that_looks_like_a_backup(tmp_path: Path) -> None:
    """A source with names like the backup's own, twins in NFC and NFD, and names of 255 bytes, comes back
    byte for byte from its past.

    Guard: `layout.escaped` in every area; that names are compared and stored as bytes.
    """
    backup = Backup(tmp_path / "one")
    kept = five_runs(backup)
    backup.assert_right()
    assert {NFC, NFD} <= set(backup.names())
    restored_at(backup, 3, tmp_path / "to", kept[2])


@pytest.mark.slow
def test_such_a_source_in_full(tmp_path: Path) -> None:
    """The same with all runs restored, the state rebuilt from the files alone, and nothing left to do.

    Guard: `layout.parse` is the inverse of what names are escaped by.
    """
    backup = Backup(tmp_path / "one")
    for number, wanted in enumerate(five_runs(backup), 1):
        restored_at(backup, number, tmp_path / f"to{number}", wanted)
    backup.assert_all_well()
    (backup.root / ".pipeline" / "state.db").unlink()
    backup.call("rebuild", expect=None)
    backup.call("verify")
    backup.assert_sound()
    restore(backup, tmp_path / "rebuilt")  # of folders, files alone don't tell the times
    assert not difference(snapshot(backup.source), snapshot(tmp_path / "rebuilt"))


DEPTH = 24
STEP = "d" * 200


@contextmanager
def deep_folder(root: Path, make: bool = True) -> Iterator[int]:
    """A handle of a folder whose path is longer than any call takes."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(DEPTH):
        if make:
            make_step(handle)
        below = os.open(STEP, os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)
        os.close(handle)
        handle = below
    try:
        yield handle
    finally:
        os.close(handle)


def make_step(handle: int) -> None:
    try:
        os.mkdir(STEP, dir_fd=handle)
    except FileExistsError:
        return


def write_deep(root: Path, tree: dict[str, str | None]) -> None:
    """Write or (None) remove files in the deep folder."""
    with deep_folder(root) as folder:
        for name, content in tree.items():
            if content is None:
                os.unlink(name, dir_fd=folder)
                continue
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            handle = os.open(name, flags, 0o640, dir_fd=folder)
            os.write(handle, content.encode())
            os.close(handle)


def read_deep(root: Path) -> dict[str, bytes]:
    with deep_folder(root, make=False) as folder:
        content = {}
        for name in os.listdir(folder):
            handle = os.open(name, os.O_RDONLY, dir_fd=folder)
            content[name] = os.read(handle, 1000)
            os.close(handle)
        return content


@pytest.mark.slow
def test_paths_that_no_call_takes(tmp_path: Path) -> None:
    """Files below paths longer than PATH_MAX are changed, deleted, versioned and brought back as any.

    Guard: every step opens one component, relative to its parent's handle (`Folders._descend`,
    `Target.folder`).
    """
    backup = Backup(tmp_path / "one")
    write_deep(backup.source, {"a": "a\n", "same": "a\n", "gone": "gone\n"})
    backup.write({"short": "short\n"})
    backup.run()
    write_deep(backup.source, {"a": "changed\n", "gone": None, "new": "new\n"})
    result = backup.run("--json")
    done = {key: result.summary[key] for key in ("modified", "delete", "backup", "warnings", "errors")}
    assert done == {"modified": 1, "delete": 1, "backup": 1, "warnings": 0, "errors": 0}, result.said
    backup.call("restore", "--to", str(tmp_path / "to"), "--at", "1")
    assert read_deep(tmp_path / "to") == {"a": b"a\n", "same": b"a\n", "gone": b"gone\n"}


@pytest.mark.slow
def test_such_paths_in_everything_else(tmp_path: Path) -> None:
    """The same for `verify`, a foreign file far down, a rebuild, and a duplicate that is promoted there.

    Guard: as above, and for the walks through a backup (`stages.stored_tree`).
    """
    backup = Backup(tmp_path / "one")
    write_deep(backup.source, {"a": "a\n", "z": "a\n"})
    backup.run()
    write_deep(backup.root, {"foreign": "foreign\n"})
    write_deep(backup.source, {"a": None, "foreign": "ours\n"})
    backup.run(expect=3)
    assert b"foreign\n" in {place.read_bytes() for place in (backup.root / ".pipeline/quarantine").iterdir()}
    backup.call("verify")
    (backup.root / ".pipeline" / "state.db").unlink()
    backup.call("rebuild", expect=None)
    backup.call("verify")
    backup.call("restore", "--to", str(tmp_path / "to"))
    assert read_deep(tmp_path / "to") == {"z": b"a\n", "foreign": b"ours\n"}
