"""The options that many commands have, in one wording.

In: click commands. Out: the same with more options. Nothing of ours is imported, so `--help` stays fast.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def config_options(command: F) -> F:
    """The two options that every command has."""
    file = click.option(
        "--config",
        "file",
        metavar="PATH",
        type=click.Path(path_type=Path, readable=False),
        help="Configuration file; config.toml in the current folder if left out.",
    )
    settings = click.option(
        "--set",
        "settings",
        metavar="KEY=VALUE",
        multiple=True,
        help="Setting over what the file says; may be repeated.",
    )
    return file(settings(command))


json_option = click.option("--json", is_flag=True, help="Print JSON lines and nothing else.")


def shown_options(each: str) -> Callable[[F], F]:
    """What a command tells. each: what `--verbose` tells every one of, and what more."""
    quiet = click.option("--quiet", "-q", is_flag=True, help="Tell problems only.")
    verbose = click.option("--verbose", "-v", is_flag=True, help=f"Tell every {each}.")

    def add(command: F) -> F:
        return json_option(quiet(verbose(command)))

    return add


def refuse_both(quiet: bool, verbose: bool) -> None:
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose can't be used together")


at_option = click.option(
    "--at", metavar="RUN|TIME", help="As it was at the end of a run, or of the last run that ended by a time."
)
