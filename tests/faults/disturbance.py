"""Somebody who changes a tree all the time, as fast as the system allows, while a test does something else.

In: places to swap, or files to write. Out: a process at work. Guarantees: it is at work when the context
begins, and is gone when it ends, with every pair of places the right way round again.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_EXCHANGE = 2  # RENAME_EXCHANGE, linux/fs.h
_HERE = -100  # AT_FDCWD
_SWAP = """
import ctypes, os, sys
exchange = ctypes.CDLL(None, use_errno=True).renameat2
pairs = [(os.fsencode(a), os.fsencode(b)) for a, b in zip(sys.argv[1::2], sys.argv[2::2])]
print("at work", flush=True)
while True:
    for one, other in pairs:
        assert exchange(-100, one, -100, other, 2) == 0
"""
_WRITE = """
import os, sys
growing, shrinking, rewritten, replaced = sys.argv[1:]
full, piece = os.path.getsize(growing), os.urandom(1 << 16)
handles = [os.open(path, os.O_RDWR) for path in (growing, shrinking, rewritten)]
print("at work", flush=True)
number = 0
while True:
    number += 1
    os.pwrite(handles[0], piece, os.fstat(handles[0]).st_size if number % 200 else 0)
    if number % 200 == 0:
        os.ftruncate(handles[0], full)
    os.ftruncate(handles[1], full - number % 97 * 4001)
    os.pwrite(handles[2], b"%d" % number, number * 7919 % full)
    with open(replaced + ".new", "wb") as new:
        new.write(b"%d" % number * 100)
    os.replace(replaced + ".new", replaced)
"""


def exchange(one: Path, other: Path) -> None:
    """Swap what two names name, in one step."""
    code = ctypes.CDLL(None, use_errno=True).renameat2(
        _HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE
    )
    assert code == 0, os.strerror(ctypes.get_errno())


@contextmanager
def at_work(code: str, *arguments: Path) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"at work\n"
        yield
        assert process.poll() is None, "it has ended by itself"
    finally:
        process.kill()
        process.communicate()


@contextmanager
def swapping(pairs: Sequence[tuple[Path, Path]]) -> Iterator[None]:
    """Each pair of places is swapped again and again."""
    inodes = [one.lstat().st_ino for one, _ in pairs]
    try:
        with at_work(_SWAP, *(place for pair in pairs for place in pair)):
            yield
    finally:
        for (one, other), inode in zip(pairs, inodes, strict=True):
            if one.lstat().st_ino != inode:
                exchange(one, other)


@contextmanager
def writing(growing: Path, shrinking: Path, rewritten: Path, replaced: Path) -> Iterator[None]:
    """One file grows, one shrinks (both to begin again), one gets other bytes, one is replaced by another."""
    with at_work(_WRITE, growing, shrinking, rewritten, replaced):
        yield
