"""`rebuild`: a new state from the files alone. What a backup holds is in its files, so a lost or damaged
state loses nothing but what the command says (promise 1); no version number is used twice."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from edited import edited_state
from harness import NOTHING_DONE, Backup, end_group, exact
from trees import File, Link, Snapshot, change, difference, grow, snapshot, walk, write_tree

STATE = (".pipeline/state.db", ".pipeline/state.db-wal", ".pipeline/state.db-shm")
UNKNOWN_TO_FILES = ("original", "mtime_ns", "mode")


def lose_state(backup: Backup) -> None:
    for name in STATE:
        (backup.root / name).unlink(missing_ok=True)


def assert_nothing_new(backup: Backup) -> None:
    result = backup.run("--json")
    assert {key: result.summary[key] for key in NOTHING_DONE} == NOTHING_DONE, result.said


def stored(backup: Backup) -> dict[str, tuple[int, int, bytes | str]]:
    """Everything that is stored, with its inode, so that a copy in its place would be seen."""
    found: dict[str, tuple[int, int, bytes | str]] = {}
    for name, entry in walk(backup.root, frozenset({".pipeline"})):
        seen = entry.stat(follow_symlinks=False)
        content: bytes | str = os.readlink(entry.path) if entry.is_symlink() else b""
        if entry.is_file(follow_symlinks=False):
            content = Path(entry.path).read_bytes()
        found[name] = (seen.st_ino, seen.st_mtime_ns if not entry.is_dir() else 0, content)
    return found


@pytest.fixture(scope="module")
def full_life(tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """A backup with something in every place: versions, a duplicate, deleted files, links, reserved names."""
    backup = Backup(tmp_path_factory.mktemp("life") / "one")
    backup.configure(retention__max_versions_per_file=2)
    backup.write({"one": "1", "copy": "1", "two": "2", "sub/three": "3", "link": Link("one"), "empty": None})
    backup.write({"versions/v1.bak": "reserved", "_escaped": "name", "gone/deep/file": "gone"})
    backup.write({"odd\nname": "odd", os.fsdecode(b"caf\xe9"): "latin", "none": ""})
    backup.run()
    for number in range(4):
        backup.write({"two": f"2.{number}", "versions/v1.bak": f"reserved {number}"})
        backup.run()
    shutil.rmtree(backup.source / "gone")
    (backup.source / "link").unlink()
    write_tree(backup.source, {"link": Link("two"), "sub/three": "changed"})
    backup.run()
    return backup


@pytest.fixture
def lived(full_life: Backup, tmp_path: Path) -> Backup:
    return full_life.twin(tmp_path / "one")


def test_the_state_comes_back(lived: Backup) -> None:
    """The new state exports what the lost one did; the next run does nothing; no stored file is touched."""
    before, files = lived.export(), stored(lived)
    lose_state(lived)
    result = lived.call("rebuild")
    assert "set-id bits" in result.stdout and "owners" in result.stdout, "what it can't know is said"
    assert stored(lived) == files
    assert without_guesses(lived.export()) == without_guesses(before)
    assert_nothing_new(lived)
    lived.assert_all_well()
    assert lived.call("verify", "--json").summary["status"] == "ok"


def without_guesses(lines: list[dict[str, object]]) -> list[dict[str, object]]:
    """Folders have no times of their own in a backup, and which equal file was the original is a guess."""
    return [
        {key: value for key, value in line.items() if line["kind"] != "folder" or key not in UNKNOWN_TO_FILES}
        for line in lines
        if not (line["kind"] == "folder" and line.get("deleted"))
    ]


def test_no_version_number_is_used_twice(lived: Backup) -> None:
    """Numbers go on behind the highest that was ever given, also where retention has taken that version."""
    lived.configure(retention__max_versions_per_file=0)
    lived.write({"two": "last"})
    lived.run()  # all versions go; the highest leaves a marker
    numbers = {int(name[1:-7]) for name in os.listdir(lived.root / "versions/two") if "pruned" in name}
    assert numbers == {5}
    lose_state(lived)
    lived.call("rebuild")
    lived.configure(retention__max_versions_per_file=10)
    lived.write({"two": "after the rebuild"})
    lived.run()
    assert [version["n"] for version in lived.entry("docs/two")["versions"]] == [6]
    lived.assert_all_well()


def test_a_pinned_version_stays_pinned(backup: Backup) -> None:
    """What looked like bit rot in the source keeps its old version for good, also across a rebuild."""
    place = backup.source / "file"
    backup.write({"file": File(b"right", mtime_ns=10**18)})
    backup.run()
    with edited_state(backup) as connection:
        connection.execute("UPDATE files SET unsettled = 0")  # as if it had been long ago
    found = place.stat()
    rot(place, backup, found)
    assert backup.run(expect=3).decisions() == ["SUSPECT: docs/file"]
    lose_state(backup)
    backup.call("rebuild")
    backup.configure(retention__max_versions_per_file=0)
    place.write_bytes(b"new")
    backup.run()
    assert (backup.root / "versions/file/v1.bak").read_bytes() == b"right"


def rot(place: Path, backup: Backup, found: os.stat_result) -> None:
    """Other bytes, and a state that knows the very stat that the file has now."""
    place.write_bytes(b"wrong")
    os.utime(place, ns=(found.st_mtime_ns, found.st_mtime_ns))
    with edited_state(backup) as connection:
        connection.execute("UPDATE files SET ctime_ns = ? WHERE size = 5", (place.stat().st_ctime_ns,))


@pytest.mark.parametrize("durability", ["full", pytest.param("fast", marks=pytest.mark.slow)])
def test_after_a_long_history(tmp_path: Path, durability: str) -> None:
    """Over a history with all kinds of changes: each version number still leads to its content."""
    backup = Backup(tmp_path, settings={"safety.max_delete_percent": 100, "durability": durability})
    grow(backup.source, 200, seed=5)
    backup.run("--quiet")
    for number in range(3):
        change(backup.source, seed=50 + number, share=0.08)
        backup.run("--quiet")
    before = contents_by_number(backup)
    lose_state(backup)
    backup.call("rebuild", "--quiet")
    assert contents_by_number(backup) == before
    result = backup.run("--json")
    setuid = sum(bool(entry.stat().st_mode & 0o6000) for _, entry in walk(backup.source) if entry.is_file())
    wanted = {**NOTHING_DONE, "metadata": setuid}
    assert {key: result.summary[key] for key in NOTHING_DONE} == wanted, "set-id bits are not in the files"
    backup.assert_all_well()


def contents_by_number(backup: Backup) -> dict[tuple[str, int], str]:
    return {
        (exact(line, "path"), version["n"]): str(version.get("digest") or version.get("target"))
        for line in backup.export()
        for version in line["versions"]
    }


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda state: state.write_bytes(b""),
    "cut": lambda state: os.truncate(state, state.stat().st_size // 2),
    "zeroed": lambda state: state.write_bytes(bytes(state.stat().st_size)),
    "garbage": lambda state: state.write_bytes(random.Random(7).randbytes(50_000)),
    "a page": lambda state: overwrite(state, 8192),
}


def overwrite(state: Path, offset: int) -> None:
    with state.open("r+b") as file:
        file.seek(offset)
        file.write(random.Random(8).randbytes(4000))


COMMANDS = (
    "run", "run --dry-run", "status", "ls", "verify", "restore --to TO", "history file1", "export", "runs",
    "duplicates", "diff 1 1",
)  # fmt: skip


@pytest.fixture
def small(backup: Backup) -> Backup:
    backup.write({f"file{number}": str(number) for number in range(40)})
    backup.run()
    return backup


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_and_kept_aside(small: Backup, damage: str) -> None:
    """A damaged state is refused (exit 1) before anything is touched, and the message names `rebuild`, which
    keeps it aside."""
    DAMAGES[damage](small.root / STATE[0])
    damaged = (small.root / STATE[0]).read_bytes()
    before = snapshot(small.root)
    assert "rebuild" in small.run(expect=1).stderr
    assert not difference(without_lock(before), without_lock(snapshot(small.root)))
    small.call("rebuild")
    aside = [path for path in (small.root / ".pipeline").iterdir() if ".damaged-" in path.name]
    assert [path.read_bytes() for path in aside] == [damaged]
    assert_nothing_new(small)


def test_every_command_tells_damage_at_its_start(small: Backup) -> None:
    """No command works on a damaged state: each exits 1, names `rebuild`, and says or writes nothing
    more."""
    DAMAGES["a page"](small.root / STATE[0])
    before = snapshot(small.root)
    to = small.base / "to"
    for command in COMMANDS:
        result = small.call(*command.replace("TO", str(to)).split(), expect=1)
        assert "rebuild" in result.stderr and not result.stdout, command
    assert not difference(without_lock(before), without_lock(snapshot(small.root)))
    assert not os.path.lexists(to)


def without_lock(seen: Snapshot) -> Snapshot:
    return {name: thing for name, thing in seen.items() if name != ".pipeline/lock"}


def test_a_sound_state_is_left_alone(backup: Backup) -> None:
    backup.write({"file": "x"})
    backup.run()
    before = snapshot(backup.root)
    assert "sound" in backup.call("rebuild", expect=1).stderr
    assert not difference(without_lock(before), without_lock(snapshot(backup.root)))


def test_a_dry_run_writes_nothing(lived: Backup) -> None:
    lose_state(lived)
    before = snapshot(lived.root)
    result = lived.call("rebuild", "--dry-run", "--json")
    actions = [line for line in result.lines if line["type"] == "action"]
    assert {line["action"] for line in actions} == {"REBUILD"}
    assert result.summary["files"] + result.summary["versions"] + result.summary["folders"] == len(actions)
    assert not difference(before, snapshot(lived.root))


def test_what_has_no_place_is_told_and_left_alone(lived: Backup) -> None:
    """Foreign files are named (exit 3) and stay; what a lost state had in staging goes to quarantine,
    because it might be the only copy of something."""
    lose_state(lived)
    write_tree(
        lived.root, {"versions/stray": "x", "_escaped/plain": "y", ".pipeline/staging/1-1-1": "staged"}
    )
    os.mkfifo(lived.root / "fifo")
    result = lived.call("rebuild", expect=3)
    for name in ("versions/stray", "_escaped/plain", "fifo"):
        assert name in result.stderr and os.path.lexists(lived.root / name)
    kept = [path.read_text() for path in (lived.root / ".pipeline/quarantine").iterdir()]
    assert kept == ["staged"]


def test_a_path_that_is_stored_twice(lived: Backup) -> None:
    """The live place counts more than the areas; the other copy is named (exit 3) and left alone."""
    lose_state(lived)
    write_tree(lived.root, {"_duplicates/two": "another", "_deleted/two": "and another"})
    result = lived.call("rebuild", expect=3)
    assert "_duplicates/two" in result.stderr and "_deleted/two" in result.stderr
    assert lived.entry("docs/two")["stored_at"] == "two"
    assert_nothing_new(lived)
    assert (lived.root / "_deleted/two").read_text() == "and another"


def lose_note(backup: Backup) -> None:
    (backup.root / ".pipeline/sources.json").unlink()


@pytest.mark.parametrize("order", ["together", "one after the other"])
def test_several_sources_find_their_places(tmp_path: Path, order: str) -> None:
    """Where each source lies is read off the backup: in folders, or the first one at the root."""
    backup = Backup(tmp_path, sources=["docs", "music"])
    write_tree(tmp_path, {"docs/a/one": "1", "docs/docs/two": "2", "music/song": "la"})
    if order == "one after the other":
        backup.sources = ["docs"]
        backup.write_config()
        backup.run()
        backup.sources = ["docs", "music"]
        backup.write_config()
    backup.run()
    before = backup.names()
    lose_state(backup)
    lose_note(backup)
    backup.call("rebuild")
    assert_nothing_new(backup)
    assert backup.names() == before
    backup.assert_all_well()


def test_a_source_that_is_no_longer_configured_keeps_its_place(tmp_path: Path) -> None:
    """Its files are not taken for another source's, so nothing of it counts as deleted."""
    backup = Backup(tmp_path, sources=["docs", "music"])
    write_tree(tmp_path, {"docs/one": "1", "music/song": "la"})
    backup.run()
    backup.sources = ["docs"]
    backup.write_config()
    lose_state(backup)
    lose_note(backup)
    backup.call("rebuild")
    assert_nothing_new(backup)
    assert backup.entry("music/song")["stored_at"] == "music/song"


