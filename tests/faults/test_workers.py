"""Children that die or stand still at the worst moments, a parent that is told to stop or is killed, seen
from outside: no file is lost or stored twice, no process is left, nothing hangs (promises 1, 5, 7).

Where a worker is, is known and not guessed: it waits at a gate, or in writing to a full pipe.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from at_work import at_work, held_up, many_files
from doctored import Gate, doctored, fork_server, is_writing_to_a_pipe, workers_of
from harness import Backup, Result, end_group, wait_until
from processes import alive, descendants, kill, stations
from stopped import CONTENTS, give_history

SHORT_SILENCE = """
from pipeline.pool.line import Line
from pipeline.pool.local import Local
Line.__init__.__defaults__ = (1.0,)
Local.__init__.__defaults__ = (None, 1.0)
from pipeline.ui.cli import main
main()
"""
TOO_LONG_S = 20.0
"""What ends at once ends long before."""


@contextmanager
def started(backup: Backup, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A run whose whole group is ended in any case, also what is stopped."""
    process = backup.start("run", *arguments, variables=variables)
    try:
        yield process
    finally:
        end_group(process)
        process.communicate()


def soon(backup: Backup, process: subprocess.Popen[str]) -> Result:
    """What a run that has to end now has left, and that it has ended now."""
    began_s = time.monotonic()
    result = backup.finish(process)
    assert time.monotonic() - began_s < TOO_LONG_S, "it has hung"
    return result


def assert_none_left(pids: Iterable[int]) -> None:
    pids = list(pids)
    assert wait_until(lambda: not any(map(alive, pids))), "a process is left"


def assert_nothing_staged(backup: Backup) -> None:
    assert os.listdir(backup.root / ".pipeline" / "staging") == []


def with_slow_files(base: Path) -> Backup:
    """A backup with a past, and two new files at which a reader waits while the gate is closed."""
    backup = Backup(base)
    give_history(backup)
    # Each fills a batch of its own, so that both workers come to the gate.
    backup.write(
        {"changes": "three\n", "new": "new\n", "slow1": b"1" * (16 << 20), "slow2": b"2" * (16 << 20)}
    )
    return backup


# -- files that kill --------------------------------------------------------------------------------------


def test_files_that_kill_whoever_reads_them(tmp_path: Path) -> None:
    """A file that kills every worker that reads it is reported with its path, exit 3, whether it is new, or
    known with the same size or another one; all the rest is backed up, and what there was of it stays.

    Guard: `Line._retry` gives a batch at which a worker died out again file by file, and `Retry.killed` gives
    up the file at which a second one dies.
    """
    backup = Backup(tmp_path / "it")
    backup.write({"deadly known": "known\n", "deadly other": "other\n", "sub": {"deadly too": "too\n"}})
    give_history(backup)
    backup.write({"changes": "three\n", "deadly new": "new\n", "deadly other": "longer\n", "last": "last\n"})
    result = backup.run("--quiet", expect=3, variables=doctored(backup))
    deadly = ["deadly known", "deadly new", "deadly other", "sub/deadly too"]
    assert sorted(line for line in result.log if line.startswith("ERROR")) == [
        f"ERROR: docs/{name} (two workers died while they were at it; skipped)" for name in deadly
    ]
    assert result.planned() == ["MODIFIED: docs/changes (content differs)", "BACKUP: docs/last (new path)"]
    assert CONTENTS | {b"known\n", b"other\n", b"too\n", b"three\n", b"last\n"} <= backup.all_contents()
    assert_nothing_staged(backup)
    backup.run("--quiet")
    backup.assert_all_well()


@pytest.mark.slow
def test_too_many_files_that_kill(tmp_path: Path) -> None:
    """Where every worker dies at once and always, the run ends: exit 1 and why; the next one completes.

    Guard: `DEATHS_IN_A_ROW` in `Local._worker_ended`.
    """
    backup = Backup(tmp_path / "it")
    give_history(backup)
    backup.write({f"deadly{number}": f"{number}\n" for number in range(40)} | {"changes": "three\n"})
    result = backup.run("--quiet", expect=1, variables=doctored(backup))
    assert "workers died" in result.stderr
    assert backup.all_contents() >= CONTENTS
    backup.run("--quiet")
    backup.assert_all_well()


