"""A cluster that loses its workers, its scheduler or the run itself at the worst moments: nothing is lost
with it, no file is stored twice, nothing hangs (promises 1, 5, 7).

Where a worker is, is known and not guessed: it waits at a gate.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import OTHER_VERSION, WITHOUT_PACKAGE, Cluster
from doctored import Gate, doctored
from harness import Backup, Result, end_group, wait_until
from processes import has_open
from stopped import CONTENTS, give_history

TOO_LONG_S = 60.0


@pytest.fixture
def frail(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of a test's own, without workers yet."""
    made = Cluster(tmp_path / "cluster")
    try:
        yield made
    finally:
        made.end()


@contextmanager
def started(
    backup: Backup, *arguments: str, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    process = backup.start("run", *arguments, variables=variables)
    try:
        yield process
    finally:
        end_group(process)
        process.communicate()


def soon(backup: Backup, process: subprocess.Popen[str]) -> Result:
    process.wait(timeout=TOO_LONG_S)
    return backup.finish(process)


def line_with(run: subprocess.Popen[str], text: str) -> str:
    """The next line of its output that has the text; it says something a few times a second."""
    assert run.stdout is not None
    began_s = time.monotonic()
    while text not in (line := run.stdout.readline()):
        assert line, "it has ended"
        assert time.monotonic() - began_s < TOO_LONG_S, f"it never said {text}, but {line}"
    return line


def staged(backup: Backup) -> list[str]:
    return os.listdir(backup.root / ".pipeline" / "staging")


def with_slow_files(base: Path) -> Backup:
    """A past, and three files at which who reads them waits: each in a batch of its own."""
    backup = Backup(base)
    give_history(backup)
    backup.write({f"slow{number}": bytes([number]) * (17 << 20) for number in range(3)})
    return backup


@pytest.mark.parametrize("which", [pytest.param("one", marks=pytest.mark.slow), "all"])
def test_workers_killed_while_they_read(frail: Cluster, tmp_path: Path, which: str) -> None:
    """Who is at work is told. What a killed worker was at is read by another one, also by one that comes only
    then: the run ends well, and nothing is stored twice."""
    backup = frail.use(with_slow_files(tmp_path / "it"))
    gate = Gate(backup.base)
    workers = frail.start_workers("one", "two", variables=doctored(backup))
    with started(backup, "--json") as run:
        reading = gate.wait_for(2)
        told = json.loads(line_with(run, '"bytes_per_s"'))
        assert {one["name"] for one in told["workers"]} == {w.address[len("tcp://") :] for w in workers}
        lost = workers if which == "all" else [worker for worker in workers if worker.pid == reading[0]]
        frail.end(*lost)
        gate.open()
        if which == "all":
            frail.start_workers("three")
        result = soon(backup, run)
    assert result.exit == 0, result.said[-2000:]
    assert result.summary["backup"] == 3 and result.summary["errors"] == 0
    assert staged(backup) == []
    backup.assert_all_well()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_lost_scheduler_ends_the_run(frail: Cluster, tmp_path: Path, how: signal.Signals) -> None:
    """Killed, or closed by somebody: exit 1, why and what to do; what was committed stays, and a run with
    local workers goes on from there."""
    backup = frail.use(with_slow_files(tmp_path / "it"))
    gate = Gate(backup.base)
    frail.start_workers("one", "two", variables=doctored(backup))
    with started(backup, "--json") as run:
        gate.wait_for(2)
        os.kill(frail.scheduler.pid, how)
        result = soon(backup, run)
    assert result.exit == 1 and result.summary["status"] == "failed", result.said[-2000:]
    assert any("is lost" in line["cause"] for line in result.lines if line["type"] == "error")
    assert result.stderr == "", "Dask says nothing of its own"
    assert backup.all_contents() >= CONTENTS
    gate.open()
    frail.end()
    backup.configure(workers__engine="local", workers__address="")
    backup.run("--quiet")
    backup.call("verify")
    assert staged(backup) == []
    backup.assert_all_well()


@pytest.mark.slow
def test_files_that_kill_are_told_and_the_rest_goes_on(frail: Cluster, tmp_path: Path) -> None:
    """A file that kills every worker that reads it becomes an error; all others are backed up, also those of
    its batch, and those whose batches were lost together with it."""
    backup = Backup(tmp_path / "it")
    give_history(backup)
    frail.use(backup)
    backup.write({"deadly": "x\n", "sub": {"other": "other\n"}, "last": "last\n", "large": b"1" * (20 << 20)})
    frail.start_workers("one", "two", comes_back=True, variables=doctored(backup))
    result = backup.run("--quiet", expect=3)
    assert [line for line in result.log if line.startswith("ERROR")] == [
        "ERROR: docs/deadly (two workers died while they were at it; skipped)"
    ]
    assert result.decisions() == ["BACKUP: docs/large", "BACKUP: docs/last", "BACKUP: docs/sub/other"]
    assert staged(backup) == []
    (backup.source / "deadly").unlink()
    backup.run("--quiet")
    backup.assert_all_well()


@pytest.mark.slow
@pytest.mark.parametrize("code", [OTHER_VERSION, WITHOUT_PACKAGE])
def test_a_useless_worker_that_comes_later_gets_nothing(frail: Cluster, tmp_path: Path, code: str) -> None:
    """It is told of once (exit 3), whatever it is given is done by others, and the run is complete."""
    backup = frail.use(with_slow_files(tmp_path / "it"))
    backup.write({f"more{number}/large": b"1" * (17 << 20) for number in range(6)})
    gate = Gate(backup.base)
    frail.start_workers("one", "two", variables=doctored(backup))
    with started(backup, "--json") as run:
        gate.wait_for(2)
        [useless] = frail.start_workers("useless", preload=code)
        told = line_with(run, '"type":"warning"')
        gate.open()
        result = soon(backup, run)
    assert useless.address in told and "can't be used" in told
    assert result.exit == 3 and result.summary["warnings"] == 1, result.said[-2000:]
    assert result.summary["backup"] == 4 and result.summary["duplicate"] == 5
    frail.end(useless)
    backup.assert_all_well()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("where", ["on the worker", "on the run's machine"])
def test_what_is_mounted_elsewhere_is_read_by_those_who_see_it(
    frail: Cluster, tmp_path: Path, where: str
) -> None:
    """A worker on which another disk is mounted in a source gets nothing of what lies there: it would store
    other files, or take them for gone."""
    backup = frail.use(Backup(tmp_path / "it"))
    backup.write({"disk": {"inner": "inner\n"}, "a": b"1" * (17 << 20), "b": "b\n"})
    disk = backup.source / "disk"
    other = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none "{disk}" && exec "$@"', "sh"]
    if where == "on the run's machine":
        other = ["unshare", "-m", "sh", "-c", f'umount "{disk}" && exec "$@"', "sh"]
        subprocess.run(["mount", "-t", "tmpfs", "none", str(disk)], check=True)
    try:
        backup.write({"disk": {"inner": "inner\n"}})
        [useless] = frail.start_workers("other", under=other)
        with started(backup, "--json") as run:
            told = line_with(run, '"type":"warning"')
            frail.start_workers("right")
            result = soon(backup, run)
        assert result.exit == 3 and result.summary["backup"] == 3, result.said[-2000:]
        assert f"{disk}: something else is mounted there" in told
        frail.end(useless)
        backup.assert_all_well()
    finally:
        if where == "on the run's machine":
            subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_cluster_without_workers_is_waited_for(frail: Cluster, tmp_path: Path) -> None:
    """Progress tells of it, and the run goes on as soon as there is one."""
    backup = frail.use(Backup(tmp_path / "it"))
    backup.write({"one": "1\n"})
    with started(backup, "--json") as run:
        line_with(run, '"phase":"waiting"')
        frail.start_workers("one")
        result = soon(backup, run)
    assert result.exit == 0 and result.summary["backup"] == 1
    backup.assert_all_well()


@pytest.mark.slow
def test_ctrl_c_while_the_scheduler_does_not_answer(tmp_path: Path) -> None:
    """Exit 130 at once, whatever is waited for, and no word of Dask's own."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        backup = Backup(tmp_path / "it", settings={"workers.engine": "dask", "workers.address": address})
        backup.write({"one": "1\n"})
        with started(backup, "--json") as run:
            line_with(run, '"phase":"waiting"')
            os.killpg(run.pid, signal.SIGINT)
            run.wait(timeout=5)
            result = soon(backup, run)
    assert result.exit == 130 and len(result.stderr.splitlines()) <= 1, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_the_cluster_usable(
    frail: Cluster, tmp_path: Path, how: signal.Signals
) -> None:
    """Ctrl-C: exit 130, soon. Killed: no word to anybody. In both cases the next run is right, though workers
    may still be at batches of the first one; and then they have nothing of it open."""
    backup = frail.use(with_slow_files(tmp_path / "it"))
    gate = Gate(backup.base)
    workers = frail.start_workers("one", "two", variables=doctored(backup))
    with started(backup, "--json") as run:
        gate.wait_for(2)
        os.killpg(run.pid, how)
        run.wait(timeout=TOO_LONG_S)
        assert run.returncode == (130 if how == signal.SIGINT else -how)
    gate.open()
    backup.run("--quiet")
    backup.assert_right()
    staging = backup.root / ".pipeline" / "staging"
    assert wait_until(lambda: not any(has_open(worker.pid, staging) for worker in workers))
    backup.run("--quiet")
    assert staged(backup) == []
    backup.assert_all_well()
