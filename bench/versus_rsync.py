"""How long a run takes when nothing has changed, as a ratio to `rsync -ac` on the same tree.

    python bench/versus_rsync.py [--files 100000] [--folders 2000] [--rounds 5] [--where /dev/shm]

Both compare contents. They take turns, warm, whole processes; medians and the ratio of each pair are printed
as a Markdown table. Needs rsync.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from trees import make_tree, write_config

REPOSITORY = Path(__file__).resolve().parent.parent


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


def measure(folder: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each round, ours and rsync's, in turns after one of each that doesn't count."""
    ours = [sys.executable, "-m", "pipeline", "run", "--quiet"]
    rsync = ["rsync", "-ac", "data/", "copy/"]
    for command in (ours, ours, rsync, rsync):  # the first stores, the second settles
        timed(command, folder)
    pairs = [(timed(ours, folder), timed(rsync, folder)) for _ in range(rounds)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--folders", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--where", type=Path, default=Path("/dev/shm"))
    options = parser.parse_args()
    if shutil.which("rsync") is None:
        parser.error("rsync is not installed")
    with tempfile.TemporaryDirectory(dir=options.where) as name:
        folder = Path(name)
        size_bytes = make_tree(folder / "data", options.files, options.folders)
        write_config(folder)
        ours, rsync = measure(folder, options.rounds)
    ratio = statistics.median(a / b for a, b in zip(ours, rsync, strict=True))
    print(f"{options.files} files, {size_bytes / 1e6:.0f} MB, nothing changed, {os.cpu_count()} processors\n")
    print("| run, s (median) | rsync -ac, s (median) | ratio (median of pairs) |\n|---|---|---|")
    print(f"| {statistics.median(ours):.2f} | {statistics.median(rsync):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
