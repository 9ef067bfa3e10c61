"""Names that collide with the program's own, are as long as names can be, or aren't text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from harness import Backup
from trees import Folder, Link, Tree, remove

NOT_UTF8 = os.fsdecode(b"caf\xe9.txt")
RESERVED: Tree = {
    "versions": {"a": "1\n", "v1.bak": "2\n", "_escaped": {"b": "3\n"}},
    "_duplicates": "4\n",
    "_deleted": {"a": "5\n", "_escaped": "6\n"},
    ".pipeline": {"state.db": "7\n", "lock": "8\n", "staging": {"x": "9\n"}},
    "_escaped": {"versions": {"a": "10\n"}, "_escaped": {"a": "11\n"}},
    "v1.bak": "12\n",
    "folder": {"v1.bak": "13\n", "v2.pinned": "14\n", "v3.pruned": {"v1.bak": "15\n"}, "versions": "16\n"},
}


def rewritten(tree: Tree, suffix: str) -> Tree:
    """The same names with other contents."""
    return {
        name: what + suffix if isinstance(what, str) else rewritten(what, suffix)
        for name, what in tree.items()
        if isinstance(what, str | dict)
    }


def test_reserved_names_are_escaped(backup: Backup) -> None:
    """A component that would collide with a reserved name at its place becomes `_escaped/X`; no other name
    is changed."""
    backup.write(RESERVED)
    backup.run()
    names = backup.names()
    for expected in (
        "_escaped/versions/a", "_escaped/versions/v1.bak", "_escaped/_duplicates", "_escaped/_deleted/a",
        "_escaped/.pipeline/state.db", "_escaped/_escaped/versions/a", "_escaped/_escaped/_escaped/a",
        "v1.bak", "folder/v1.bak", "folder/versions",
    ):  # fmt: skip
        assert expected in names
    backup.assert_all_well()


def test_reserved_names_with_a_whole_history(backup: Backup) -> None:
    """The mapping is injective in all four places: versions, duplicates and deleted things of reserved names
    never meet the program's own or each other."""
    backup.write({**RESERVED, "keep": "keep\n"})
    backup.run()
    backup.write(rewritten(RESERVED, "changed\n"))
    backup.run()
    assert backup.read("versions/_escaped/v1.bak/v1.bak") == b"12\n"
    assert backup.read("versions/folder/_escaped/v1.bak/v1.bak") == b"13\n"
    backup.assert_sound()
    for name in RESERVED:
        remove(backup.source / name)
    backup.run("--set", "safety.max_delete_percent=100")
    assert backup.read("_deleted/v1.bak") == b"12\nchanged\n"
    backup.assert_sound()
    backup.write(RESERVED)
    backup.run()
    backup.assert_all_well()


def test_a_version_name_below_a_path_that_was_a_file(backup: Backup) -> None:
    """A file `a` that becomes a folder with a `v1.bak` in it never clashes with the version of `a`."""
    backup.write({"a": "a file\n"})
    backup.run()
    backup.write({"a": "a file, changed\n"})
    backup.run()
    remove(backup.source / "a")
    backup.write({"a": {"v1.bak": "below\n", "_escaped": {"v1.bak": "deeper\n"}}})
    backup.run()
    backup.write({"a": {"v1.bak": "below, changed\n", "_escaped": {"v1.bak": "deeper, changed\n"}}})
    backup.run()
    assert backup.read("versions/a/v1.bak") == b"a file\n"
    assert {b"a file, changed\n", b"below\n", b"deeper\n"} <= backup.all_contents()
    backup.assert_all_well()


def test_names_of_255_bytes(backup: Backup) -> None:
    """Names of 255 bytes stay possible, for files, folders and links, in every one of the four places."""
    long_name, long_folder, wide = "f" * 255, "d" * 255, "ü" * 127 + "x"
    backup.write({long_name: "1\n", wide: "2\n", long_folder: {long_name: "1\n", wide: Link(long_name)}})
    backup.run()
    assert f"_duplicates/{long_name}" in backup.names()
    backup.write({long_name: "changed\n", long_folder: {long_name: "changed too\n"}})
    backup.run()
    assert f"versions/{long_name}/v1.bak" in backup.names()
    assert f"versions/{long_folder}/{long_name}/v1.bak" in backup.names()
    remove(backup.source / long_folder)
    backup.run()
    assert f"_deleted/{long_folder}/{long_name}" in backup.names()
    backup.assert_all_well()


