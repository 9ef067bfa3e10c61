"""How often a process of a line looks for garbage in cycles: seldom.

Batches are thousands of short-lived tuples without cycles; looking for some after each few hundred of them is
a tenth of the time of a process. Guarantees: cycles are still found, so memory stays bounded.
"""

from __future__ import annotations

import gc

_NEW_OBJECTS = 100_000


def collect_seldom() -> None:
    """From now on, in this process. What is there already is looked at no more."""
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 10, 10)
