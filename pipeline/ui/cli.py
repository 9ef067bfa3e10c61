"""The command line: which commands and options there are.

In: the arguments. Out: a call in `pipeline.ui.commands`, whose answer is the exit code. Imports nothing of
ours before a command runs, so that `--help` is there at once. Bad usage ends with exit code 2.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pipeline.ui import cli_bench, cli_lists, cli_reading
from pipeline.ui.options import config_options, json_option, refuse_both, shown_options

_PROGRAM = "python -m pipeline"
_NO_FORK = """error: this system isn't supported yet: Python has no fork here (Windows)
Use the program on Linux; WSL 2 has one."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def app() -> None:
    """Incremental backup by content hash whose backup is ordinary files."""


@app.command()
@config_options
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@shown_options("action; with --dry-run also what is left out, and by which rule")
def run(
    file: Path | None, settings: tuple[str, ...], dry_run: bool, json: bool, quiet: bool, verbose: bool
) -> None:
    """Back up what is new or has changed.

    \b
    Example:
      python -m pipeline run --config config.toml --set retention.max_versions_per_file=3
    """
    refuse_both(quiet, verbose)
    from pipeline.ui import commands

    sys.exit(commands.run(file, settings, dry_run, commands.Shown(json, quiet, verbose)))


@app.command()
@config_options
@click.option("--dry-run", is_flag=True, help="Print what would be done, and write nothing.")
@shown_options("action")
def watch(
    file: Path | None, settings: tuple[str, ...], dry_run: bool, json: bool, quiet: bool, verbose: bool
) -> None:
    """Keep the backup current: back up what changes, soon after it has.

    Begins with a run over everything, and ends with Ctrl-C or SIGTERM (exit code 0).

    \b
    Example:
      python -m pipeline watch --config config.toml --set watch.debounce_seconds=5
    """
    refuse_both(quiet, verbose)
    from pipeline.ui import commands

    sys.exit(commands.watch(file, settings, dry_run, commands.Shown(json, quiet, verbose)))


@app.command()
@config_options
@click.option("--dry-run", is_flag=True, help="Print what would go, and why, and write nothing.")
@click.option("--accept-clock", is_flag=True, help="The clock is right, whatever earlier runs have seen.")
@shown_options("version")
def prune(
    file: Path | None,
    settings: tuple[str, ...],
    dry_run: bool,
    accept_clock: bool,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Take what the rules in [retention] take, now, without a look at the sources.

    A run does the same at its end. --accept-clock ends a warning that the clock has jumped, or lies before an
    earlier run.

    \b
    Example:
      python -m pipeline prune --dry-run --set retention.max_age_days=90
    """
    refuse_both(quiet, verbose)
    from pipeline.ui import commands

    sys.exit(commands.prune(file, settings, dry_run, accept_clock, commands.Shown(json, quiet, verbose)))


@app.command()
@config_options
def export(file: Path | None, settings: tuple[str, ...]) -> None:
    """Print the state of the backup as canonical JSON lines.

    \b
    Example:
      python -m pipeline export --config config.toml > state.jsonl
    """
    from pipeline.ui import commands

    sys.exit(commands.export(file, settings))


@app.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@config_options
@json_option
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path, readable=False))
def check(file: Path | None, settings: tuple[str, ...], json: bool, paths: tuple[Path, ...]) -> None:
    """Check the configuration and its sources, and print what it comes to; or, with PATHs, whether each is
    backed up, and if not, which rule leaves it out.

    \b
    Examples:
      python -m pipeline config check --config config.toml
      python -m pipeline config check src/build/a.o
    """
    from pipeline.ui import commands

    if paths:
        sys.exit(commands.explain(file, settings, json, paths))
    sys.exit(commands.check(file, settings, json))


for command in (
    cli_bench.bench,
    cli_reading.restore,
    cli_reading.verify,
    cli_reading.rebuild,
    *cli_lists.COMMANDS,
):
    app.add_command(command)


def main() -> None:
    """Entry point; ends the process with the command's exit code."""
    if not hasattr(os, "fork"):
        click.echo(_NO_FORK, err=True)
        sys.exit(1)
    try:
        sys.exit(app(prog_name=_PROGRAM, standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:  # Ctrl-C before a command has its own way with it
        sys.exit(130)
