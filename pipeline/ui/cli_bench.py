"""The command line of `bench`.

In: the arguments. Out: a call in `pipeline.ui.benching`. Imports nothing of ours before the command runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.ui.options import config_options, json_option


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path, readable=False))
@config_options
@click.option(
    "--seconds",
    metavar="S",
    type=click.FloatRange(0.05),
    default=3.0,
    show_default=True,
    help="At most so long for each measurement.",
)
@json_option
def bench(
    path: Path | None, file: Path | None, settings: tuple[str, ...], seconds: float, json: bool
) -> None:
    """Measure how fast this machine hashes, and say what to set.

    Without PATH on data that is made for it. With PATH on your own files, which are only read: first with
    cold caches (as root those of the whole machine are dropped, else those of the files), then with warm
    ones. No configuration is needed; one that is given is set beside what is recommended.

    \b
    Examples:
      python -m pipeline bench
      python -m pipeline bench /srv/data --seconds 10
    """
    from pipeline.ui.benching import run_bench

    sys.exit(run_bench(path, file, settings, seconds, json))
