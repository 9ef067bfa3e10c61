"""Two sorted streams side by side. Pure.

In: two streams, each strictly ascending by a key. Out: for each key, once and in order, what either has of
it.
Guarantees: neither stream is read further ahead than by one item, so memory stays flat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def lock_step(
    left: Iterable[T], right: Iterable[T], key: Callable[[T], bytes]
) -> Iterator[tuple[T | None, T | None]]:
    """Pairs of equal key; None stands for what a stream doesn't have."""
    lefts, rights = iter(left), iter(right)
    one, other = next(lefts, None), next(rights, None)
    while one is not None and other is not None:
        low, high = key(one), key(other)
        if low < high:
            yield one, None
            one = next(lefts, None)
        elif low > high:
            yield None, other
            other = next(rights, None)
        else:
            yield one, other
            one, other = next(lefts, None), next(rights, None)
    while one is not None:
        yield one, None
        one = next(lefts, None)
    while other is not None:
        yield None, other
        other = next(rights, None)