# -- workers that die or stand still ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("who", ["one", "all"])
@pytest.mark.parametrize("what", ["killed", "stopped"])
def test_workers_that_are_reading(tmp_path: Path, what: str, who: str) -> None:
    """Workers that are killed, or stand still for too long, in the middle of a file: it is read by another
    one, the run ends well and nothing is stored twice.

    Guard: `Local._worker_ended` gives out again what the dead one was at; `Local._look_for_silence` ends one
    that stands still.
    """
    backup = with_slow_files(tmp_path / "it")
    backup.program = [sys.executable, "-c", SHORT_SILENCE] if what == "stopped" else backup.program
    gate = Gate(backup.base)
    with started(backup, "--json", **doctored(backup)) as run:
        reading = gate.wait_for(2)
        victims = reading if who == "all" else reading[:1]
        for victim in victims:
            os.kill(victim, signal.SIGKILL if what == "killed" else signal.SIGSTOP)
        gate.open()
        result = soon(backup, run)
    assert result.exit == 0, result.said[-2000:]
    assert result.summary["backup"] == 3 and result.summary["modified"] == 1
    assert_none_left(reading)
    assert_nothing_staged(backup)
    backup.assert_all_well()


@pytest.mark.slow
@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
def test_an_idle_worker(tmp_path: Path, what: signal.Signals) -> None:
    """A worker that has nothing to do is killed, or stopped: the run doesn't wait for it, and it is gone
    with the run.

    Guard: `Line.close` kills every child; `Local._worker_ended` makes do with one that had nothing.
    """
    backup = with_slow_files(tmp_path / "it")
    (backup.source / "slow2").unlink()
    backup.write({"slow1": b"1" * (3 << 20)})  # all in one batch: the other worker gets nothing
    gate = Gate(backup.base)
    with started(backup, "--json", **doctored(backup)) as run:
        busy = gate.wait_for(1)
        assert wait_until(lambda: len(workers_of(backup, run.pid)) == 2)
        idle = [worker for worker in workers_of(backup, run.pid) if worker not in busy]
        for worker in idle:
            os.kill(worker, what)
        gate.open()
        result = soon(backup, run)
    assert result.exit == 0, result.said[-2000:]
    assert_none_left([*idle, *busy])
    backup.assert_all_well()


@contextmanager
def with_full_pipes(backup: Backup) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A run whose parent stands still while all its workers hang in sending their results."""
    with started(backup, "--json") as run:
        staging = backup.root / ".pipeline" / "staging"
        assert wait_until(lambda: staging.is_dir() and bool(os.listdir(staging)))
        run.send_signal(signal.SIGSTOP)
        sending: list[int] = []

        def all_hang() -> bool:
            sending[:] = [station for station in stations(run.pid) if is_writing_to_a_pipe(station)]
            return bool(sending)

        assert wait_until(all_hang), "no pipe gets full"
        yield run, sending


def files_of_long_names(base: Path) -> Backup:
    """A batch's results are more than a pipe holds."""
    backup = Backup(base)
    backup.write({f"folder{n % 8}/{n:05} {'x' * 230}": f"{n}\n" for n in range(2000)})
    return backup


@pytest.mark.slow
def test_workers_killed_while_they_send(tmp_path: Path) -> None:
    """Workers that die with half of their results in the pipe: what is cut off is never taken for an answer;
    each file is stored once.

    Guard: `Inbox._frames` gives complete frames only; `Local._worker_ended` gives the rest out again.
    """
    backup = files_of_long_names(tmp_path / "it")
    with with_full_pipes(backup) as (run, sending):
        for station in sending:
            if station in workers_of(backup, run.pid):
                kill(station)
        run.send_signal(signal.SIGCONT)
        result = soon(backup, run)
    assert result.exit == 0, result.said[-2000:]
    assert result.summary["backup"] == result.summary["files"] == 2000
    assert_nothing_staged(backup)
    backup.assert_right()


@pytest.mark.slow
def test_a_scanner_killed_in_the_middle_of_its_list(tmp_path: Path) -> None:
    """What a killed scanner had not listed yet is never taken for missing: exit 1 and why, no deletion, and
    the next run completes.

    Guard: `Line._walker_ended` raises where no END has come.
    """
    backup = files_of_long_names(tmp_path / "it")
    backup.run("--quiet")
    backup.write({"new": "new\n"})
    with started(backup, "--json") as run:
        assert wait_until(lambda: bool(stations(run.pid)))
        run.send_signal(signal.SIGSTOP)
        scanner = stations(run.pid)[0]
        assert wait_until(lambda: is_writing_to_a_pipe(scanner)), "its list fits into its pipe"
        kill(scanner)
        run.send_signal(signal.SIGCONT)
        result = soon(backup, run)
    assert result.exit == 1 and result.summary["status"] == "failed", result.said[-2000:]
    assert any("killed" in line["cause"] for line in result.lines if line["type"] == "error")
    assert not any(line.get("deleted") for line in backup.export())
    backup.run("--quiet")
    backup.assert_all_well()


