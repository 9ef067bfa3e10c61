"""A real cluster for tests: one scheduler and its workers, each a process of its own.

In: a folder for its files, what each worker is to be like. Out: the scheduler's file, for `workers.address`.
Guarantees: every process is in a session of its own and is ended with all that it has started; who is waited
for has come, or the test fails with what it has printed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from harness import Backup, environment, wait_until

_QUICK = {
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}

OTHER_VERSION = "import pipeline\npipeline.__version__ = '9.9.9'\n"
WITHOUT_PACKAGE = "import sys\nsys.modules['pipeline'] = None\n"
"""What a worker runs first, to be of no use."""


class Member:
    """The scheduler or a worker. log: what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self.pid = process.pid
        self.log = log

    def said(self, text: str) -> bool:
        return text in self.log.read_text(errors="replace")

    @property
    def address(self) -> str:
        """As it has told: `tcp://127.0.0.1:34567`."""
        lines = self.log.read_text().splitlines()
        found = [line.split()[-1] for line in lines if "Start worker at:" in line]
        return found[-1]

    def end(self) -> None:
        """Once: another process may have its number afterwards."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()


class Cluster:
    """One scheduler; workers are started one by one, or several at once. host, under: where the scheduler
    listens, and words before its own. variables: of all members."""

    def __init__(
        self,
        base: Path,
        host: str = "127.0.0.1",
        under: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._base = base
        base.mkdir(parents=True, exist_ok=True)
        self.file = base / "scheduler.json"
        self.members: list[Member] = []
        self._variables = {**_QUICK, **(variables or {})}
        options = ["--host", host, "--port", "0"]
        self.scheduler = self._start("scheduler", "dask_scheduler", options, under=under)
        assert wait_until(self._has_scheduler), self.scheduler.log.read_text()

    def _has_scheduler(self) -> bool:
        try:
            return bool(json.loads(self.file.read_text())["address"])
        except (FileNotFoundError, ValueError):
            return False

    def start_workers(
        self,
        *names: str,
        threads: int = 1,
        comes_back: bool = False,
        preload: str = "",
        variables: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> list[Member]:
        """Workers that have registered. comes_back: one that dies is started again. preload: code that it
        runs first. under: words before its own."""
        options = ["--nthreads", str(threads), "--nanny" if comes_back else "--no-nanny"]
        options += ["--local-directory", str(self._base / "scratch")]
        if preload:
            place = self._base / f"preload_{names[0]}.py"
            place.write_text(preload)
            options += ["--preload", str(place)]
        started = [self._start(name, "dask_worker", options, variables, under) for name in names]
        for worker in started:
            assert wait_until(lambda worker=worker: worker.said("Registered to:")), worker.log.read_text()  # type: ignore[misc]
        return started

    def _start(
        self,
        name: str,
        program: str,
        options: Sequence[str],
        variables: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> Member:
        log = self._base / f"{name}.log"
        words = [sys.executable, "-m", f"distributed.cli.{program}", "--no-dashboard"]
        words += ["--scheduler-file", str(self.file), *options]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*under, *words], cwd=self._base, env=environment({**self._variables, **(variables or {})}),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        self.members.append(Member(process, log))
        return self.members[-1]

    def end(self, *members: Member) -> None:
        """These, or all of them."""
        for member in members or tuple(self.members):
            member.end()

    def use(self, backup: Backup) -> Backup:
        """Have a backup's runs go to this cluster."""
        backup.configure(workers__engine="dask", workers__address=str(self.file))
        return backup