def test_sources_that_are_away(tmp_path: Path) -> None:
    """A lost machine is when this is needed: the note says where its sources lay. Without it, nothing is
    guessed that could make the next run move what is stored."""
    backup = Backup(tmp_path)
    backup.write({"docs/file": "a source with one folder of its own name"})
    backup.run()
    before = backup.names()
    lose_state(backup)
    backup.source.rename(tmp_path / "away")
    backup.call("rebuild")
    (tmp_path / "away").rename(backup.source)
    assert_nothing_new(backup)
    assert backup.names() == before
    lose_state(backup)
    lose_note(backup)
    backup.source.rename(tmp_path / "away")
    assert "docs" in backup.call("rebuild", expect=1).stderr
    assert backup.names() == before
    assert not list((backup.root / ".pipeline").glob("*.new*")), "a refused rebuild leaves nothing"


def test_sources_with_reserved_names(tmp_path: Path) -> None:
    """A source may be called like one of the areas; its folder at the top is escaped then."""
    backup = Backup(tmp_path, sources=["versions", "_deleted"])
    write_tree(tmp_path, {"versions/one": "1", "_deleted/two": "2"})
    backup.run()
    write_tree(tmp_path, {"versions/one": "changed"})
    backup.run()
    before = backup.names()
    lose_state(backup)
    lose_note(backup)
    backup.call("rebuild")
    assert_nothing_new(backup)
    assert backup.names() == before


