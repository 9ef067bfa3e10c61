"""Runs that end at a chosen file operation, as if they had been killed there: recorded, and not carried out.

In: a backup, and after how many operations the run ends. Out: a backup with pending intents. Guarantees: the
run is the real one, in a process of its own; only the moment of its end is chosen.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from harness import REPOSITORY, TIME_LIMIT_S, Backup, environment

EXIT = 97
_PROGRAM = f"""
import os, sys
from pipeline.store.files import StoredFiles

left = int(sys.argv.pop(1))
do = StoredFiles._apply

def counted(self, operation):
    global left
    if left == 0:
        os._exit({EXIT})
    left -= 1
    do(self, operation)

StoredFiles._apply = counted
from pipeline.ui.cli import main
main()
"""


def run_cut_after(
    backup: Backup, operations: int, command: str = "run", variables: Mapping[str, str] | None = None
) -> bool:
    """Run and end before the next file operation. Whether there was one more."""
    backup._exported = None
    words = [
        sys.executable,
        "-c",
        _PROGRAM,
        str(operations),
        command,
        "--config",
        str(backup.config),
        "--quiet",
    ]
    process = subprocess.run(
        words,
        cwd=REPOSITORY,
        env=environment(variables),
        capture_output=True,
        timeout=TIME_LIMIT_S,
        text=True,
    )
    assert process.returncode in (0, EXIT), process.stdout + process.stderr
    return process.returncode == EXIT
