"""`restore` and its target: what may stand there already, what is replaced, what is left alone, and what it
tells while it does so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from harness import Backup, digest_of
from restored import assert_same, keep, of_type, restore
from trees import EPOCH_NS, File, Folder, Link, Tree, difference, remove, snapshot, write_tree

TREE: Tree = {
    "a": File(b"a\n", 0o640, EPOCH_NS),
    "folder": {"b": File(b"b\n", 0o644, EPOCH_NS), "link": Link("b"), "nothing": None},
    "large": File(b"x" * (1 << 20), 0o644, EPOCH_NS),
    "link": Link("a"),
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """A backup of TREE that tests only look at."""
    backup = Backup(tmp_path_factory.mktemp("stored"))
    backup.write(TREE)
    backup.run()
    return backup


def test_a_folder_that_is_not_empty(stored: Backup, tmp_path: Path) -> None:
    """Without --overwrite: exit 1, it says how to allow it, and nothing is touched, not even a time."""
    write_tree(tmp_path / "to", {"mine": "mine\n"})
    before = keep(tmp_path / "to")
    result = restore(stored, tmp_path / "to", expect=1)
    assert "--overwrite" in result.stderr
    assert_same(before, tmp_path / "to")


def test_an_empty_folder_and_a_new_one_deep_down(stored: Backup, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "new" / "deep" / "down"):
        restore(stored, folder)
        assert_same(keep(stored.source), folder)


def test_a_link_to_a_folder(stored: Backup, tmp_path: Path) -> None:
    """The folder that is named may be a link: it is resolved once, at the start."""
    (tmp_path / "real").mkdir()
    (tmp_path / "to").symlink_to("real")
    restore(stored, tmp_path / "to")
    assert (tmp_path / "to").is_symlink()
    assert_same(keep(stored.source), tmp_path / "real")


def test_what_is_no_folder(stored: Backup, tmp_path: Path) -> None:
    """A file as the target: exit 1 and one clean line."""
    (tmp_path / "file").write_text("mine\n")
    result = restore(stored, tmp_path / "file", "--overwrite", "always", expect=1)
    assert str(tmp_path / "file") in result.stderr
    assert (tmp_path / "file").read_text() == "mine\n"


@pytest.mark.parametrize(
    "where", ["", "new", "folder", ".pipeline/staging/x", "_deleted", "LINK", "LINK/new"]
)
def test_never_into_the_backup(stored: Backup, tmp_path: Path, where: str) -> None:
    """A target inside the backup, also by way of a link: exit 2, nothing is made there."""
    before = snapshot(stored.root, folder_times=True)
    (tmp_path / "link").symlink_to(stored.root)
    inside = tmp_path / where.replace("LINK", "link") if where.startswith("LINK") else stored.root / where
    result = restore(stored, inside, "--overwrite", "always", expect=2)
    assert "inside the backup" in result.stderr
    assert not difference(before, snapshot(stored.root, folder_times=True))


@pytest.mark.parametrize("overwrite", ["if-different", "always"])
def test_never_over_the_backup_itself(tmp_path: Path, overwrite: str) -> None:
    """A target in which the backup lies: what would go into the backup is refused by name, the rest comes."""
    backup = Backup(tmp_path / "one")
    backup.write({"backup": {"a": "not the backup's own\n", ".pipeline": {"lock": "x\n"}}, "z": "z\n"})
    backup.run()
    before = snapshot(backup.root, folder_times=True)
    result = restore(backup, backup.base, "--overwrite", overwrite, "--json", expect=3)
    assert {"docs/backup/a", "docs/backup/.pipeline/lock"} <= of_type(result.lines, "error").keys()
    assert not difference(before, snapshot(backup.root, folder_times=True))
    assert (backup.base / "z").read_text() == "z\n"


def spoil(to: Path) -> None:
    """One of each kind of difference from TREE."""
    (to / "a").write_text("other\n")
    (to / "folder" / "b").chmod(0o600)
    remove(to / "folder" / "link")
    (to / "folder" / "link").symlink_to("elsewhere")
    (to / "folder" / "extra").write_text("not in the backup\n")
    (to / "folder").chmod(0o700)


def test_overwriting_what_differs(stored: Backup, tmp_path: Path) -> None:
    """`if-different` leaves what is equal untouched (the same inodes), replaces what isn't, by content, link,
    mode, time and owner, and never removes what the backup doesn't have."""
    to = tmp_path / "to"
    restore(stored, to)
    untouched = {name: (to / name).lstat().st_ino for name in ("large", "link")}
    spoil(to)
    result = restore(stored, to, "--overwrite", "if-different", "--json", "--verbose")
    actions = {path: line["action"] for path, line in of_type(result.lines, "action").items()}
    assert actions == {
        "docs/a": "RESTORE", "docs/folder/b": "RESTORE", "docs/folder/link": "RESTORE",
        "docs/large": "SKIP", "docs/link": "SKIP",
    }  # fmt: skip
    assert {name: (to / name).lstat().st_ino for name in untouched} == untouched
    assert (to / "folder/extra").read_text() == "not in the backup\n"
    remove(to / "folder/extra")
    wanted = keep(stored.source)
    os.utime(to / "folder", ns=(0, wanted.seen["folder"].mtime_ns))  # type: ignore[attr-defined]
    assert_same(wanted, to)
    assert (result.summary["already_there"], result.summary["files"], result.summary["links"]) == (2, 2, 1)


