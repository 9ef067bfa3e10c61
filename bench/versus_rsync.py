"""How long a run takes when nothing has changed, as a ratio to `rsync -ac` on the same tree.

    python bench/versus_rsync.py [--files 100000] [--folders 2000] [--rounds 5] [--where /dev/shm]

Both compare contents. They take turns, warm, whole processes; medians and the ratio of each pair are printed
as a Markdown table. Needs rsync.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pairs import compare, timed


def measure(folder: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each round, ours and rsync's, in turns after one of each that doesn't count."""
    ours = [sys.executable, "-m", "pipeline", "run", "--quiet"]
    rsync = ["rsync", "-ac", "data/", "copy/"]
    for command in (ours, ours, rsync, rsync):  # the first stores, the second settles
        timed(command, folder)
    pairs = [(timed(ours, folder), timed(rsync, folder)) for _ in range(rounds)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


if __name__ == "__main__":
    compare(__doc__, "nothing changed", "run", "rsync -ac", measure)