# -- the fork server --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("when", ["at its start", "at work"])
def test_a_killed_fork_server(tmp_path: Path, when: str) -> None:
    """The process that starts the others is killed: the run goes on with another one, or it fails with exit 1
    and says why; it never passes for interrupted, and no process is left.

    Guard: whoever starts a child turns its EOFError or OSError into a `StationError`.
    """
    backup = with_slow_files(tmp_path / "it")
    gate = Gate(backup.base)
    logs = backup.log_names()
    with started(backup, "--json", **doctored(backup)) as run:
        assert wait_until(lambda: fork_server(run.pid) is not None)
        server = fork_server(run.pid)
        assert server is not None
        if when == "at its start":
            os.kill(server, signal.SIGSTOP)
            assert wait_until(lambda: backup.log_names() != logs), "the run has begun"
        else:
            gate.wait_for(2)
        below = descendants(run.pid)
        kill(server)
        gate.open()
        result = soon(backup, run)
    assert result.exit in (0, 1), result.said[-2000:]
    if result.exit == 1:
        assert any(line["type"] == "error" and line["cause"] for line in result.lines), result.said
        backup.run("--quiet")
    assert_none_left(below)
    assert backup.all_contents() >= CONTENTS
    backup.assert_all_well()


# -- Ctrl-C, and a killed parent --------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_while_the_stations_start(tmp_path: Path) -> None:
    """Ctrl-C as soon as there is a station: exit 130, and no child prints a traceback about it.

    Guard: children ignore SIGINT from their first instruction on, and so does the fork server.
    """
    backup = many_files(tmp_path / "it")
    for _ in range(4):
        with started(backup, "--json") as run:
            assert wait_until(lambda: bool(stations(run.pid)))
            os.killpg(run.pid, signal.SIGINT)
            result = soon(backup, run)
        assert result.exit == 130, result.said[-2000:]
    backup.run("--quiet")
    backup.assert_right()


@pytest.mark.slow
@pytest.mark.parametrize("stopped", ["scanner", "workers", "all"])
def test_ctrl_c_while_stations_stand_still(tmp_path: Path, stopped: str) -> None:
    """Ctrl-C while the scanner, the workers or all of them stand still, as on a dead network disk: exit 130
    at once, and nobody is left.

    Guard: `Line.results` yields at least every `TICK_S`; `Line.close` kills.
    """
    backup = with_slow_files(tmp_path / "it")
    gate = Gate(backup.base)
    with started(backup, "--json", **doctored(backup)) as run:
        gate.wait_for(2)
        below = descendants(run.pid)
        victims = {"scanner": stations(run.pid)[:1], "workers": gate.waiting()}
        for victim in victims.get(stopped, stations(run.pid)):
            os.kill(victim, signal.SIGSTOP)
        os.killpg(run.pid, signal.SIGINT)
        result = soon(backup, run)
    assert result.exit == 130 and result.summary["status"] == "interrupted", result.said[-2000:]
    assert_none_left(below)
    assert backup.all_contents() >= CONTENTS
    gate.open()
    backup.run("--quiet")
    backup.assert_all_well()


@pytest.mark.slow
@pytest.mark.parametrize("moment", [at_work, held_up])
def test_ctrl_c_twice(tmp_path: Path, moment: object) -> None:
    """Ctrl-C twice in quick succession ends the run at once, exit 130, wherever it is; nobody is left, and
    the next run is right.

    Guard: `stop_on_signals` raises KeyboardInterrupt at the second one.
    """
    backup = many_files(tmp_path / "it")
    with moment(backup) as run:  # type: ignore[operator]
        below = descendants(run.pid)
        os.killpg(run.pid, signal.SIGINT)
        assert run.stderr is not None and "again" in run.stderr.readline()  # or two signals might be one
        os.killpg(run.pid, signal.SIGINT)
        result = soon(backup, run)
    assert result.exit == 130, result.said[-2000:]
    assert result.summary["status"] == "interrupted"
    assert_none_left(below)
    backup.run("--quiet")
    backup.assert_all_well()


@pytest.mark.slow
def test_a_parent_killed_while_workers_stand_still(tmp_path: Path) -> None:
    """The parent is killed while its workers are stopped in the middle of a file: the next run is not held up
    by them and completes; once they can move again they end, though the file still can't be read.

    Guard: `_die_with_parent`, a thread of its own; the lock is not inherited.
    """
    backup = with_slow_files(tmp_path / "it")
    gate = Gate(backup.base)
    with started(backup, "--json", **doctored(backup)) as run:
        reading, below = gate.wait_for(2), descendants(run.pid)
        for worker in reading:
            os.kill(worker, signal.SIGSTOP)
        run.kill()
        run.wait(timeout=TOO_LONG_S)
        backup.run("--quiet")
        before = backup.tree()
        for worker in filter(alive, reading):
            os.kill(worker, signal.SIGCONT)
        assert_none_left(below)  # though the gate is closed
        assert backup.tree() == before
    backup.assert_all_well()
    assert_nothing_staged(backup)
