"""Frames over one-way pipes: what the parent and its children say to each other.

A frame is a header (payload length, batch number, files, bytes) and a payload that nobody on the way needs to
look into. Children read and write with blocking calls. The parent never blocks on a child: it takes what
has arrived and sends what fits, so a stopped child can't stop it.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

_HEADER = struct.Struct("<IQIQ")
END = (1 << 64) - 1
ALIVE = END - 1
FAILED = END - 2
BEGUN = END - 3
SETUP = END - 4
REST = END - 5
"""Numbers of frames that are no batch: the scan has ended; a sign of life; the child's last words; a worker
has taken up the batch that it was given first; what a worker is to be from now on; that it is nothing for
now."""

_READ_BYTES = 1 << 18


class Frame(NamedTuple):
    number: int
    files: int
    size_bytes: int
    payload: bytes


def write_frame(handle: int, frame: Frame) -> None:
    """Blocking. Raises BrokenPipeError where the reader is gone."""
    header = _HEADER.pack(len(frame.payload), frame.number, frame.files, frame.size_bytes)
    data = memoryview(header + frame.payload)
    while data:
        data = data[os.write(handle, data) :]


def read_frame(handle: int) -> Frame | None:
    """Blocking. None where the writer is gone."""
    header = _read_exactly(handle, _HEADER.size)
    if header is None:
        return None
    length, number, files, size_bytes = _HEADER.unpack(header)
    payload = _read_exactly(handle, length)
    return Frame(number, files, size_bytes, payload) if payload is not None else None


def _read_exactly(handle: int, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = os.read(handle, count - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)


class Inbox:
    """The parent's end of a pipe from a child."""

    def __init__(self, handle: int) -> None:
        os.set_blocking(handle, False)
        self.handle = handle
        self.is_closed = False
        self._data = bytearray()

    def take(self) -> list[Frame]:
        """The frames that are complete by now. What a dead child left unfinished is never seen."""
        self._receive()
        return self._frames()

    def take_rest(self) -> list[Frame]:
        """After the child's end: all that it still had sent."""
        while self._receive():
            continue
        return self._frames()

    def _receive(self) -> bool:
        """Whether something had arrived."""
        try:
            piece = os.read(self.handle, _READ_BYTES)
        except BlockingIOError:
            return False
        self.is_closed = not piece
        self._data += piece
        return bool(piece)

    def _frames(self) -> list[Frame]:
        frames, start = [], 0
        while len(self._data) - start >= _HEADER.size:
            length, number, files, size_bytes = _HEADER.unpack_from(self._data, start)
            end = start + _HEADER.size + length
            if len(self._data) < end:
                break
            frames.append(Frame(number, files, size_bytes, bytes(self._data[start + _HEADER.size : end])))
            start = end
        del self._data[:start]
        return frames


class Outbox:
    """The parent's end of a pipe to a child. Holds what doesn't fit yet; its owner bounds how much."""

    def __init__(self, handle: int) -> None:
        os.set_blocking(handle, False)
        self.handle = handle
        self._data = bytearray()

    @property
    def is_empty(self) -> bool:
        return not self._data

    def put(self, frame: Frame) -> None:
        self._data += _HEADER.pack(len(frame.payload), frame.number, frame.files, frame.size_bytes)
        self._data += frame.payload
        self.flush()

    def flush(self) -> None:
        """Send what fits. A reader that is gone is noticed by its sentinel, not here."""
        try:
            while self._data:
                del self._data[: os.write(self.handle, self._data)]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._data.clear()
