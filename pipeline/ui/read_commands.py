"""What the commands that read a whole backup do: restore, verify, rebuild.

In: the options as plain values. Out: the exit code, and what a person or a script is told. Guarantees: as for
`pipeline.ui.commands`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pipeline import config as configuration
from pipeline.config import Config
from pipeline.model.errors import ExitCode, PipelineError, Problem, Severity
from pipeline.model.report import ReadMonitor, ReadSummary
from pipeline.ui.commands import EXIT_CODES, Shown, guarded
from pipeline.ui.output import standard_error, standard_output
from pipeline.ui.reading import ReadJson, ReadLines

if TYPE_CHECKING:
    from pipeline.views.wanted import Request

Work: TypeAlias = Callable[[Config, ReadMonitor, Callable[[], bool]], ReadSummary]


def watched(
    command: str, file: Path | None, settings: Sequence[str], shown: Shown, dry_run: bool, work: Work
) -> ExitCode:
    """Do the work, watched by JSON lines or by the terminal, and tell its end whatever it is."""
    from pipeline.ui.signals import stop_on_signals
    from pipeline.ui.terminal import Detail

    out, deeds = standard_output(), shown.verbose or (dry_run and not shown.quiet)
    if shown.json:
        return _as_json(command, file, settings, dry_run, work, ReadJson(out, deeds))
    monitor = ReadLines(out, standard_error(), Detail(deeds, shown.quiet, out.is_terminal))

    def run() -> ExitCode:
        config = configuration.load(file, settings)
        with stop_on_signals("Stopping; press Ctrl-C again to stop at once.\n") as stop:
            return EXIT_CODES[work(config, monitor, stop).status]

    return guarded(run)


def _as_json(
    command: str, file: Path | None, settings: Sequence[str], dry_run: bool, work: Work, monitor: ReadJson
) -> ExitCode:
    from pipeline.ui.signals import stop_on_signals

    began_s = time.monotonic()

    def end(status: str) -> None:
        told = monitor.summary or ReadSummary(command, None, status, {}, 0, dry_run)
        monitor.finished(told._replace(status=status, seconds=time.monotonic() - began_s))

    try:
        config = configuration.load(file, settings)
        with stop_on_signals("") as stop:
            return EXIT_CODES[work(config, monitor, stop).status]
    except PipelineError as error:
        monitor.problem(Problem(Severity.ERROR, None, error.one_line))
        end("failed")
        return error.exit_code
    except KeyboardInterrupt:
        end("interrupted")
        return ExitCode.INTERRUPTED
    except Exception:
        end("failed")
        raise
    finally:
        monitor.close()


def verify(
    file: Path | None,
    settings: Sequence[str],
    sample: float | None,
    at_most_s: float | None,
    repair: bool,
    shown: Shown,
) -> ExitCode:
    """Read what is stored, and compare it with the state."""
    from pipeline.pool.forkserver import VERIFYING, start_fork_server

    start_fork_server(*VERIFYING)  # it loads its modules while we load ours

    def work(config: Config, monitor: ReadMonitor, stop: Callable[[], bool]) -> ReadSummary:
        from pipeline.views.verify import Request, verify

        return verify(config, Request(sample, at_most_s, repair), monitor, stop)

    return watched("verify", file, settings, shown, False, work)


def restore(file: Path | None, settings: Sequence[str], request: Request, shown: Shown) -> ExitCode:
    """Bring back what a run held, into a folder."""

    def work(config: Config, monitor: ReadMonitor, stop: Callable[[], bool]) -> ReadSummary:
        from pipeline.views.restore import restore

        return restore(config, request, monitor, stop)

    return watched("restore", file, settings, shown, request.dry_run, work)


def rebuild(file: Path | None, settings: Sequence[str], dry_run: bool, shown: Shown) -> ExitCode:
    """Make a new state from the files of the backup alone."""
    from pipeline.pool.forkserver import REBUILDING, start_fork_server

    start_fork_server(*REBUILDING)  # it loads its modules while we load ours

    def work(config: Config, monitor: ReadMonitor, stop: Callable[[], bool]) -> ReadSummary:
        from pipeline.views.rebuild import rebuild

        return rebuild(config, monitor, stop, dry_run)

    return watched("rebuild", file, settings, shown, dry_run, work)
