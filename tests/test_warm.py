"""Commands begun from nothing, as a person begins it: what tests call warm answers the very same."""

from __future__ import annotations

import copy
import re
from pathlib import Path

from harness import Backup, Result

LINES = (
    "status", "runs --json", "ls --at 2", "ls --at 99", "history docs/one", "diff 1 3", "duplicates",
    "export", "config check", "config check docs/one", "verify", "restore --to NEW",
    "restore folder --to NEW --at 1 --verbose", "run --dry-run", "rebuild",
    "prune --dry-run", "history docs/one --why", "watch --help", "no such command",
)  # fmt: skip


def told(result: Result) -> tuple[int, str, str]:
    """All that a call has answered, but for figures: times and rates are among them."""
    return result.exit, re.sub(r"\d+(\.\d+)?", "#", result.stdout), re.sub(r"\d+(\.\d+)?", "#", result.stderr)


def test_cold_and_warm_are_the_same(past: Backup, tmp_path: Path) -> None:
    """Each command, and mistakes in a command line: the same exit code and the same words."""
    cold = copy.copy(past)
    cold.is_warm = False
    for number, line in enumerate(LINES):
        one, other = (line.replace("NEW", str(tmp_path / f"{number}{n}")).split() for n in range(2))
        assert told(cold.call(*one, expect=None)) == told(past.call(*other, expect=None)), line
