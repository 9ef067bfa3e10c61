"""A cluster of several hosts, and the network between them: who is cut off is lost to the run, which is right
without it, or ends in words (promises 1, 5, 7).

The hosts are network namespaces of this machine that share its file systems. Cutting one off takes its end of
the cable away: nobody is told, and packets go nowhere, as with a switch that has failed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cluster import Cluster
from doctored import Gate, doctored
from faults.images import need
from faults.test_cluster_faults import soon, staged, started, with_slow_files

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="only root can make hosts")]

IMPATIENT = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "6s",
}
"""Dask's own settings, so that it needs seconds and not minutes to be sure."""


class Host(NamedTuple):
    """A network namespace. cable: its interface at the switch."""

    name: str
    address: str
    cable: str

    @property
    def inside(self) -> list[str]:
        """Words before those of a program that runs there."""
        return ["ip", "netns", "exec", self.name]

    def cut_off(self) -> None:
        run_ip("link", "set", self.cable, "nomaster")


def run_ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def can_make_hosts() -> bool:
    """Whether there are switches here; what comes after one that can be made has to work."""
    name = f"try{os.getpid() % 100_000:x}"
    made = subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=False, capture_output=True)
    if made.returncode == 0:
        run_ip("link", "delete", name)
    return made.returncode == 0


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Three hosts at one switch, which this machine is at, too."""
    need("ip")
    if not can_make_hosts():
        pytest.skip("this kernel, or this container, has no bridges")
    tag = f"{os.getpid() % 100_000:x}"
    switch = f"sw{tag}"
    subnet = f"10.{os.getpid() % 200 + 20}.77"
    made: list[Host] = []
    try:
        run_ip("link", "add", switch, "type", "bridge")
        run_ip("address", "add", f"{subnet}.1/24", "dev", switch)
        run_ip("link", "set", switch, "up")
        for number in (2, 3, 4):
            host = Host(f"host{number}-{tag}", f"{subnet}.{number}", f"c{number}{tag}")
            run_ip("netns", "add", host.name)
            made.append(host)
            run_ip("link", "add", host.cable, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            run_ip("link", "set", host.cable, "master", switch, "up")
            run_ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
            run_ip("-n", host.name, "link", "set", "eth0", "up")
            run_ip("-n", host.name, "link", "set", "lo", "up")
        yield made
    finally:
        for host in made:
            run_ip("link", "delete", host.cable)  # the other end would live as long as who is still inside
            run_ip("netns", "delete", host.name)
        subprocess.run(["ip", "link", "delete", switch], check=False, capture_output=True)


@pytest.fixture
def spread(hosts: list[Host], tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler on the first host; workers come later."""
    first = hosts[0]
    made = Cluster(tmp_path / "cluster", first.address, first.inside, IMPATIENT)
    try:
        yield made
    finally:
        made.end()


def test_a_worker_that_is_cut_off(spread: Cluster, hosts: list[Host], tmp_path: Path) -> None:
    """What it was at is read by the worker that is left, and nothing is stored twice; what it still does on
    the shared disks, since it knows of nothing, harms neither this run nor the next."""
    backup = spread.use(with_slow_files(tmp_path / "it"))
    gate = Gate(backup.base)
    [lost] = spread.start_workers("lost", variables=doctored(backup), under=hosts[1].inside)
    with started(backup, "--json") as run:
        gate.wait_for(1)
        spread.start_workers("left", under=hosts[2].inside)
        hosts[1].cut_off()
        result = soon(backup, run)
    assert result.exit == 0, result.said[-2000:]
    assert result.summary["backup"] == 3 and result.summary["errors"] == 0
    gate.open()
    backup.assert_right()
    assert backup.run("--json").summary["skip"] == result.summary["files"]
    spread.end(lost)
    backup.run("--quiet")
    assert staged(backup) == []
    backup.assert_all_well()


def test_a_scheduler_that_is_cut_off(spread: Cluster, hosts: list[Host], tmp_path: Path) -> None:
    """The run ends in words, with all that was committed; the next one, with local workers, goes on."""
    backup = spread.use(with_slow_files(tmp_path / "it"))
    gate = Gate(backup.base)
    spread.start_workers("one", variables=doctored(backup), under=hosts[1].inside)
    with started(backup, "--json", variables=IMPATIENT) as run:
        gate.wait_for(1)
        hosts[0].cut_off()
        result = soon(backup, run)
    assert result.exit == 1 and result.summary["status"] == "failed", result.said[-2000:]
    assert any("is lost" in line["cause"] for line in result.lines if line["type"] == "error")
    gate.open()
    spread.end()
    backup.configure(workers__engine="local", workers__address="")
    backup.run("--quiet")
    assert staged(backup) == []
    backup.assert_all_well()
