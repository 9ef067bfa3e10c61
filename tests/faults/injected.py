"""Faults at chosen system calls, by strace: which ones a run makes, a kill at one, an error as its answer.

In: a backup and a system call. Out: words that go before the program's own, or what the run has called.
Guarantees: counted are the calls of the parent process alone, unless `children` says otherwise; a call at
which the process is killed has not been carried out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness import Backup, end_group

CHANGING = (
    "rename", "renameat", "renameat2", "linkat", "symlinkat", "unlink", "unlinkat", "rmdir", "mkdir",
    "mkdirat", "openat", "write", "pwrite64", "ftruncate", "fchmod", "fchown", "utimensat", "fsync",
    "fdatasync", "syncfs",
)  # fmt: skip
"""All calls by which the parent changes anything on a disk, or waits for it; of openat, those for writing."""
_FOR_WRITING = re.compile(r"O_WRONLY|O_RDWR|O_CREAT")
_CALL = re.compile(r"^(\w+)\(")


class Call(NamedTuple):
    """The nth call of its name in a run. text: as strace shows it."""

    name: str
    nth: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.nth}"


def tracing(log: Path, names: Sequence[str] = CHANGING) -> list[str]:
    """Write down the calls of these names."""
    return ["strace", "-y", "-s", "256", "-o", str(log), "-e", f"trace={','.join(names)}"]


def killing(call: Call) -> list[str]:
    """SIGKILL instead of the nth call of its name."""
    return _inject(call.name, f"signal=KILL:when={call.nth}")


def failing(name: str, error: str, when: str, *, children: bool = False) -> list[str]:
    """An error as the answer to some calls of a name. when: as strace has it, `3`, `3+`, `2+2`."""
    return _inject(name, f"error={error}:when={when}", *(["-f"] if children else []))


def _inject(name: str, what: str, *options: str) -> list[str]:
    return ["strace", *options, "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:{what}"]


def calls_of(log: Path) -> list[Call]:
    """What a trace tells, in order; of openat only those for writing, counted among all."""
    counts: Counter[str] = Counter()
    calls = []
    for line in log.read_text(errors="replace").splitlines():
        found = _CALL.match(line)
        if found is None:
            continue
        name = found[1]
        counts[name] += 1
        if name != "openat" or _FOR_WRITING.search(line):
            calls.append(Call(name, counts[name], line))
    return calls


def run_killed_at(backup: Backup, call: Call) -> bool:
    """A run that is killed instead of making this call. Whether it came to that."""
    process = backup.start("run", "--quiet", under=killing(call))
    try:
        process.communicate(timeout=60)
    finally:
        end_group(process)
        process.communicate()
    return process.returncode == -9 or process.returncode == 137
