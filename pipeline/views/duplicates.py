"""`duplicates`: files in the source that have the same content, and what that costs.

In: an opened backup. Out: `Group` values, those that cost most first, and the paths of each.
Guarantees: takes no lock, writes nothing; memory stays flat (`store.scratch`), also for a group of millions.
Fails with ScratchError, and with SQLite's errors, which `open_for_reading` translates.
"""

from __future__ import annotations

from pipeline.model.record import Kind, Record
from pipeline.store.reading import read_range
from pipeline.store.scratch import Group, Groups
from pipeline.views.opening import HIGHEST, LOWEST, Opened

__all__ = ["Group", "Groups", "duplicates"]


def duplicates(opened: Opened) -> Groups:
    """All groups of equal content: same digest, same size, not empty. To be closed by the caller."""
    groups = Groups()
    for row in read_range(opened.state, LOWEST, HIGHEST):
        record = Record._make(row)
        is_file = record.is_present and record.kind == Kind.FILE
        if is_file and record.size > 0 and record.digest is not None:
            groups.add(record.digest, record.size, record.path)
    groups.group()
    return groups
