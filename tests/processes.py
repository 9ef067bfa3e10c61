"""The processes of a run, seen from outside: which there are, and signals to them.

Linux only (`/proc`). A process may vanish at any moment, so every look-up answers with what it found.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def parent_of(pid: int) -> int | None:
    """The parent's id; None for a process that is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[1])


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    return parent_of(pid) is not None


def descendants(pid: int) -> list[int]:
    """All living processes below one, in the order of their ids."""
    parents = {int(name): parent_of(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {pid})


def stations(pid: int) -> list[int]:
    """The scanner and the workers, in the order of their ids: what the fork server has started."""
    below = {child: parent_of(child) for child in descendants(pid)}
    direct = [child for child, parent in below.items() if parent == pid]
    servers = [child for child in direct if "forkserver" in command_line(child)]
    return [child for child, parent in below.items() if parent in servers]


def has_open(pid: int, place: Path) -> bool:
    """Whether a process holds a folder or a file open."""
    handles = Path(f"/proc/{pid}/fd")
    with contextlib.suppress(FileNotFoundError, PermissionError, ProcessLookupError):
        return any(os.path.realpath(handle) == str(place.resolve()) for handle in handles.iterdir())
    return False


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
