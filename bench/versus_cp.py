"""How long restoring a whole backup takes, as a ratio to `cp -a` of the same tree to the same file system.

    python bench/versus_cp.py [--files 100000] [--folders 2000] [--rounds 5] [--where /dev/shm]

`cp -a` copies; `restore` copies, hashes every byte and compares it with the state. They take turns, warm,
whole processes, each into a new folder whose removal doesn't count; medians and the ratio of each pair are
printed as a Markdown table.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from pairs import compare, timed


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


if __name__ == "__main__":
    compare(__doc__, "restored", "restore", "cp -a", measure)
