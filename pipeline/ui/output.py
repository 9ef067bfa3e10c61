"""The two output streams, made safe for a run that must not end because of them.

In: text or bytes. Out: the same on standard output or standard error.
Guarantees: when the reader of a stream has gone away (`| head`), the rest is dropped silently and the run
goes on. Fails with `PipelineError` when a stream can't be written for another reason.
"""

from __future__ import annotations

import os
import sys
from typing import BinaryIO, TextIO

from pipeline.model.errors import PipelineError


class Output:
    """A stream whose reader may go away. is_open: nobody has gone away yet."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.is_open = True
        self._stream = stream
        self._name = name

    @property
    def is_terminal(self) -> bool:
        return self.is_open and self._stream.isatty()

    def write(self, data: bytes) -> None:
        if self.is_open:
            try:
                self._stream.write(data)
            except OSError as error:
                self._gone(error)

    def flush(self) -> None:
        if self.is_open:
            try:
                self._stream.flush()
            except OSError as error:
                self._gone(error)

    def line(self, text: str) -> None:
        """A line of text that is seen at once."""
        self.write(f"{text}\n".encode("utf-8", "backslashreplace"))
        self.flush()

    def _gone(self, error: OSError) -> None:
        self.is_open = False
        _discard(self._stream)
        if not isinstance(error, BrokenPipeError):
            raise PipelineError(f"{self._name} can't be written: {error.strerror}") from error


def standard_output() -> Output:
    return Output(_bytes_of(sys.stdout), "standard output")


def standard_error() -> Output:
    return Output(_bytes_of(sys.stderr), "standard error")


def _bytes_of(stream: TextIO) -> BinaryIO:
    stream.flush()
    return stream.buffer


def _discard(stream: BinaryIO) -> None:
    """Python flushes its streams once more at its end; what is left then has to go somewhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
