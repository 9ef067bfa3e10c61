"""Runs caught in the middle: a backup large enough, and the moments at which tests step in.

In: a backup. Out: its running process. Guarantees: no moment hangs on a sleep, and nothing is left running.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Backup, end_group, wait_until
from trees import write_tree

FILES = 800


def many_files(base: Path) -> Backup:
    """A backup whose run prints more than a pipe holds, so that it can't end before somebody reads."""
    backup = Backup(base)
    names = [f"folder{number % 30:02}/file{number:04} {'x' * 100}" for number in range(FILES)]
    write_tree(backup.source, {name: name * 50 for name in names})
    return backup


@contextmanager
def held_up(backup: Backup) -> Iterator[subprocess.Popen[str]]:
    """A run that is at work, has said its first decision, and waits for somebody to read the next ones."""
    process = backup.start("run", "--json", "--verbose")
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if '"action"' in line:
                break
        assert process.poll() is None
        yield process
    finally:
        end_group(process)
        process.communicate()


@contextmanager
def at_work(backup: Backup) -> Iterator[subprocess.Popen[str]]:
    """A first run that has staged something and named nothing yet."""
    process = backup.start("run", "--json")
    staging = backup.root / ".pipeline" / "staging"
    try:
        assert wait_until(lambda: staging.is_dir() and bool(os.listdir(staging)))
        yield process
    finally:
        end_group(process)
        process.communicate()
