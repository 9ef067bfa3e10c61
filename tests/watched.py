"""A watch at work, seen through what it prints, and the moments at which tests step in.

In: a backup. Out: the running process, its lines as they come. Guarantees: every wait has a limit and hangs
on something that the watch says or that lies in the backup, never on a sleep; nothing is left running.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import Backup, Line, end_group
from processes import descendants

LIMIT_S = 30.0
QUICK = {
    "watch.debounce_seconds": 0.2,
    "watch.delete_delay_seconds": 0.5,
    "watch.max_delay_seconds": 5.0,
}
"""Delays for tests: short, but longer than a busy machine holds up a process that writes."""


class Watched:
    """A running `watch --json`. lines: all that it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[Line] = []
        self.raw: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            with self._changed:
                self.raw.append(text)
                with contextlib.suppress(json.JSONDecodeError):
                    self.lines.append(json.loads(text) | {"at_s": time.monotonic()})
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def of_type(self, kind: str) -> list[Line]:
        return [line for line in list(self.lines) if line["type"] == kind]

    @property
    def runs(self) -> list[Line]:
        """The runs that did something."""
        return self.of_type("run")

    @property
    def notes(self) -> list[str]:
        return [line["text"] for line in self.of_type("note")]

    def wait_for(self, condition: Callable[[], Any], what: str = "", seconds: float = LIMIT_S) -> None:
        """Until it holds; looked at whenever something was printed, and now and then."""
        limit_s = time.monotonic() + seconds
        with self._changed:
            while not condition():
                assert self.process.poll() is None or condition(), f"it has ended: {self.said}"
                assert time.monotonic() < limit_s, f"{what or condition} didn't come true\n{self.said}"
                self._changed.wait(0.05)

    def wait_until_idle(self, after: int = 0) -> None:
        """Until its first look is over, it has done at least `after` runs, and nothing is waiting."""

        def is_idle() -> bool:
            last = self.lines[-1] if self.lines else {}
            return (
                len(self.runs) >= after
                and last.get("phase") == "watching"
                and last["paths"] == 0
                and last["everything_in_s"] > 5
            )

        self.wait_for(is_idle, f"{after} runs, then nothing to do")

    def looks_at_everything(self) -> list[tuple[float, float]]:
        """When each began and had ended, at the latest, of those that have."""
        out, begun_s = [], None
        for line in list(self.lines):
            if begun_s is not None and line.get("phase") in ("looking", "watching"):
                out.append((begun_s, line["at_s"]))
                begun_s = None
            if line.get("phase") == "looking" and line["everything"]:
                begun_s = line["at_s"]
        return out

    def kill(self) -> None:
        """As a power button would."""
        end_group(self.process)
        self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> Line:
        """End it as a service manager would. Out: its summary."""
        self.process.send_signal(number)
        self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        assert self.process.returncode == 0, self.said
        assert "Traceback" not in self.said, self.said
        assert self.lines[-1]["type"] == "summary"
        return self.lines[-1]

    @property
    def said(self) -> str:
        """All that it has printed; standard error once it has ended."""
        errors = ""
        if self.process.poll() is not None and self.process.stderr is not None:
            with contextlib.suppress(ValueError):
                errors = self.process.stderr.read()
        return "".join(self.raw[-200:]) + errors


def watched_backup(base: Path, settings: Mapping[str, Any] | None = None, **more: Any) -> Backup:
    """A backup with short delays."""
    return Backup(base, settings={**QUICK, **(settings or {})}, **more)


@contextmanager
def watching(
    backup: Backup, *arguments: str, variables: Mapping[str, str] | None = None, idle: bool = True
) -> Iterator[Watched]:
    """A watch that has done its first look (idle) and is killed at the end if it still runs."""
    watched = Watched(backup.start("watch", "--json", *arguments, variables=variables))
    try:
        if idle:
            watched.wait_until_idle()
        yield watched
    finally:
        if watched.process.poll() is None:
            end_group(watched.process)
        watched.process.wait(LIMIT_S)
        for stream in (watched.process.stdout, watched.process.stderr):
            if stream is not None:
                with contextlib.suppress(ValueError):
                    stream.close()


def processor_s(watched: Watched) -> float:
    """Of the watch and all that it has started, every thread (the first field of schedstat, proc(5))."""
    total_ns = 0
    for pid in [watched.process.pid, *descendants(watched.process.pid)]:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / 1e9