def test_overwriting_always(stored: Backup, tmp_path: Path) -> None:
    """`always` replaces everything, and ends with the same tree."""
    to = tmp_path / "to"
    restore(stored, to)
    before = (to / "large").stat().st_ino
    spoil(to)
    result = restore(stored, to, "--overwrite", "always", "--json")
    assert (to / "large").stat().st_ino != before
    assert (result.summary["already_there"], result.summary["files"], result.summary["links"]) == (0, 3, 2)
    remove(to / "folder/extra")
    assert not difference(snapshot(stored.source), snapshot(to))


@pytest.mark.parametrize("overwrite", ["if-different", "always"])
def test_a_hard_link_is_replaced_and_never_written_into(
    stored: Backup, tmp_path: Path, overwrite: str
) -> None:
    """Where a name is a second name of a file elsewhere, that file keeps its content, mode and time."""
    outside = tmp_path / "outside"
    write_tree(outside, {"a": "precious\n", "large": "precious too\n"})
    before = snapshot(outside, folder_times=True)
    (tmp_path / "to").mkdir()
    for name in ("a", "large"):
        os.link(outside / name, tmp_path / "to" / name)
    restore(stored, tmp_path / "to", "--overwrite", overwrite)
    assert not difference(before, snapshot(outside, folder_times=True))
    assert_same(keep(stored.source), tmp_path / "to")


@pytest.mark.parametrize("overwrite", ["if-different", "always"])
def test_a_folder_in_the_place_of_a_file(stored: Backup, tmp_path: Path, overwrite: str) -> None:
    """An empty folder makes room for a file or link; one with something in it stays and is named (exit 3);
    all else comes. A file in the place of a folder makes room."""
    to = tmp_path / "to"
    write_tree(to, {"a": {"mine": "mine\n"}, "link": {}, "large": None, "folder": "a file\n"})
    result = restore(stored, to, "--overwrite", overwrite, "--json", expect=3)
    assert of_type(result.lines, "error").keys() == {"docs/a"}
    assert (to / "a/mine").read_text() == "mine\n"
    shutil.rmtree(to / "a")
    restore(stored, to, "--overwrite", overwrite)
    assert not difference(snapshot(stored.source, folder_times=True), snapshot(to, folder_times=True))


