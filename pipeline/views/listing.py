"""`ls`: what a run held, or what there is now.

In: an opened backup, a path or the whole, a run. Out: `Listed` values in scan order, a bounded piece at a
time.
Guarantees: takes no lock, writes nothing, and memory stays flat. Fails with ArgumentError where the path
was not there in that run, and with SQLite's errors, which `open_for_reading` translates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.model import treepath
from pipeline.model.errors import ArgumentError
from pipeline.model.record import Held
from pipeline.store.past import NOW, read_held
from pipeline.views.opening import HIGHEST, LOWEST, Opened
from pipeline.views.where import held_at


class Listed(NamedTuple):
    """An entry state and where its content lies now."""

    held: Held
    stored_at: bytes | None


def listing(opened: Opened, path: bytes | None, run: int) -> Iterator[Listed]:
    """Everything at a path and below it; path: None for all sources. run: NOW for the latest state."""
    everything = read_held(opened.state, run, LOWEST, HIGHEST)
    held = everything if path is None else _from(opened, path, run)
    return (Listed(one, held_at(opened, one)) for one in held)


def _from(opened: Opened, path: bytes, run: int) -> Iterator[Held]:
    entries = read_held(opened.state, run, path, treepath.below(path)[1], with_low=True)
    first = next(entries, None)
    if first is None:
        when = "is no longer in the source" if run == NOW else f"was not there at the end of run {run}"
        raise ArgumentError(
            f"{treepath.shown(path)} {when}",
            "`python -m pipeline history PATH` lists all that it ever was.",
        )
    yield first
    yield from entries
