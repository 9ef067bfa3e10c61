"""Promise 8, contained, on the backup's side: links and foreign things planted where the program writes."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import harness
import images
import pytest
from harness import Backup, Result
from outside import Exact, bound, changed, exactly
from trees import File, remove, snapshot, write_tree

OWN = ".pipeline"
ENOUGH_S = 15.0
"""No call here has much to do: one that takes longer waits for something that never comes."""
slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "TIME_LIMIT_S", ENOUGH_S)


@pytest.fixture
def past(tmp_path: Path) -> Backup:
    """One run is done, and the next one has something to do."""
    backup = Backup(tmp_path / "one")
    backup.write({"a": "a\n", "b": "b\n"})
    backup.run()
    backup.write({"a": "changed\n"})
    return backup


def leave_a_wal(backup: Backup) -> None:
    """A writer of the state that is killed: its WAL stays; whoever reads next makes an index beside it."""
    state = backup.root / OWN / "state.db"
    code = (
        "import os, signal, sqlite3, sys\n"
        "state = sqlite3.connect(sys.argv[1])\n"
        'state.execute("UPDATE runs SET status = status")\n'
        "state.commit()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, state], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    state.with_name("state.db-shm").unlink()


OWN_THINGS = [
    pytest.param("sources.json.new"),
    pytest.param("", marks=slow),
    pytest.param("lock", marks=slow),
    pytest.param("sources.json", marks=slow),
    pytest.param("staging", marks=slow),
    pytest.param("quarantine", marks=slow),
    pytest.param("state.db", marks=slow),
    pytest.param("state.db-wal", marks=slow),
]


@pytest.mark.parametrize("name", OWN_THINGS)
def test_a_link_in_the_place_of_one_of_its_own_things(past: Backup, tmp_path: Path, name: str) -> None:
    """Nothing outside is written, made or given other metadata through a link in the place of `.pipeline` or
    of what lies in it, were it to the very thing that belongs there; every call ends with a message, and
    without the link all goes on.

    Guards: `_own_folder`'s look that follows nothing, `_refuse_links`, the lock's O_NOFOLLOW, and that the
    note is drafted under a name that is made exclusively.
    """
    leave_a_wal(past)
    own, outside = past.root / OWN, tmp_path / "outside"
    write_tree(outside, {"precious": File(b"precious\n", 0o644)})
    at, to = own / name, outside / (name or "own")
    if name == "sources.json.new":
        to, _ = outside / "precious", (own / "sources.json").unlink()
    else:
        at.rename(to)
    at.symlink_to(to)
    before = exactly(outside)
    for arguments in (["run"], ["run", "--dry-run"], ["status"]):
        result = past.call(*arguments, expect=None)
        assert result.exit in (0, 1, 3), result.said
        assert not changed(before, exactly(outside)), f"{arguments}: {changed(before, exactly(outside))}"
    if at.is_symlink():
        at.unlink()
        if to.name != "precious":
            to.rename(at)
    past.run()
    past.assert_all_well()


@pytest.mark.parametrize(
    "name",
    [
        "sources.json",
        pytest.param("sources.json.new", marks=slow),
        pytest.param("lock", marks=slow),
        pytest.param("state.db", marks=slow),
        pytest.param("state.db-wal", marks=slow),
    ],
)
def test_a_fifo_in_the_place_of_one_of_its_own_things(past: Backup, name: str) -> None:
    """No call waits for ever, or ends in a traceback, because a fifo stands where a file of the program's own
    belongs.

    Guards: `_refuse_foreign` and `_refuse_links` want regular files; the lock and the note are opened without
    waiting.
    """
    place = past.root / OWN / name
    place.unlink(missing_ok=True)
    if name == "sources.json.new":
        (past.root / OWN / "sources.json").unlink()
    os.mkfifo(place)
    for arguments in (["run", "--dry-run"], ["run"]):
        result = past.call(*arguments, expect=None)
        assert result.exit in (0, 1, 3), result.said


@pytest.mark.parametrize("name", ["lock", pytest.param("sources.json.new", marks=slow)])
def test_a_hard_link_in_the_place_of_one_of_its_own_things(past: Backup, tmp_path: Path, name: str) -> None:
    """A file outside that has a second name where the program keeps something of its own keeps its bytes,
    mode and time.

    Guards: the lock's text is only written to a file that has no other name; the note is drafted under a name
    that is made exclusively.
    """
    outside = tmp_path / "outside"
    write_tree(outside, {"precious": File(b"precious\n", 0o644)})
    place = past.root / OWN / name
    place.unlink(missing_ok=True)
    if name == "sources.json.new":
        (past.root / OWN / "sources.json").unlink()
    os.link(outside / "precious", place)
    before = exactly(outside, linked=True)
    result = past.run(expect=None)
    assert result.exit in (0, 1, 3), result.said
    assert not changed(before, exactly(outside, linked=True))


def test_stored_files_that_have_names_outside(past: Backup, tmp_path: Path) -> None:
    """Stored files that also have names outside of the backup (as `cp -al` gives them) are never written
    into: those keep their bytes, mode, owner and time, whatever becomes of the stored ones.

    Guards: a stored file is replaced by a rename (`Place`), and `_describe` gives other metadata only to a
    file that has no name beside its own.
    """
    past.write({"meta": File(b"meta\n", 0o600), "gone": "gone\n", "copy": "b\n", "other": "other\n"})
    past.run()
    outside = tmp_path / "outside"
    for name in past.names():
        (outside / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(past.root / name, outside / name)
    before = exactly(outside, linked=True)
    (past.source / "meta").chmod(0o644)
    os.utime(past.source / "copy", ns=(1, 1))
    past.write({"a": "changed again\n", "other": "changed\n"})
    remove(past.source / "gone")
    remove(past.source / "b")  # its duplicate is promoted
    past.run("--set", "retention.max_versions_per_file=1", expect=None)
    after = exactly(outside, linked=True)
    assert not changed(before, after), {name: after.get(name) for name in changed(before, after)}
    past.run(expect=None)
    past.assert_all_well()


def make_socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(place.parent)  # its address may be longer than a socket's can be
        server.bind(place.name)


def plant_foreign_things(root: Path) -> None:
    """One of each kind, each where something is to be stored, and nothing that the program made."""
    before = Path.cwd()
    try:
        for folder in ("versions/b", "_deleted", "_duplicates"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        os.mkfifo(root / "new")
        write_tree(root, {"versions/a/v1.bak": {"deep": {"treasure": "treasure\n"}}})
        write_tree(root, {"_escaped": "in the way of a folder\n", "empty": None})
        make_socket(root / "versions/b/v1.bak")
        os.mknod(root / "_deleted/c", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        remove(root / "_duplicates/copy")  # ours, and now somebody's own
        write_tree(root, {"_duplicates/copy": "somebody's own\n"})
        (root / "dangling").symlink_to("nowhere")
    finally:
        os.chdir(before)


def test_foreign_things_of_every_kind_are_moved_aside(tmp_path: Path) -> None:
    """Whatever stands where something is to be stored, fifo, socket, device, link, folder with content, a
    file in a folder's or a duplicate's place, is moved to quarantine as it is and reported, exit 3.

    Guards: `rename_new` never replaces, and `_place_where_something_stands` moves aside before it places.
    """
    images.need()
    backup = Backup(tmp_path / "one")
    backup.write({name: f"{name}\n" for name in "abc"})
    backup.write({"copy": "c\n", "keep": "keep\n"})
    backup.run()
    plant_foreign_things(backup.root)
    backup.write({"a": "changed\n", "b": "changed too\n", "new": "new\n", "versions": {"x": "x\n"}})
    backup.write({"dangling": "no link\n", "empty": "a file\n"})
    remove(backup.source / "c")
    result = backup.run(expect=3)
    moved = snapshot(backup.root / OWN / "quarantine")
    kinds = sorted(seen.kind for name, seen in moved.items() if "/" not in name)
    assert kinds == ["file", "file", "folder", "folder", "link", "special", "special", "special"], moved
    assert {b"treasure\n", b"in the way of a folder\n", b"somebody's own\n"} <= backup.all_contents()
    assert result.stderr.count(f"{OWN}/quarantine/") == len(kinds), result.stderr
    backup.run(expect=None)
    backup.assert_all_well()


@slow
@pytest.mark.parametrize("what", ["fifo", "folder"])
def test_what_is_planted_in_staging(past: Backup, what: str) -> None:
    """Something in `staging/` that no run has made doesn't keep runs from ending.

    Guard: `Staging.sweep` takes away or leaves whatever it finds.
    """
    place = past.root / OWN / "staging" / "2-1-1"
    os.mkfifo(place) if what == "fifo" else write_tree(place, {"treasure": "treasure\n"})
    result = past.run(expect=None)
    assert result.exit in (0, 3), result.said
    past.assert_right()


def logged(result: Result, folder: Path, before: dict[str, Exact]) -> bool:
    """Whether a run has written its log there, and nothing else."""
    news = [name for name in changed(before, exactly(folder)) if name != "."]
    return len(news) == 1 and news[0].startswith("run-") and bool(result.log)


def plant_at_coming_logs(folder: Path, to: str, run: int) -> None:
    """Links at every name that the log of a run could get in the next minutes."""
    for second in range(-5, 120):
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + second))
        (folder / f"run-{moment}-{run}.log").symlink_to(to)


@slow
def test_a_log_folder_that_is_a_link(past: Backup, tmp_path: Path) -> None:
    """A log folder that is a link is its target: a run makes one new file there, touches no other and follows
    no link, be it at its log's very name; one that leads into the backup is refused (exit 2), and logs that
    lie in a source are not backed up.

    Guards: O_EXCL in `runlog._create`, `check_places`' comparison by identity, and `sources.excluded`.
    """
    elsewhere, inside = tmp_path / "elsewhere", past.source / "logs"
    write_tree(elsewhere, {"precious": "precious\n"})
    plant_at_coming_logs(elsewhere, "precious", run=2)
    before = exactly(elsewhere)
    for number, target in enumerate((elsewhere, inside)):
        target.mkdir(exist_ok=True)
        past.logs = past.base / f"link{number}"
        past.logs.symlink_to(target)
        past.configure(log_dir=past.logs.name)
        result = past.run()
        assert number or logged(result, elsewhere, before)
    assert not [path for path in past.entries() if path.startswith("docs/logs")]
    (past.base / "into").symlink_to(past.root / "versions")
    past.configure(log_dir="into")
    assert "log_dir" in past.run(expect=2).stderr


@slow
def test_a_link_at_the_draft_of_the_verify_position(past: Backup, tmp_path: Path) -> None:
    """No link in the log folder, be it at the name that this very process will use, leads a write outside.

    Guard: the note of a partial verification is drafted under a name that is made exclusively.
    """
    past.run()
    write_tree(tmp_path / "outside", {"precious": "precious\n"})
    before = exactly(tmp_path / "outside")
    plant = f'ln -s {tmp_path}/outside/precious {past.logs}/verify-position.json.$$; exec "$@"'
    past.call("verify", "--sample", "50%", under=["sh", "-c", plant, "sh"], expect=None)
    assert not changed(before, exactly(tmp_path / "outside"))


@pytest.mark.parametrize("by", ["link", pytest.param("bind mount", marks=slow)])
def test_a_source_inside_the_backup_root(past: Backup, by: str) -> None:
    """A source that lies inside the backup root is refused (exit 2), by whatever way it is reached, and
    nothing is touched.

    Guard: `check_places`.
    """
    images.need("mount")
    write_tree(past.root, {"sub": {"deep": {"x": "x\n"}}})
    before, other = past.tree(), past.base / "other"
    past.sources = ["docs", "other"]
    past.write_config()
    if by == "link":
        other.symlink_to(past.root / "sub")
        past.run(expect=2)
    else:
        with bound(past.root / "sub", other):
            past.run(expect=2)
    assert past.tree() == before


@slow
@pytest.mark.parametrize("by", ["link", "bind mount"])
def test_a_backup_root_inside_the_source(tmp_path: Path, by: str) -> None:
    """A backup that lies inside its source never backs itself up, by whatever way its root is reached.

    Guard: `_SourceWalk._enter`'s look at `excluded`, by identity.
    """
    images.need("mount")
    backup = Backup(tmp_path / "one")
    backup.write({"a": "a\n", "inner": {"backup": None}})
    if by == "link":
        backup.root.symlink_to(backup.source / "inner" / "backup")
        never_backs_itself_up(backup)
    else:
        with bound(backup.source / "inner" / "backup", backup.root):
            never_backs_itself_up(backup)


@slow
@pytest.mark.parametrize("part", ["", "versions"])
def test_a_backup_root_mounted_inside_the_source(past: Backup, part: str) -> None:
    """A bind mount of the backup root, or of a part of it, inside the source is never backed up into itself.

    Guard: `_SourceWalk._enter`'s look at `excluded`, by identity.
    """
    images.need("mount")
    past.run()
    with bound(past.root / part, past.source / "inner"):
        never_backs_itself_up(past)


def never_backs_itself_up(backup: Backup) -> None:
    for number in range(3):
        backup.write({"a": f"{number}\n"})
        backup.run()
    own = [path for path in backup.entries() if path.startswith(("docs/inner/backup", "docs/inner/"))]
    assert not own, own
    assert backup.read("a") == b"2\n"


@slow
def test_the_state_is_no_hard_link(past: Backup, tmp_path: Path) -> None:
    """A state that has a second name outside (a copy of the backup made of hard links) is not written into.

    Guard: `_refuse_links` looks at the number of names.
    """
    twin = tmp_path / "twin.db"
    os.link(past.root / OWN / "state.db", twin)
    before = twin.read_bytes()
    result = past.run(expect=None)
    assert result.exit in (0, 1, 3)
    assert twin.read_bytes() == before
    with sqlite3.connect(f"file:{twin}?mode=ro", uri=True) as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
