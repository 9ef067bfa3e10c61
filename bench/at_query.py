"""How long it takes to ask a large state what was there at the end of an earlier run.

    python bench/at_query.py [--files 10000000] [--where /dev/shm]

Makes a state of so many paths, of which a tenth changed later and some were deleted. Then asks it as
`restore --at` and `ls --at` do: for one file, for one folder of 100 files, and for everything.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.model.record import Area, Kind
from pipeline.store.past import read_held
from pipeline.store.reading import Reader
from pipeline.store.schema import SCHEMA, SCHEMA_VERSION
from pipeline.store.state import connect_writer

FILES_PER_FOLDER = 100


def path_of(number: int) -> bytes:
    folder, file = divmod(number, FILES_PER_FOLDER)
    return b"data\0%05d\0%03d\0file%02d" % (folder // 1000, folder % 1000, file)


def rows(files: int) -> Iterator[tuple[object, ...]]:
    """The records: every tenth path changed in run 5, every thousandth was deleted in run 7."""
    for number in range(files):
        area = Area.DELETED if number % 1000 == 999 else Area.LIVE
        since = 7 if area is Area.DELETED else 5 if number % 10 == 0 else 1
        yield (
            path_of(number), Kind.FILE, 0o100644, 0, 0, 1, 1, number, 8000, b"%032d" % number, None, area,
            None, 2 if since == 5 else 1, int(since == 5), since, 0,
        )  # fmt: skip


def closed(files: int) -> Iterator[tuple[object, ...]]:
    for number in range(files):
        if number % 10 == 0 or number % 1000 == 999:
            to_run = 7 if number % 1000 == 999 else 5
            yield path_of(number), 1, to_run, Kind.FILE, 0o100644, 0, 0, 1, 8000, b"old", None, 1


def make_state(path: Path, files: int) -> None:
    connection = connect_writer(path)
    connection.executescript(f"{SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; PRAGMA synchronous = OFF;")
    connection.execute("DROP INDEX files_live")  # of no use for this question, and slow to make
    connection.execute("BEGIN")
    connection.executemany(f"INSERT INTO files VALUES ({', '.join('?' * 17)})", rows(files))
    connection.executemany(f"INSERT INTO history VALUES ({', '.join('?' * 12)})", closed(files))
    connection.execute("COMMIT")
    connection.close()


def best_of(times: int, state: Reader, low: bytes, high: bytes) -> tuple[float, int]:
    """The shortest time in seconds, and how many rows came."""
    spans = []
    for _ in range(times):
        begin_s = time.perf_counter()
        found = sum(1 for _ in read_held(state, 3, low, high, with_low=True))
        spans.append(time.perf_counter() - begin_s)
    return min(spans), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000_000)
    parser.add_argument("--where", type=Path, default=Path("/dev/shm"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.where) as name:
        path = Path(name) / "state.db"
        make_state(path, options.files)
        state = Reader(path)
        one = path_of(options.files // 2)
        folder = one.rpartition(b"\0")[0]
        questions = {
            "one file": (one, one + b"\0", 20),
            "a folder of 100 files": (folder, folder + b"\1", 20),
            "everything": (b"", b"\xff", 1),
        }
        print(f"{options.files:,} paths, state.db of {path.stat().st_size / 1e9:.2f} GB, asked for run 3\n")
        print("| question | rows | time |\n|---|---|---|")
        for question, (low, high, times) in questions.items():
            span_s, found = best_of(times, state, low, high)
            print(f"| {question} | {found:,} | {span_s * 1000:,.2f} ms |")
        state.close()


if __name__ == "__main__":
    main()
