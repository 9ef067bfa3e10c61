"""Seeded trees for the measurements: many small files, sizes lognormal around a mean, in nested folders."""

from __future__ import annotations

import math
import random
from pathlib import Path

FOLDERS_PER_FOLDER = 50
_SIGMA = 1.0
_LARGEST_BYTES = 1 << 20


def make_tree(root: Path, files: int, folders: int, mean_bytes: int = 8192, seed: int = 1) -> int:
    """Write a tree of `files` files in `folders` folders. Returns its size in bytes.

    mean_bytes: the mean of the lognormal sizes (sigma 1), cut at 1 MiB.
    """
    choose = random.Random(seed)
    location = math.log(mean_bytes) - _SIGMA**2 / 2
    total_bytes = 0
    for number in range(folders):
        folder = root / f"{number // FOLDERS_PER_FOLDER:03d}" / f"{number % FOLDERS_PER_FOLDER:02d}"
        folder.mkdir(parents=True)
        share = files // folders + (number < files % folders)
        for index in range(share):
            size_bytes = min(int(choose.lognormvariate(location, _SIGMA)), _LARGEST_BYTES)
            (folder / f"file{index:05d}").write_bytes(choose.randbytes(size_bytes))
            total_bytes += size_bytes
    return total_bytes


def make_large(root: Path, files: int = 16, size_bytes: int = 128 << 20, seed: int = 2) -> None:
    """Write a few large files with different contents."""
    choose = random.Random(seed)
    root.mkdir(parents=True)
    piece = choose.randbytes(1 << 20)
    for number in range(files):
        with (root / f"large{number:02d}").open("wb") as file:
            for index in range(size_bytes >> 20):
                file.write(piece[index % 997 :] + piece[: index % 997])
            file.write(b"%d" % number)


def make_equal(root: Path, files: int, size_bytes: int, seed: int = 3) -> None:
    """Write files of one size, each with its own bytes."""
    piece = random.Random(seed).randbytes(min(size_bytes, 1 << 20))
    for number in range(files):
        with (root / f"{number:06d}").open("wb") as file:
            file.write((b"%d" % number + piece)[: len(piece)])
            for _ in range(size_bytes // len(piece) - 1):
                file.write(piece)


def write_config(folder: Path) -> Path:
    """A configuration that backs up `folder/data` into `folder/backup`."""
    file = folder / "config.toml"
    file.write_text('sources = ["data"]\nbackup_root = "backup"\nlog_dir = "logs"\n', encoding="utf-8")
    return file
