"""What a run needs runs out: space, names, handles, the size of a file, a disk that can be written.

Promise 1: a full disk or a broken one loses nothing that was committed. Promise 7: the run says what stopped
it, and exits with 1; a source that can't be read is reported, exit 3. Each test names the guard without which
it fails.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest
from at_work import held_up
from harness import Backup, difference, unlike
from images import Disk, mounted, need
from injected import Call, calls_of, failing, tracing
from stopped import (
    CONTENTS,
    assert_goes_on,
    assert_stopped,
    break_ext4,
    change_all,
    change_everywhere,
    deep_and_wide,
    enlarge,
    failing_at,
    give_history,
    large,
    on_a_small_disk,
    use_up_inodes,
)
from trees import Tree, remove, write_tree

NO_SPACE = ("No space left", "disk is full")
EMPTY_WITH_LONG_NAMES: Tree = {f"{number:05} {'x' * 240}": "" for number in range(5000)}


# -- no space ---------------------------------------------------------------------------------------------


def test_a_full_disk_while_something_is_missing(tmp_path: Path) -> None:
    """The disk is full while the list of what is missing in the source is still to be written: exit 1 and
    the cause, every older content in place, and the next run completes (promises 1, 7).

    Guard: `_Run._give_back_space`, and `PathSpool.close`, which may not fail over what nobody needs any more.
    """
    need("mount")
    with on_a_small_disk(tmp_path / "it", "2m") as backup:
        give_history(backup)
        remove(backup.source / "copy of a")
        backup.write(large(8))
        assert_stopped(backup, backup.run("--quiet", expect=None), NO_SPACE)
        enlarge(backup)
        assert_goes_on(backup)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["new files", "changed files", "one large file"])
def test_no_space_for_data(tmp_path: Path, kind: str) -> None:
    """Space for data runs out in mid-run, with a history in the backup: all of it stays (promise 1).

    Guard: `StagedCopies` turns what staging can't take into the end of the run, not into a problem of the
    file.
    """
    need("mount")
    with on_a_small_disk(tmp_path / "it", "3m") as backup:
        give_history(backup)
        if kind == "changed files":
            backup.write(large(2))
            backup.run()
        if kind == "one large file":
            backup.write({"large": os.urandom(8_000_000)})
        else:
            backup.write(large(12))
        backup.write({"changes": "three\n"})
        assert_stopped(backup, backup.run("--quiet", expect=None), NO_SPACE)
        assert_stopped(backup, backup.run("--quiet", expect=None), NO_SPACE)
        enlarge(backup)
        assert_goes_on(backup)


@pytest.mark.slow
@pytest.mark.parametrize("left", [3, 5, 12])
def test_no_inodes_for_folders_and_names(tmp_path: Path, left: int) -> None:
    """No inode is left for a name in staging, for a folder, or for SQLite's files: as with space (promise 1).

    Guard: `StagedCopies`, and `Journal.close_group`, which works within `backup_side_errors`.
    """
    need("mount")
    with on_a_small_disk(tmp_path / "it", "16m") as backup:
        give_history(backup)
        use_up_inodes(backup, left)
        backup.write({f"folder{number}": {"file": "x\n"} for number in range(20)})
        backup.write({"changes": "three\n"})
        assert_stopped(backup, backup.run("--quiet", expect=None), (*NO_SPACE, "unable to open database"))
        enlarge(backup)
        assert_goes_on(backup)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["1m", "3m"])
def test_no_space_for_the_state(tmp_path: Path, size: str) -> None:
    """Files without a byte, but with long names: it is the state that finds no space (promise 1).

    Guard: `translated_errors` around all that `open_backup` does.
    """
    need("mount")
    with on_a_small_disk(tmp_path / "it", size) as backup:
        give_history(backup)
        backup.write(EMPTY_WITH_LONG_NAMES)
        causes = (*NO_SPACE, "can't use state.db: disk I/O error")
        assert_stopped(backup, backup.run("--quiet", expect=None), causes)
        enlarge(backup)
        assert_goes_on(backup)


@pytest.mark.slow
def test_the_log_tells_what_ended_the_run(tmp_path: Path) -> None:
    """A run that fails because its state finds no space says so in its log, too, not only to a person
    (promise 7).

    Guard: `_Run._tell_failure` tells the cause before the log is closed, whatever raised it.
    """
    need("mount")
    with on_a_small_disk(tmp_path / "it", "3m") as backup:
        give_history(backup)
        backup.write(EMPTY_WITH_LONG_NAMES)
        result = backup.run("--quiet", expect=1)
        assert result.log[-1] == "Run failed"
        assert any("state.db" in line or "space" in line for line in result.log), result.log[-3:]


# -- limits -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a file", "the state"])
def test_a_limit_on_the_size_of_files(tmp_path: Path, what: str) -> None:
    """More than RLIMIT_FSIZE allows: exit 1 and a cause; no signal kills anything silently (promises 1, 7).

    Guard: `StagedCopies`; for the state `translated_errors`.
    """
    need("prlimit")
    backup = Backup(tmp_path / "it")
    give_history(backup)
    backup.write({"changes": "three\n"})
    if what == "a file":
        backup.write({"large": os.urandom(3_000_000)})
        limit, causes = 1_000_000, ("File too large",)
    else:
        backup.write({f"{number:04} {'x' * 240}": "" for number in range(1000)})
        limit, causes = 200_000, ("can't use state.db",)
    result = backup.run("--quiet", expect=None, under=["prlimit", f"--fsize={limit}"])
    assert_stopped(backup, result, causes)
    assert_goes_on(backup)


@pytest.mark.slow
def test_few_handles(tmp_path: Path) -> None:
    """With 64 handles for each process, a deep and wide tree in all four areas becomes the same backup as
    without a limit (promises 4, 6).

    Guard: `Folders._remember` closes the oldest handle when there are `CAPACITY` of them.
    """
    need("prlimit")
    source = tmp_path / "docs"
    write_tree(source, deep_and_wide())
    bases = (tmp_path / "free", tmp_path / "limited")
    free, limited = (Backup(base, sources=[str(source)], make_sources=False) for base in bases)
    for step in range(3):
        if step:
            change_everywhere(source)
        free.run("--quiet")
        limited.run("--quiet", under=["prlimit", "--nofile=64:64"])
    assert not unlike(free.export_bytes(), limited.export_bytes())
    assert not difference(free.tree(), limited.tree())
    areas = {name.partition("/")[0] for name in limited.names()}
    assert {"_duplicates", "_deleted", "versions", "level00"} <= areas
    limited.assert_right()


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "handles"), [(8, 64), (32, 64), (24, 140)])
def test_more_workers_than_handles(tmp_path: Path, workers: int, handles: int) -> None:
    """More workers than there are handles for: the run completes with fewer.

    Guard: `_affordable`.
    """
    need("prlimit")
    backup = Backup(tmp_path / "it", settings={"workers.count": workers})
    give_history(backup)
    backup.write({"changes": "three\n"})
    backup.run("--quiet", under=["prlimit", f"--nofile={handles}:{handles}"])
    assert_goes_on(backup)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("run",), ("restore", "--to", "TO"), ("verify",), ("prune",)])
def test_hardly_any_handles(tmp_path: Path, words: tuple[str, ...]) -> None:
    """However few handles there are, a command does its work or says in words why not, and the next one does
    it (promise 7). `Backup.call` refuses tracebacks.

    Guard: `digest.hasher`, and whatever else opens something late, raises a PipelineError.
    """
    need("prlimit")
    backup = Backup(tmp_path / "it")
    give_history(backup)
    for handles in range(6, 36):
        tried = [word.replace("TO", str(tmp_path / f"to{handles}")) for word in words]
        result = backup.call(*tried, expect=None, under=["prlimit", f"--nofile={handles}:{handles}"])
        assert result.exit == 0 or "error: " in result.stderr.lower(), f"{handles}: {result.said}"
    assert result.exit == 0, result.said
    backup.assert_all_well()


# -- a backup side that fails -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_disk_that_turns_read_only(tmp_path: Path) -> None:
    """An ext4 that meets an error of its own and goes read-only in the middle of a run: exit 1 and the
    cause; what was committed is there, and once the disk is mounted again the next run completes (1, 7).

    Guard: `Journal.close_group` works within `backup_side_errors`; `PathSpool.close` as above.
    """
    need("mkfs.ext4", "mount", "findmnt")
    backup = Backup(tmp_path / "it", settings={"safety.max_delete_percent": 100})
    backup.root.mkdir(exist_ok=True)
    disk = Disk(tmp_path / "image", backup.root, "ext4")
    disk.make()
    disk.mount("loop,errors=remount-ro")
    try:
        give_history(backup)
        remove(backup.source / "sub")
        backup.write({"changes": "three\n"} | {f"new{n} {'y' * 200}": f"{n}" * 300 for n in range(800)})
        with held_up(backup) as run:
            os.killpg(run.pid, signal.SIGSTOP)
            break_ext4(backup.root)
            os.killpg(run.pid, signal.SIGCONT)
            result = backup.finish(run)
        causes = [line for line in result.stdout.splitlines() if line.startswith('{"type":"error"')]
        assert result.exit == 1 and result.summary["status"] == "failed", result.said[-2000:]
        assert any("Read-only" in cause or "state.db" in cause for cause in causes), causes
        assert backup.all_contents() >= CONTENTS
    finally:
        disk.unmount()
    with mounted(disk):
        assert_goes_on(backup, foreign="lost+found")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """A backup with a past, and changes of every kind for its next run. Only copies of it are tried on."""
    backup = Backup(tmp_path_factory.mktemp("history") / "it", settings={"workers.count": 1})
    give_history(backup)
    change_all(backup)
    return backup


@pytest.fixture
def tried(history: Backup, tmp_path: Path) -> Backup:
    return history.twin(tmp_path / "tried")


@pytest.fixture(scope="module")
def calls(history: Backup, tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """What the next run calls when nothing fails."""
    need("strace")
    base = tmp_path_factory.mktemp("traced")
    backup = history.twin(base / "it")
    backup.run("--quiet", under=tracing(base / "trace"))
    return calls_of(base / "trace")


FAILING_CALLS = """
    syncfs EIO 1; syncfs EIO 2; syncfs EIO -1; fdatasync EIO 1; fdatasync EIO 3; fdatasync EIO -3;
    pwrite64 EIO -20; pwrite64 ENOSPC -20; renameat2 EIO 1; renameat2 EIO -1; renameat EIO 1;
    linkat EIO 1; linkat ENOSPC -1; mkdirat ENOSPC -1
