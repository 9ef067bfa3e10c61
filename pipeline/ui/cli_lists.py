"""The commands that only look: runs, history, ls, diff, duplicates, status.

In: the arguments. Out: a call in `pipeline.ui.lists` or `pipeline.ui.overviews`, whose answer is the exit
code. Imports nothing of ours before a command runs but the shared options, so that `--help` is there at
once.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.ui.options import at_option, config_options, json_option


@click.command()
@config_options
@json_option
def runs(file: Path | None, settings: tuple[str, ...], json: bool) -> None:
    """List the runs: when, how long, what changed, how they ended.

    \b
    Example:
      python -m pipeline runs --config config.toml
    """
    from pipeline.ui import overviews

    sys.exit(overviews.list_of_runs(file, settings, json))


@click.command()
@click.argument("path")
@config_options
@click.option("--why", is_flag=True, help="For each version, the rule that keeps it, or will take it.")
@json_option
def history(path: str, file: Path | None, settings: tuple[str, ...], why: bool, json: bool) -> None:
    """List every content that PATH had, oldest first, and where it lies now.

    States that differ in metadata only stand below their content. --why judges the versions by the rules in
    [retention] as the next run would, but for `max_versions_bytes`, which depends on all other paths.

    \b
    Examples:
      python -m pipeline history docs/one.txt --config config.toml
      python -m pipeline history docs/one.txt --why --set retention.keep_monthly=12
    """
    from pipeline.ui import lists

    sys.exit(lists.history_of(file, settings, json, path, why))


@click.command()
@click.argument("path", required=False)
@at_option
@config_options
@json_option
def ls(path: str | None, at: str | None, file: Path | None, settings: tuple[str, ...], json: bool) -> None:
    """List what is backed up at PATH and below it, or everything.

    \b
    Example:
      python -m pipeline ls docs/letters --at 12 --config config.toml
    """
    from pipeline.ui import lists

    sys.exit(lists.ls(file, settings, json, path, at))


@click.command()
@click.argument("first", metavar="RUN|TIME")
@click.argument("second", metavar="RUN|TIME")
@config_options
@json_option
def diff(first: str, second: str, file: Path | None, settings: tuple[str, ...], json: bool) -> None:
    """List what differs from the end of one run to the end of another.

    A time stands for the last run that ended by then. Where the first one is the later one, the difference is
    told backwards.

    \b
    Example:
      python -m pipeline diff 3 2026-11-24T18:30 --config config.toml
    """
    from pipeline.ui import lists

    sys.exit(lists.differences(file, settings, json, first, second))


@click.command()
@config_options
@json_option
def duplicates(file: Path | None, settings: tuple[str, ...], json: bool) -> None:
    """List the files of equal content, those that cost most space first.

    \b
    Example:
      python -m pipeline duplicates --config config.toml
    """
    from pipeline.ui import overviews

    sys.exit(overviews.list_of_duplicates(file, settings, json))


@click.command()
@config_options
@json_option
def status(file: Path | None, settings: tuple[str, ...], json: bool) -> None:
    """Tell the last run, how much is stored where, and whether a run is at work or was cut.

    \b
    Example:
      python -m pipeline status --config config.toml
    """
    from pipeline.ui import overviews

    sys.exit(overviews.status_of(file, settings, json))


COMMANDS = (runs, history, ls, diff, duplicates, status)