def test_a_dry_run_writes_nothing(stored: Backup, tmp_path: Path) -> None:
    """It tells each path, with where its content lies; neither the target nor the backup is touched."""
    before = snapshot(stored.base, folder_times=True)
    result = restore(stored, tmp_path / "to", "--dry-run", "--json")
    assert not (tmp_path / "to").exists()
    actions = of_type(result.lines, "action")
    assert {path: (line["action"], line["stored_at"]) for path, line in actions.items()} == {
        "docs/a": ("RESTORE", "a"), "docs/folder/b": ("RESTORE", "folder/b"),
        "docs/folder/link": ("RESTORE", "folder/link"), "docs/large": ("RESTORE", "large"),
        "docs/link": ("RESTORE", "link"),
    }  # fmt: skip
    plain = restore(stored, tmp_path / "to", "--dry-run")
    assert "docs/folder/b" in plain.stdout and "nothing was written" in plain.stdout
    assert not (tmp_path / "to").exists()
    assert not difference(before, snapshot(stored.base, folder_times=True))


def test_a_dry_run_over_something(stored: Backup, tmp_path: Path) -> None:
    """With --overwrite if-different it tells what is there already; nothing in the target changes."""
    to = tmp_path / "to"
    restore(stored, to)
    spoil(to)
    before = keep(to)
    lines = restore(stored, to, "--dry-run", "--overwrite", "if-different", "--json").lines
    actions = {path: line["action"] for path, line in of_type(lines, "action").items()}
    assert actions["docs/large"] == actions["docs/link"] == "SKIP"
    assert actions["docs/a"] == actions["docs/folder/b"] == "RESTORE"
    assert_same(before, to)
    restore(stored, to, "--dry-run", expect=1)


def test_contents_that_retention_took(tmp_path: Path) -> None:
    """A content that is gone is named with its version and the run that took it (exit 3); all else comes."""
    backup = Backup(tmp_path / "one", settings={"retention.max_versions_per_file": 1})
    for number in range(4):
        backup.write({"a": f"{number}\n", "b": "b\n", "folder": {"c": "c\n"}})
        backup.run()
    result = restore(backup, tmp_path / "to", "--at", "1", "--json", expect=3)
    (gone,) = of_type(result.lines, "error").values()
    assert gone["path"] == "docs/a"
    assert "version 1" in gone["cause"] and "retention" in gone["cause"] and "run 3" in gone["cause"]
    assert set(snapshot(tmp_path / "to")) == {"b", "folder", "folder/c"}
    assert (result.summary["status"], result.summary["errors"]) == ("warnings", 1)
    dry = restore(backup, tmp_path / "dry", "--at", "1", "--dry-run", "--json", expect=3)
    assert of_type(dry.lines, "error").keys() == {"docs/a"}
    restore(backup, tmp_path / "one", "a", "--version", "1", "--overwrite", "always", expect=3)
    restore(backup, tmp_path / "three", "a", "--version", "3")
    assert (tmp_path / "three/a").read_text() == "2\n"


def test_only_what_was_stored_gets_a_name(tmp_path: Path) -> None:
    """A stored file whose bytes have changed, or that is gone, is named and not restored; all else comes. The
    sizes are around that of the reading buffer, where small files end and large ones begin."""
    backup = Backup(tmp_path / "one")
    counts = (1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1)
    sizes = {f"{folder}{size}": size for folder in ("", "folder/") for size in counts}
    backup.write({name: os.urandom(size) for name, size in sizes.items()} | {"gone": "", "good": "good\n"})
    backup.run()
    for name, size in sizes.items():
        with (backup.root / name).open("r+b") as stored:
            last = os.pread(stored.fileno(), 1, size - 1)
            os.pwrite(stored.fileno(), bytes([last[0] ^ 1]), size - 1)
    (backup.root / "gone").unlink()
    result = restore(backup, tmp_path / "to", "--json", expect=3)
    errors = of_type(result.lines, "error")
    assert errors.keys() == {*(f"docs/{name}" for name in sizes), "docs/gone"}
    assert "missing" in errors["docs/gone"]["cause"]
    assert all("rotten" in line["cause"] for path, line in errors.items() if path != "docs/gone")
    assert set(snapshot(tmp_path / "to")) == {"folder", "good"}