def test_what_was_deleted_comes_back(lived: Backup) -> None:
    """A path of which only `_deleted/` knows is restored by its number, and the way there is said."""
    lose_state(lived)
    lived.call("rebuild")
    to = lived.base / "to"
    result = lived.call("restore", "gone/deep/file", "--to", str(to), expect=2)
    assert "--version 1" in result.stderr
    lived.call("restore", "gone/deep/file", "--to", str(to), "--version", "1")
    assert (to / "gone/deep/file").read_text() == "gone"


@pytest.mark.slow
def test_killed_while_it_rebuilds(tmp_path: Path) -> None:
    """A rebuild that is cut has changed nothing: the state is as lost as before, and the next one works."""
    backup = Backup(tmp_path)
    write_tree(backup.source, {f"folder{number % 20}/file{number}": "x" * number for number in range(3000)})
    backup.run("--quiet")
    lose_state(backup)
    rebuild = backup.start("rebuild", "--json", "--verbose")
    try:
        assert rebuild.stdout is not None
        rebuild.stdout.readline()
        os.killpg(rebuild.pid, signal.SIGKILL)
    finally:
        end_group(rebuild)
        rebuild.communicate()
    assert not (backup.root / STATE[0]).exists()
    backup.run(expect=1)
    backup.call("rebuild", "--quiet")
    assert_nothing_new(backup)
    backup.assert_right()


def test_it_waits_for_nobody(lived: Backup) -> None:
    """Under the lock: while a run holds it, exit 11."""
    import fcntl

    lose_state(lived)
    with (lived.root / ".pipeline/lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lived.call("rebuild", expect=11)
