"""A list of paths too long for memory: written once, read once, in order, in an unnamed file.

Guarantees: no name is ever made for it, so nothing is left by a kill; memory stays flat (promise 6). Fails
with OSError where its folder can't be written.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_LENGTH = struct.Struct("<I")


class PathSpool:
    """folder: where the unnamed file lies; None for the system's temporary folder."""

    def __init__(self, folder: Path | None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as the spool

    def add(self, path: bytes) -> None:
        self._file.write(_LENGTH.pack(len(path)))
        self._file.write(path)

    def finish(self) -> None:
        """The whole list is in the file. Raises OSError."""
        self._file.flush()

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0, os.SEEK_SET)
        while header := self._file.read(_LENGTH.size):
            yield self._file.read(_LENGTH.unpack(header)[0])

    def close(self) -> None:
        with suppress(OSError):  # what could not be written, nobody needs any more
            self._file.close()
