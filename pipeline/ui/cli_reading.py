"""The command line of what reads a whole backup: restore, verify, rebuild.

In: the arguments. Out: a call in `pipeline.ui.read_commands`. Imports nothing of ours before a command runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import click

from pipeline.ui.options import at_option, config_options, refuse_both, shown_options


@click.command()
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@config_options
@click.option(
    "--to",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path, readable=False),
    help="New or empty folder to restore into.",
)
@at_option
@click.option("--version", metavar="N", type=click.IntRange(1), help="A content by its number in `history`.")
@click.option(
    "--overwrite",
    type=click.Choice(["if-different", "always"]),
    help="Also into a folder that isn't empty: replace what differs, or all.",
)
@click.option("--specials", is_flag=True, help="Also fifos, sockets and (as root) devices.")
@click.option("--numeric-ids", is_flag=True, help="Owners by their numbers, not by their names first.")
@click.option("--dry-run", is_flag=True, help="Tell what would be restored, and write nothing.")
@shown_options("path")
def restore(
    paths: tuple[str, ...],
    file: Path | None,
    settings: tuple[str, ...],
    to: Path,
    at: str | None,
    version: int | None,
    overwrite: str | None,
    specials: bool,
    numeric_ids: bool,
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
    refuse_both(quiet, verbose)
    from pipeline.pool.forkserver import RESTORING, start_fork_server

    start_fork_server(*RESTORING)  # it loads its modules while we load ours
    from pipeline.ui import commands, read_commands
    from pipeline.views.wanted import Request

    request = Request(paths, to, at, version, overwrite or "never", dry_run, specials, numeric_ids)
    sys.exit(read_commands.restore(file, settings, request, commands.Shown(json, quiet, verbose)))


class _Share(click.ParamType[float]):
    """A part of a whole as a number from 0 to 1."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        try:
            share = float(str(value).removesuffix("%")) / 100
        except ValueError:
            share = 0
        if not 0 < share <= 1:
            self.fail(f"{value!r} is no share; for example 5%", param, context)
        return share


class _Duration(click.ParamType[float]):
    """A time span in seconds."""

    name = "duration"
    _UNITS_S: ClassVar = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        text = str(value)
        unit_s = self._UNITS_S.get(text[-1:])
        try:
            seconds = float(text[:-1] if unit_s else text) * (unit_s or 1)
        except ValueError:
            seconds = 0
        if not 0 < seconds < float("inf"):
            self.fail(f"{value!r} is no time span; for example 90s, 30m, 2h", param, context)
        return seconds


@click.command()
@config_options
@click.option("--sample", metavar="SHARE", type=_Share(), help="Read only a part, the next one at each call.")
@click.option("--at-most", metavar="TIME", type=_Duration(), help="Stop after so long; the next goes on.")
@click.option("--repair", is_flag=True, help="Store rotten and missing files again from the source.")
@shown_options("path")
def verify(
    file: Path | None,
    settings: tuple[str, ...],
    sample: float | None,
    at_most: float | None,
    repair: bool,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Read what is stored, and compare it with what the state says.

    Tells what is rotten, missing, foreign or misplaced, and ends with exit code 3 if anything is. Writes
    nothing unless --repair is given; that needs the source to have the very content still.

    \b
    Examples:
      python -m pipeline verify
      python -m pipeline verify --sample 5% --at-most 30m
    """
    refuse_both(quiet, verbose)
    from pipeline.ui import commands, read_commands

    shown = commands.Shown(json, quiet, verbose)
    sys.exit(read_commands.verify(file, settings, sample, at_most, repair, shown))


@click.command()
@config_options
@click.option(
    "--dry-run", is_flag=True, help="Read everything, tell what would come of it, and write nothing."
)
@shown_options("path")
def rebuild(
    file: Path | None, settings: tuple[str, ...], dry_run: bool, json: bool, quiet: bool, verbose: bool
) -> None:
    """Make a new state.db from the files of the backup alone, when it is lost or damaged.

    Reads everything that is stored; nothing of it is renamed or overwritten. A damaged state is kept aside.

    \b
    Example:
      python -m pipeline rebuild --config config.toml
    """
    refuse_both(quiet, verbose)
    from pipeline.ui import commands, read_commands

    sys.exit(read_commands.rebuild(file, settings, dry_run, commands.Shown(json, quiet, verbose)))
