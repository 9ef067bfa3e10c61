"""The command line of what reads a whole backup: restore, verify, rebuild.

In: the arguments. Out: a call in `pipeline.ui.read_commands`. Imports nothing of ours before a command runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pipeline.ui.options import at_option, config_options, json_option

F = TypeVar("F", bound=Callable[..., Any])


def _shown_options(command: F) -> F:
    quiet = click.option("--quiet", "-q", is_flag=True, help="Tell problems only.")
    verbose = click.option("--verbose", "-v", is_flag=True, help="Tell every path.")
    return json_option(quiet(verbose(command)))


def _refuse_both(quiet: bool, verbose: bool) -> None:
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose can't be used together")


@click.command()
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@config_options
@click.option(
    "--to",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="New or empty folder to restore into.",
)
@at_option
@click.option("--version", metavar="N", type=click.IntRange(1), help="A content by its number in `history`.")
@click.option(
    "--overwrite",
    type=click.Choice(["if-different", "always"]),
    help="Also into a folder that isn't empty: replace what differs, or all.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would be restored, and write nothing.")
@_shown_options
def restore(
    paths: tuple[str, ...],
    file: Path | None,
    settings: tuple[str, ...],
    to: Path,
    at: str | None,
    version: int | None,
    overwrite: str | None,
    dry_run: bool,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Bring back the whole backup, or the PATHs, as they are or as they were.

    Every byte is checked on its way; a stored file that is rotten is named and not restored. A PATH is
    written as the log and `ls` show it; one source lands in DIR itself, several in folders with their names.

    \b
    Examples:
      python -m pipeline restore --to /tmp/all
      python -m pipeline restore docs/letters --to /tmp/letters --at 2026-11-24
      python -m pipeline restore docs/one.txt --to /tmp/one --version 3
    """
    _refuse_both(quiet, verbose)
    from pipeline.ui import commands, read_commands

    shown = commands.Shown(json, quiet, verbose)
    code = read_commands.restore(file, settings, paths, to, at, version, overwrite, dry_run, shown)
    sys.exit(code)