def test_what_stands_in_for_a_stored_file_is_never_followed(tmp_path: Path) -> None:
    """A link, a folder or a pipe in the place of a stored file: refused, whatever the link leads to."""
    backup = Backup(tmp_path / "one")
    backup.write({"a": "same\n", "b": "b\n", "c": "c\n", "folder": {"d": "d\n"}, "good": "good\n"})
    backup.run()
    write_tree(tmp_path / "elsewhere", {"a": "same\n", "folder": {"d": "d\n"}})
    for name in ("a", "b", "c", "folder"):
        remove(backup.root / name)
    (backup.root / "a").symlink_to(tmp_path / "elsewhere/a")
    (backup.root / "b").mkdir()
    os.mkfifo(backup.root / "c")
    (backup.root / "folder").symlink_to(tmp_path / "elsewhere/folder")
    result = restore(backup, tmp_path / "to", "--json", expect=3)
    assert of_type(result.lines, "error").keys() == {"docs/a", "docs/b", "docs/c", "docs/folder/d"}
    assert set(snapshot(tmp_path / "to")) == {"folder", "good"}


def test_what_json_tells(stored: Backup, tmp_path: Path) -> None:
    """Without --verbose only the summary and what went wrong; figures of what was brought back."""
    result = restore(stored, tmp_path / "to", "--json")
    assert {line["type"] for line in result.lines} <= {"status", "summary"}
    summary = {key: value for key, value in result.summary.items() if key != "seconds"}
    assert summary == {
        "type": "summary", "run": None, "status": "ok", "files": 3, "links": 2, "already_there": 0,
        "folders": 3, "specials": 0, "specials_restored": 0, "warnings": 0, "errors": 0,
        "bytes_read": 4 + (1 << 20), "bytes_written": 4 + (1 << 20),
    }  # fmt: skip


@pytest.mark.parametrize("algorithm", ["sha256", "xxh3_128"])
def test_other_hashes(tmp_path: Path, algorithm: str) -> None:
    """The backup's own hash checks what is restored, whatever the configuration says by now."""
    backup = Backup(tmp_path / "one", settings={"hash_algorithm": algorithm})
    backup.write(TREE)
    backup.run()
    assert backup.entry("docs/a")["digest"] == digest_of(algorithm, b"a\n")
    backup.configure(hash_algorithm="blake3")
    restore(backup, tmp_path / "to")
    assert_same(keep(backup.source), tmp_path / "to")


def test_a_source_below_a_closed_folder(tmp_path: Path) -> None:
    """Over a target in which folders are closed already: as root they are opened, and closed again."""
    backup = Backup(tmp_path / "one")
    backup.write({"closed": Folder({"a": "a\n"}, 0o500)})
    backup.run()
    restore(backup, tmp_path / "to")
    result = restore(backup, tmp_path / "to", "--overwrite", "always", "--json", expect=None)
    if os.geteuid() == 0:
        assert result.exit == 0
        assert_same(keep(backup.source), tmp_path / "to")
    else:
        assert of_type(result.lines, "error").keys() == {"docs/closed/a"}
    for folder in (backup.source, tmp_path / "to"):
        (folder / "closed").chmod(0o700)


def test_many_folders_between_the_files_of_one(tmp_path: Path) -> None:
    """A worker keeps few folders open; those that it opens in between never close the one that it is at."""
    backup = Backup(tmp_path)
    folders: Tree = {f"a{number:02}": None for number in range(40)}
    files: Tree = {f"a{number:02}.file": f"{number}" for number in range(40)}
    write_tree(backup.source, {"inside": {**folders, **files}})
    backup.run()
    restore(backup, tmp_path / "to")
    assert_same(keep(backup.source), tmp_path / "to")
