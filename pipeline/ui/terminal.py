"""What a person sees of a run: bars or lines of progress, problems, plans, the summary at the end.

In: the calls of a run. Out: plans and summary on standard output, progress and problems on standard error.
Guarantees: no name reaches the terminal unescaped or is taken for markup; without a terminal rich is never
imported. Needs no thread of its own: bars move when `progress` is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pipeline.model.errors import Problem
from pipeline.model.plan import Plan
from pipeline.model.report import Excluded, Progress, RunInfo, Summary
from pipeline.ui.figures import Pace, headline, is_idle, progress_line, summary_rows, works
from pipeline.ui.lines import excluded_line, plan_lines, problem_line
from pipeline.ui.output import Output

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars

STATIONS = ("Scanning", "Hashing", "Committing")
_LINE_INTERVAL_S = 20.0
_BARS_AFTER_S = 0.5
_BARS_INTERVAL_S = 0.1


class Detail(NamedTuple):
    """How much is shown. plans: every decision. quiet: only problems. table: the summary as a rich table.
    excluded: every entry that is left out."""

    plans: bool = False
    quiet: bool = False
    table: bool = False
    excluded: bool = False


class PlainLines:
    """Monitor for where no bars can be drawn: a line of progress every 20 seconds."""

    wants_skips = False

    def __init__(self, out: Output, err: Output, detail: Detail) -> None:
        self._out = out
        self._err = err
        self._detail = detail
        self.wants_excluded = detail.excluded
        self._pace = Pace()
        self._line_due_s = _LINE_INTERVAL_S
        self._has_started = False

    def started(self, run: RunInfo) -> None:
        self._has_started = True

    def progress(self, progress: Progress) -> None:
        rate = self._pace.rate(progress)
        if self._detail.quiet or progress.elapsed_s < self._line_due_s:
            return
        self._line_due_s = progress.elapsed_s + _LINE_INTERVAL_S
        self._out.flush()
        self._err.line(progress_line(progress, rate))

    def acted(self, plan: Plan) -> None:
        if self._detail.plans:
            for line in plan_lines(plan):
                self._out.write(f"{line}\n".encode())

    def skipped(self, path: bytes) -> None:
        """Unchanged files are only counted."""

    def excluded(self, entry: Excluded) -> None:
        self._out.write(f"{excluded_line(entry)}\n".encode())

    def problem(self, problem: Problem) -> None:
        # What was decided before a problem is to stand before it, also where both streams are one.
        self._out.flush()
        self._err.line(problem_line(problem))

    def finished(self, summary: Summary) -> None:
        if self._has_started and not self._detail.quiet:
            print_summary(summary, self._out, self._detail.table)
        self._out.flush()


class ProgressBars(PlainLines):
    """Monitor for a terminal: live bars below whatever else is printed."""

    def __init__(self, out: Output, err: Output, detail: Detail) -> None:
        super().__init__(out, err, detail)
        self._bars: Bars | None = None
        self._bars_due_s = _BARS_AFTER_S

    def progress(self, progress: Progress) -> None:
        rate = self._pace.rate(progress)
        if progress.elapsed_s < self._bars_due_s:
            return
        self._bars_due_s = progress.elapsed_s + _BARS_INTERVAL_S
        if self._bars is None:
            self._bars = new_bars(*STATIONS)
        move_bars(self._bars, progress, rate)
        self._bars.refresh()

    def problem(self, problem: Problem) -> None:
        if self._bars is None:
            super().problem(problem)
        else:
            print_above(self._bars.console, problem_line(problem))

    def finished(self, summary: Summary) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        super().finished(summary)


def print_summary(summary: Summary, out: Output, table: bool) -> None:
    """The sentence that says how it went, then the figures; they go without saying where nothing was done."""
    text = headline(summary)
    counts = summary.counts
    rows = [] if is_idle(summary) and not counts.warnings + counts.errors else summary_rows(summary)
    print_rows(text, rows, out, table)


def print_rows(text: str, rows: list[tuple[str, str]], out: Output, table: bool) -> None:
    """A sentence, then labels and figures; table: as a rich one."""
    if table and rows:
        text = f"{text}\n{_rich_table(rows)}"
    elif rows:
        text = "\n".join([text, *_plain_table(rows)])
    out.line(text)


def _plain_table(rows: list[tuple[str, str]]) -> list[str]:
    label_width = max(len(label) for label, _ in rows)
    figure_width = max(len(figure) for _, figure in rows)
    return [f"  {label:<{label_width}}  {figure:>{figure_width}}" for label, figure in rows]


def _rich_table(rows: list[tuple[str, str]]) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    for label, figure in rows:
        is_bad = label in ("warnings", "errors", "suspect (kept for good)")
        table.add_row(Text(label), Text(figure, style="bold red" if is_bad else ""))
    console = Console(markup=False, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")


def new_bars(*names: str) -> Bars:
    """Bars on standard error that vanish at the end and are drawn only when they are told to."""
    bars = bars_on(new_console(), *names)
    bars.start()
    return bars


def new_console() -> Console:
    """Standard error, without markup."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False)


def bars_on(console: Console, *names: str) -> Bars:
    """Bars that aren't shown yet."""
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<10}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    bars = Bars(*columns, console=console, auto_refresh=False, transient=True, redirect_stdout=False)
    for name in names:
        bars.add_task(name, total=None, detail="")
    return bars


def move_bars(bars: Bars, progress: Progress, rate: float) -> None:
    """To where a run is. They aren't drawn by it."""
    for task, work in zip(bars.tasks, works(progress, rate), strict=True):
        bars.update(task.id, completed=work.done, total=work.total, detail=work.detail)


def print_above(console: Console, line: str) -> None:
    """A line above the bars, which rich then draws anew."""
    from rich.text import Text

    console.print(Text(line), soft_wrap=True)
