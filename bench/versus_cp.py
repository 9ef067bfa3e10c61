"""How long restoring a whole backup takes, as a ratio to `cp -a` of the same tree to the same file system.

    python bench/versus_cp.py [--files 100000] [--folders 2000] [--rounds 5] [--where /dev/shm]

`cp -a` copies; `restore` copies, hashes every byte and compares it with the state. They take turns, warm,
whole processes, each into a new folder whose removal doesn't count; medians and the ratio of each pair are
printed as a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from trees import make_tree, write_config
from versus_rsync import timed


def measure(folder: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each round, ours and cp's, in turns after one of each that doesn't count."""
    timed([sys.executable, "-m", "pipeline", "run", "--quiet"], folder)
    ours = [sys.executable, "-m", "pipeline", "restore", "--quiet", "--to", "restored"]
    copy = ["cp", "-a", "data/.", "copied"]

    def once(command: list[str]) -> float:
        if command is copy:
            (folder / "copied").mkdir()
        seconds = timed(command, folder)
        shutil.rmtree(folder / ("copied" if command is copy else "restored"))
        return seconds

    once(ours), once(copy)
    pairs = [(once(ours), once(copy)) for _ in range(rounds)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--folders", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--where", type=Path, default=Path("/dev/shm"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.where) as name:
        folder = Path(name)
        size_bytes = make_tree(folder / "data", options.files, options.folders)
        write_config(folder)
        ours, cp = measure(folder, options.rounds)
    ratio = statistics.median(a / b for a, b in zip(ours, cp, strict=True))
    print(f"{options.files} files, {size_bytes / 1e6:.0f} MB, restored, {os.cpu_count()} processors\n")
    print("| restore, s (median) | cp -a, s (median) | ratio (median of pairs) |\n|---|---|---|")
    print(f"| {statistics.median(ours):.2f} | {statistics.median(cp):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
