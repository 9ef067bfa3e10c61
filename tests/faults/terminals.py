"""A terminal that somebody sits at: the program's output as it would reach the screen.

In: words of a call. Out: the bytes that the terminal got, the exit code. Guarantees: standard output and
standard error are a terminal (or standard error alone, which is where bars are drawn); the call has a
deadline, and ends with all that it has started.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

from harness import REPOSITORY, end_group, environment

_DEADLINE_S = 60.0
RICH_S = re.compile(rb"\x1b\[(\d+(;\d+)*)?m|\x1b\[\?25[lh]|\x1b\[\d*[AK]|\r")
"""What draws bars and tables: colours, the cursor hidden and shown, a line up, a line cleared."""


class Shown(NamedTuple):
    """What a call has put on the screen."""

    exit: int
    screen: bytes

    def raw(self) -> set[str]:
        """Characters that a terminal obeys, or that lie about the order of others, with those of bars and
        tables left out; and bytes that are no text."""
        text = RICH_S.sub(b"", self.screen).decode("utf-8", "surrogateescape")
        return {character for character in text if is_obeyed(character)}


BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_obeyed(character: str) -> bool:
    number = ord(character)
    is_control = number < 0x20 or 0x7F <= number < 0xA0 or 0xDC80 <= number < 0xDD00
    return (is_control and character != "\n") or character in BIDI or character in "\u2028\u2029"


def on_a_terminal(words: Sequence[str], *, only_errors: bool = False) -> Shown:
    """One call. only_errors: standard output goes nowhere, so that bars are drawn beside `--verbose`."""
    screen, terminal = pty.openpty()
    output = subprocess.DEVNULL if only_errors else terminal
    process = subprocess.Popen(
        words, cwd=REPOSITORY, env=environment({"TERM": "xterm-256color", "COLUMNS": "2000"}),
        stdin=subprocess.DEVNULL, stdout=output, stderr=terminal, start_new_session=True, encoding="utf-8",
    )  # fmt: skip
    os.close(terminal)
    try:
        shown = _until_closed(screen)
        return Shown(process.wait(timeout=_DEADLINE_S), shown)
    finally:
        end_group(process)
        process.wait(timeout=_DEADLINE_S)
        os.close(screen)


def _until_closed(screen: int) -> bytes:
    """All that is written until nobody has the terminal open any more. (Its `\\r\\n` are line ends.)"""
    limit, pieces = time.monotonic() + _DEADLINE_S, []
    while True:
        ready, _, _ = select.select([screen], [], [], max(0.0, limit - time.monotonic()))
        assert ready, f"no end after {_DEADLINE_S} s: {b''.join(pieces)[-2000:]!r}"
        try:
            piece = os.read(screen, 1 << 16)
        except OSError:  # Linux says EIO when the last one has closed it
            piece = b""
        if not piece:
            return b"".join(pieces).replace(b"\r\n", b"\n")
        pieces.append(piece)
