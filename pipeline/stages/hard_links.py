"""Which paths are names of one file (hard links): decided after the scan, from the state.

In: the state, and a way to execute plans. Out: plans after which each name knows the first of them in scan
order. Guarantees: bounded memory, as one inode's names are together in an index; the same state gives the
same plans. Yields now and then, so that the caller can look around, and stop.

Names of one file agree in all that was seen of them, time stamps to the nanosecond, too. A snapshot that is
mounted in its own source agrees as well; what has more names than its file system says is two files, and then
nobody is a name of another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline import planner
from pipeline.model import treepath
from pipeline.model.plan import Plan
from pipeline.model.record import NAMES_MASK
from pipeline.planner import Context
from pipeline.store.state import State


def find_names(
    state: State, execute: Callable[[Plan], None], context_of: Callable[[bytes], Context]
) -> Iterator[None]:
    last, firsts = (-(1 << 63), b""), dict[tuple[object, ...], bytes | None]()
    while found := state.names_of_files(last):
        for record in found:
            if record.inode != last[0]:
                firsts.clear()
            last = record.inode, record.path
            seen = (treepath.source_name(record.path), record.links, *record[1:11], record.attributes)
            if seen not in firsts:
                is_one = state.count_names(record) <= record.links & NAMES_MASK
                firsts[seen] = record.path if is_one else None
            first = firsts[seen]
            linked_to = first if first != record.path else None
            if record.linked_to != linked_to:
                execute(planner.plan_names(record, linked_to, context_of(record.path)))
        yield