@pytest.mark.handles
def test_a_path_of_many_long_folders(backup: Backup) -> None:
    """Paths longer than the system's limit for one call are backed up as any other."""
    deep = backup.source
    handle = os.open(deep, os.O_RDONLY | os.O_DIRECTORY)
    for depth in range(20):
        os.mkdir(f"{depth:0250}", dir_fd=handle)
        below = os.open(f"{depth:0250}", os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)
        os.close(handle)
        handle = below
    file = os.open("bottom", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=handle)
    os.write(file, b"deep down\n")
    os.close(file)
    os.close(handle)
    backup.run()
    path = "/".join(["docs", *(f"{depth:0250}" for depth in range(20)), "bottom"])
    assert backup.entry(path)["size"] == 10
    result = backup.run("--json")
    assert (result.summary["backup"], result.summary["skip"]) == (0, 1)


def test_names_that_are_no_text(backup: Backup) -> None:
    """Names that aren't UTF-8 are stored as they are; the export has them lossy, and exact in `path_b64`."""
    backup.write({NOT_UTF8: "1\n", "link": Link(NOT_UTF8), os.fsdecode(b"\xff\xfe"): {NOT_UTF8: "2\n"}})
    backup.run()
    assert NOT_UTF8 in backup.names()
    lines = {line["path"]: line for line in backup.export()}
    lossy = lines["docs/caf�.txt"]
    assert {"path_b64", "stored_at_b64"} <= lossy.keys()
    assert "target_b64" in lines["docs/link"] and "path_b64" not in lines["docs/link"]
    backup.write({NOT_UTF8: "changed\n"})
    result = backup.run("--json", "--verbose")
    (action,) = (line for line in result.lines if line["type"] == "action")
    assert "path_b64" in action and action["action"] == "MODIFIED"
    backup.assert_all_well()


def test_a_log_line_is_always_one_line(backup: Backup) -> None:
    """Control characters, backslashes and bytes that aren't UTF-8 are written `\\xNN` in the log."""
    backup.write({"a\nb": "1\n", "c\\d": "2\n", NOT_UTF8: "3\n", "tab\t\x7f": "4\n", "grüße": "5\n"})
    result = backup.run()
    assert result.log == [
        "PLANNER → BACKUP: docs/a\\x0ab (new path)",
        "BACKUP: docs/a\\x0ab → a\\x0ab",
        "PLANNER → BACKUP: docs/c\\x5cd (new path)",
        "BACKUP: docs/c\\x5cd → c\\x5cd",
        "PLANNER → BACKUP: docs/caf\\xe9.txt (new path)",
        "BACKUP: docs/caf\\xe9.txt → caf\\xe9.txt",
        "PLANNER → BACKUP: docs/grüße (new path)",
        "BACKUP: docs/grüße → grüße",
        "PLANNER → BACKUP: docs/tab\\x09\\x7f (new path)",
        "BACKUP: docs/tab\\x09\\x7f → tab\\x09\\x7f",
        "Run complete",
    ]
    backup.assert_right()


def test_scan_order_reads_the_slash_as_the_smallest_byte(backup: Backup) -> None:
    """Scan order is depth first, names compared as bytes, a folder's content directly after the folder."""
    backup.write({"a": {"z": "1"}, "a b": "2", "a-": "3", "a.c": {"d": "4"}, "B": "5", "é": "6", "aa": "7"})
    result = backup.run()
    paths = [line.removeprefix("BACKUP: docs/") for line in result.decisions()]
    assert paths == ["B", "a/z", "a b", "a-", "a.c/d", "aa", "é"]
    exported = [line["path"] for line in backup.export() if line["kind"] == "file"]
    assert exported == [f"docs/{path}" for path in paths]


def test_names_for_a_careless_shell(tmp_path: Path) -> None:
    """Odd names are names like any other: leading dashes, blanks, quotes, wildcards."""
    backup = Backup(tmp_path, sources=["-docs"])
    names = ["-rf", "--config", " ", "$(x)", "'", '"', "*", "~", "%s", "{}", "\u202e", "CON", "a:b", "." * 3]
    backup.write({name: f"{number}\n" for number, name in enumerate(names)})
    backup.write({"[dir]": Folder({"-": "dash\n"}, 0o750)})
    backup.run()
    assert len(backup.names()) == len(names) + 1
    backup.assert_right()
