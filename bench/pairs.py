"""Whole processes of this repository's program, timed."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def timed(command: list[str], folder: Path) -> float:
    """Wall time of one command in seconds. Raises CalledProcessError where it fails."""
    begin_s = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment(folder), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin_s


def environment(folder: Path) -> dict[str, str]:
    """Of a whole process: this repository's program. Byte code is kept, as it is where that is installed."""
    words = {"PYTHONPATH": str(REPOSITORY), "PYTHONPYCACHEPREFIX": str(folder / "byte_code")}
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | words
