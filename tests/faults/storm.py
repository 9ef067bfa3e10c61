"""A storm: random work on a tree of files, by a process that writes down which contents lay where, and when.

In: a folder of its own, a seed, seconds. Out: that folder in turmoil, and a line for each content that lay
still: `{"digest", "path", "from_s", "to_s"}` on standard output, times of the monotonic clock. Bounded: some
hundred files, a few operations for each hundredth of a second. Called as `storm.py FOLDER SEED SECONDS`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import time
from pathlib import Path

_FILES, _FOLDERS = 400, 25
_HOT, _HOT_SHARE = 10, 0.9
"""Most of it happens to a few files; the others lie still for a while."""
_PAUSE_S = 0.01
_OPERATIONS_PER_PAUSE = 3


class Storm:
    """What lies where: `held` has, for each file, its content's digest and since when."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)
        self.held: dict[Path, tuple[str, float]] = {}
        self.folders = [root]
        self.next = 0

    def blow(self, seconds: float) -> None:
        """All kinds of operations, until the time is over; then tell of what is left."""
        end_s = time.monotonic() + seconds
        kinds = [self.write_new, self.rewrite, self.append, self.replace, self.move, self.delete]
        kinds += [self.make_folder, self.move_folder, self.remove_folder]
        weights = [3, 8, 4, 6, 2, 2, 0.3, 0.15, 0.08]
        while time.monotonic() < end_s:
            for kind in self.random.choices(kinds, weights, k=_OPERATIONS_PER_PAUSE):
                kind()
            time.sleep(_PAUSE_S)  # the pace of the storm: nobody waits for anything here
        for file in list(self.held):
            self.ended(file)

    # -- bookkeeping --------------------------------------------------------------------------------------

    def wrote(self, file: Path, content: bytes) -> None:
        self.held[file] = (hashlib.sha256(content).hexdigest(), time.monotonic())

    def ended(self, file: Path) -> tuple[str, float]:
        """Before anything is done to it."""
        digest, from_s = self.held.pop(file)
        line = {"digest": digest, "path": str(file), "from_s": from_s, "to_s": time.monotonic()}
        print(json.dumps(line))
        return digest, from_s

    def some_file(self) -> Path | None:
        files = list(self.held)
        if self.random.random() < _HOT_SHARE:
            files = files[-_HOT:]
        return self.random.choice(files) if files else None

    def new_name(self) -> Path:
        self.next += 1
        return self.random.choice(self.folders) / f"f{self.next % _FILES}"

    def new_content(self) -> bytes:
        return self.random.randbytes(self.random.choice((10, 3000, 40_000)))

    # -- operations ---------------------------------------------------------------------------------------

    def write_new(self) -> None:
        file = self.new_name()
        if file.parent / file.name in self.folders:
            return
        if file in self.held:
            self.ended(file)
        content = self.new_content()
        file.write_bytes(content)
        self.wrote(file, content)

    def rewrite(self) -> None:
        if file := self.some_file():
            self.ended(file)
            content = self.new_content()
            file.write_bytes(content)
            self.wrote(file, content)

    def append(self) -> None:
        if file := self.some_file():
            self.ended(file)
            with file.open("ab") as opened:
                opened.write(self.random.randbytes(100))
            self.wrote(file, file.read_bytes())

    def replace(self) -> None:
        """As editors save."""
        if file := self.some_file():
            self.ended(file)
            content, draft = self.new_content(), file.with_name(".draft")
            draft.write_bytes(content)
            draft.replace(file)
            self.wrote(file, content)

    def move(self) -> None:
        file, to = self.some_file(), self.new_name()
        if file is None or file == to:
            return
        if to in self.held:
            self.ended(to)
        self.ended(file)
        file.replace(to)
        self.wrote(to, to.read_bytes())

    def delete(self) -> None:
        if file := self.some_file():
            self.ended(file)
            file.unlink()

    def make_folder(self) -> None:
        if len(self.folders) < _FOLDERS:
            self.next += 1
            folder = self.random.choice(self.folders) / f"d{self.next}"
            folder.mkdir()
            self.folders.append(folder)

    def move_folder(self) -> None:
        """With all that lies in it."""
        if len(self.folders) < 2:
            return
        folder = self.random.choice(self.folders[1:])
        outside = [f for f in self.folders if f != folder and folder not in f.parents]
        self.next += 1
        to = self.random.choice(outside) / f"m{self.next}"
        inside = [file for file in self.held if folder in file.parents]
        for file in inside:
            self.ended(file)
        folder.rename(to)
        for file in inside:
            moved = to / file.relative_to(folder)
            self.wrote(moved, moved.read_bytes())
        self.folders = [
            to / f.relative_to(folder) if f == folder or folder in f.parents else f for f in self.folders
        ]

    def remove_folder(self) -> None:
        if len(self.folders) < 2:
            return
        folder = self.random.choice(self.folders[1:])
        for file in [file for file in self.held if folder in file.parents]:
            self.ended(file)
        shutil.rmtree(folder)
        self.folders = [f for f in self.folders if f != folder and folder not in f.parents]


if __name__ == "__main__":
    place, seed_text, seconds_text = sys.argv[1:]
    os.makedirs(place, exist_ok=True)
    Storm(Path(place), int(seed_text)).blow(float(seconds_text))
