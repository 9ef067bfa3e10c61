"""The program with workers that die or wait at chosen files, and looks at what its processes wait for.

In: a backup. Out: variables for its calls. Guarantees: nothing of the program is changed but what `os.preadv`
and `os.read` do with files of certain names, in all its processes: at `deadly…` the reader kills itself, at
`slow…` it waits while the gate is closed. A gate never stays closed for longer than a minute.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness import REPOSITORY, Backup, wait_until
from processes import descendants, has_open, parent_of, stations

_CODE = """
import os, signal, time

def _doctored(read, gate):
    def doctored(handle, *rest):
        name = os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))
        if name.startswith("deadly"):
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("slow") and os.path.exists(gate):
            open(f"{gate}.{os.getpid()}", "w").close()
            limit = time.monotonic() + 60
            while os.path.exists(gate) and time.monotonic() < limit:
                time.sleep(0.01)
        return read(handle, *rest)
    return doctored

os.preadv, os.read = (_doctored(read, "GATE") for read in (os.preadv, os.read))
"""


class Gate:
    """Where readers of `slow…` files wait until it is opened."""

    def __init__(self, base: Path) -> None:
        self._place = base / "gate"
        self._place.touch()

    def waiting(self) -> list[int]:
        """The processes that have come to it."""
        return sorted(int(place.suffix[1:]) for place in self._place.parent.glob("gate.*"))

    def wait_for(self, count: int) -> list[int]:
        assert wait_until(lambda: len(self.waiting()) >= count), "nobody has come to the gate"
        return self.waiting()

    def open(self) -> None:
        self._place.unlink(missing_ok=True)


def doctored(backup: Backup) -> dict[str, str]:
    """The variables with which a call of the program is doctored."""
    folder = backup.base / "doctored"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_CODE.replace("GATE", str(backup.base / "gate")))
    return {"PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}


def fork_server(run: int) -> int | None:
    """The process that starts a run's stations, as soon as there is one."""
    for child in descendants(run):
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"forkserver" in words and parent_of(child) == run:
            return child
    return None


def workers_of(backup: Backup, run: int) -> list[int]:
    """Those of the stations that write to staging; the scanner doesn't."""
    staging = backup.root / ".pipeline" / "staging"
    return [station for station in stations(run) if has_open(station, staging)]


def is_writing_to_a_pipe(pid: int) -> bool:
    """Whether a process hangs in writing to a pipe that is full."""
    try:
        return "pipe_write" in Path(f"/proc/{pid}/wchan").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