"""
"""Name, error, and which of its kind in the run it is, counted from the end where that is negative."""


@pytest.mark.slow
@pytest.mark.parametrize("failing_call", [call.strip() for call in FAILING_CALLS.split(";")])
def test_the_backup_side_fails_once(tried: Backup, calls: list[Call], failing_call: str) -> None:
    """One failed call on the side of the backup: exit 1 and the cause, nothing committed is lost, and the
    next run completes as if nothing had been (promises 1, 5, 7).

    Guard: `backup_side_errors` around the journal's work; for calls of SQLite, `translated_errors`.
    """
    name, error, place = failing_call.split()
    of_this_name = [call for call in calls if call.name == name]
    call = of_this_name[int(place) - 1 if int(place) > 0 else int(place)]
    result = tried.run("--quiet", expect=None, under=failing(name, error, str(call.nth)))
    causes = (os.strerror(getattr(errno, error)), "can't use state.db")
    assert_stopped(tried, result, causes)
    assert_goes_on(tried)


@pytest.mark.slow
@pytest.mark.parametrize(
    "failing_calls", ["renameat2 EROFS 3+", "unlinkat EIO 1+", "syncfs EIO 2+", "fdatasync EIO 5+"]
)
def test_the_backup_side_fails_for_good(tried: Backup, failing_calls: str) -> None:
    """From some call on, each of its kind fails, also those that come after the end was decided (1, 5, 7).

    Guard: `backup_side_errors` around the journal's work; what follows an error writes nothing more.
    """
    need("strace")
    name, error, when = failing_calls.split()
    words = failing_at(tried.root / ".pipeline/staging", name, error, when)
    if name == "unlinkat":  # of live names alone: the interpreter unlinks something of its own
        words = failing_at(tried.root, name, error, when)
    elif name in ("syncfs", "fdatasync"):
        words = failing(name, error, when)
    result = tried.run("--quiet", expect=None, under=words)
    assert_stopped(tried, result, (os.strerror(getattr(errno, error)), "state.db: disk I/O error"))
    assert_goes_on(tried)


@pytest.mark.slow
def test_no_space_for_the_list_of_what_is_missing(tried: Backup, calls: list[Call]) -> None:
    """The list of what is missing in the source, an unnamed file, finds no space at the very end of the scan:
    exit 1 and the cause; nothing is deleted on half a list (promises 1, 7).

    Guard: `Committer._delete_missing` reads `PathSpool`, which writes first, within `backup_side_errors`.
    """
    call = next(call for call in calls if call.name == "write" and "staging/#" in call.text)
    result = tried.run("--quiet", expect=None, under=failing("write", "ENOSPC", str(call.nth)))
    assert_stopped(tried, result, NO_SPACE)
    assert not tried.entry("docs/a").get("deleted")
    assert_goes_on(tried)


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 2, 4])
def test_a_failed_sync_is_never_tried_again(tried: Backup, tmp_path: Path, nth: int) -> None:
    """The kernel reports a lost write once: after a failed `syncfs` no other one is called, nothing gets a
    final name, and the next run stages that group anew (promises 1, 2).

    Guard: `Barrier.__call__` syncs once; `Journal.close_group` goes no further than a barrier that failed.
    """
    need("strace")
    log = tmp_path / "trace"
    names = "syncfs,renameat,renameat2,linkat"
    words = ["strace", "-y", "-o", str(log), "-e", f"trace={names}"]
    words += ["-e", f"inject=syncfs:error=EIO:when={nth}"]
    result = tried.run("--quiet", expect=None, under=words)
    assert_stopped(tried, result, ("Input/output error",))
    lines = log.read_text().splitlines()
    failed = next(number for number, line in enumerate(lines) if "INJECTED" in line)
    after = [line for line in lines[failed + 1 :] if "syncfs" in line or "staging>" in line]
    assert not after, after
    assert_goes_on(tried)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "name"),
    [
        pytest.param("write", "3-1-1", id="a small one's bytes"),
        pytest.param("utimensat", "3-1-1", id="a small one's time"),
        pytest.param("write", "3-1-4", id="a large one's bytes"),
        pytest.param("fchmod", "3-1-4", id="a large one's mode"),
    ],
)
def test_a_worker_can_not_write_to_staging(tried: Backup, call: str, name: str) -> None:
    """A worker's error on the side of the backup ends the run; it is never taken for a problem of the
    source (promises 1, 7).

    Guard: `StagedCopies` raises `BackupSideFailed`, which becomes a FATAL result.
    """
    need("strace")
    staged = tried.root / ".pipeline" / "staging" / name
    result = tried.run("--quiet", expect=None, under=failing_at(staged, call, "EIO", "1"))
    assert_stopped(tried, result, ("can't write to the backup: Input/output error",))
    assert_goes_on(tried)


# -- a source that fails ----------------------------------------------------------------------------------

READS = "read,pread64,preadv,preadv2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "what", "when"),
    [
        ("sub/large", READS, "2"),
        ("new", READS, "1+"),
        ("changes", READS, "1+"),
        ("copy of a", READS, "1+"),
        ("sub", "getdents64", "1+"),
    ],
)
def test_a_source_that_can_not_be_read(tried: Backup, path: str, what: str, when: str) -> None:
    """EIO from a file or folder of the source, at its first bytes or later: it is reported with its path,
    exit 3; all else is backed up, and what was there before stays (promises 1, 7).

    Guard: `Hasher._file` and `_SourceWalk._enter` turn an OSError into a PROBLEM of that path.
    """
    need("strace")
    before = tried.entries()
    result = tried.run("--quiet", expect=3, under=failing_at(tried.source / path, what, "EIO", when))
    reported = [line for line in result.log if line.startswith("WARNING: ")]
    assert reported == [f"WARNING: docs/{path} (can't read: Input/output error)"]
    assert f"docs/{path}" in result.stderr
    after = tried.entries()
    for name in ("new", "changes", "sub/deep"):
        if not name.startswith(path):
            assert tried.read(name) == (tried.source / name).read_bytes()
    for name, line in before.items():
        if name.startswith(f"docs/{path}"):
            assert after[name].get("digest") == line.get("digest"), "it stays as it was"
            assert not after[name].get("deleted")
    assert not CONTENTS - tried.all_contents()
    assert_goes_on(tried)
