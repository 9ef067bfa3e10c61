"""The engine of many machines, with a real scheduler and real workers: the same backup as from local workers,
and who can't see the same files gets none of them (promises 3, 4, 7)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import OTHER_VERSION, WITHOUT_PACKAGE, Cluster
from harness import REPOSITORY, Backup, difference, unlike
from trees import change, grow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three workers that nobody harms."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start_workers("one", "two", "three", threads=2)
        yield made
    finally:
        made.end()


def staged(backup: Backup) -> list[str]:
    return os.listdir(backup.root / ".pipeline" / "staging")


def test_a_cluster_makes_the_same_backup(cluster: Cluster, tmp_path: Path) -> None:
    """One scheduler and three workers, over two runs: log, export and tree are those of local workers, byte
    for byte; the second of two runs finds nothing to do."""
    source = tmp_path / "docs"
    grow(source, 300, seed=5, large=3)
    os.link(next(p for p in source.rglob("*") if p.is_file() and not p.is_symlink()), source / "linked")
    settings = {"log.skips": True, "retention.max_versions_per_file": 2}
    local = Backup(tmp_path / "local", sources=[str(source)], settings=settings)
    remote = cluster.use(Backup(tmp_path / "remote", sources=[str(source)], settings=settings))
    for step in range(2):
        results = [backup.run("--quiet") for backup in (local, remote)]
        found = unlike(*("\n".join(result.log).encode() for result in results))
        assert not (found or unlike(local.export_bytes(), remote.export_bytes())), found
        assert not difference(local.tree(), remote.tree())
        assert staged(remote) == []
        change(source, seed=step)
    assert any(name.startswith("versions/") for name in remote.names()), "the history is no empty one"


def test_a_dry_run_writes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """It asks the cluster, too, and tells what a run would do."""
    backup = cluster.use(Backup(tmp_path / "it"))
    backup.write({"one": "1\n"})
    assert "BACKUP: docs/one → one" in backup.run("--dry-run").stdout
    assert not backup.root.exists()
    backup.run("--quiet")
    before = backup.tree(), staged(backup)
    backup.write({"one": "2\n"})
    assert backup.run("--dry-run", "--json").summary["modified"] == 1
    assert (backup.tree(), staged(backup)) == before


@pytest.mark.parametrize("what", ["another version", "no package", "no backup root"])
def test_a_worker_that_is_of_no_use_is_named(tmp_path: Path, cluster: Cluster, what: str) -> None:
    """Exit 1 before anything is read, with the worker's address and what is wrong with it: both versions
    where it has another one."""
    backup = cluster.use(Backup(tmp_path / "it"))
    backup.write({"one": "1\n"})
    backup.root.mkdir()
    hide = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none "{backup.root}" && exec "$@"', "sh"]
    code = {"another version": OTHER_VERSION, "no package": WITHOUT_PACKAGE, "no backup root": ""}[what]
    if not code and os.geteuid() != 0:
        pytest.skip("only root can mount")
    [useless] = cluster.start_workers("useless", preload=code, under=() if code else hide)
    try:
        result = backup.run("--quiet", expect=1)
    finally:
        cluster.end(useless)
    assert useless.address in result.stderr and "can't be used" in result.stderr
    told = {
        "another version": "it has version 9.9.9 of this package, and this run has 0.1.0",
        "no package": "it can't load this package",
        "no backup root": "can't be read and written there: No such file or directory",
    }
    assert told[what] in result.stderr
    assert backup.names() == [] and staged(backup) == []


def test_local_workers_load_nothing_of_it() -> None:
    """Who has no cluster doesn't pay for it: not a module more is loaded."""
    code = "import sys, pipeline.engine, pipeline.ui.commands; print(*sys.modules, sep='\\n')"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    loaded = set(told.stdout.split())
    cluster_s = {"pipeline.pool.cluster", "pipeline.pool.client", "pipeline.stages.proof", "asyncio"}
    assert "pipeline.pool.local" in loaded
    assert not {name for name in loaded if name in cluster_s or name.startswith(("dask", "distributed"))}


@pytest.mark.parametrize(
    "address",
    ["scheduler.json", "tls://127.0.0.1:1", pytest.param("tcp://127.0.0.1:1", marks=pytest.mark.slow)],
)
def test_no_scheduler(tmp_path: Path, address: str) -> None:
    """Exit 1, with the address and no word of Dask's own: it isn't there, or Dask knows no keys for it."""
    backup = Backup(tmp_path / "it", settings={"workers.engine": "dask", "workers.address": address})
    result = backup.run("--quiet", expect=1)
    assert address in result.stderr and len(result.stderr.strip().splitlines()) <= 2, result.stderr


def test_dask_that_can_not_be_loaded(tmp_path: Path) -> None:
    """Its settings can't be read: exit 1, and words instead of what Python would show."""
    backup = Backup(tmp_path / "it", settings={"workers.engine": "dask", "workers.address": "tcp://host:1"})
    (tmp_path / "settings.yaml").write_text("a: [1\n  b: }")
    result = backup.run("--quiet", expect=1, variables={"DASK_CONFIG": str(tmp_path)})
    assert "dask can't be loaded: A dask config file at" in result.stderr
