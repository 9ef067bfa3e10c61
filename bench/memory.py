"""Peak memory of the whole process tree during a run, at one or more sizes of tree.

    python bench/memory.py [--files 100000 1000000] [--workers 2] [--where /dev/shm]

Memory is PSS (shared pages counted once, by shares), summed over the run's processes and sampled every 20 ms
from /proc/PID/smaps_rollup. Prints a Markdown table: first run, and a run with nothing changed. Linux only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from trees import make_tree, write_config

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE_S = 0.02


def session_pss_bytes(session: int) -> int:
    """The summed PSS of all processes of a session."""
    total = 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if os.getsid(int(entry)) == session:
                rollup = Path(f"/proc/{entry}/smaps_rollup").read_text(encoding="ascii")
                total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue  # it has just ended
    return total * 1024


def peak_of_run(folder: Path, workers: int) -> tuple[float, int]:
    """Seconds and peak PSS in bytes of one run. Raises CalledProcessError where it fails."""
    command = [sys.executable, "-m", "pipeline", "run", "--quiet", "--set", f"workers.count={workers}"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    begin_s = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
    peak_bytes = 0
    while process.poll() is None:
        peak_bytes = max(peak_bytes, session_pss_bytes(process.pid))
        time.sleep(SAMPLE_S)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - begin_s, peak_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--mean-bytes", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--where", type=Path, default=Path("/dev/shm"))
    options = parser.parse_args()
    print("| files | first run, s | its peak PSS, MiB | nothing changed, s | its peak PSS, MiB |")
    print("|---|---|---|---|---|")
    for files in options.files:
        with tempfile.TemporaryDirectory(dir=options.where) as name:
            folder = Path(name)
            make_tree(folder / "data", files, max(1, files // 50), options.mean_bytes)
            write_config(folder)
            first_s, first_bytes = peak_of_run(folder, options.workers)
            again_s, again_bytes = peak_of_run(folder, options.workers)
        row = (files, f"{first_s:.1f}", first_bytes >> 20, f"{again_s:.1f}", again_bytes >> 20)
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
