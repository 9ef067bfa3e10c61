"""What the comparisons with other programs share: a seeded tree, whole processes, one Markdown table."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from trees import make_tree, write_config

REPOSITORY = Path(__file__).resolve().parent.parent
Measure = Callable[[Path, int], tuple[list[float], list[float]]]
"""Takes a folder with the tree in `data` and the number of rounds; gives seconds, ours and the other's."""


def timed(command: list[str], folder: Path) -> float:
    """Wall time of one command in seconds. Raises CalledProcessError where it fails.

    Byte code is kept, as it is where the program is installed.
    """
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONPYCACHEPREFIX": str(folder / "byte_code"),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begin_s = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin_s


def compare(usage: str, what: str, ours: str, other: str, measure: Measure) -> None:
    """Read the options, measure, print. what: was done. ours, other: names of the two commands."""
    parser = argparse.ArgumentParser(description=usage, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--folders", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--where", type=Path, default=Path("/dev/shm"))
    options = parser.parse_args()
    if shutil.which(other.split()[0]) is None:
        parser.error(f"{other.split()[0]} is not installed")
    with tempfile.TemporaryDirectory(dir=options.where) as name:
        folder = Path(name)
        size_bytes = make_tree(folder / "data", options.files, options.folders)
        write_config(folder)
        own_s, other_s = measure(folder, options.rounds)
    ratio = statistics.median(a / b for a, b in zip(own_s, other_s, strict=True))
    print(f"{options.files} files, {size_bytes / 1e6:.0f} MB, {what}, {os.cpu_count()} processors\n")
    print(f"| {ours}, s (median) | {other}, s (median) | ratio (median of pairs) |\n|---|---|---|")
    print(f"| {statistics.median(own_s):.2f} | {statistics.median(other_s):.2f} | {ratio:.2f} |")
