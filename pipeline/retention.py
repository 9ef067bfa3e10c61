"""Which versions of a path have to go. Pure: in, its versions and the limit; out, those that retention takes.

Guarantees: a pinned version is never taken and never counted; the newest ones stay; the oldest go first.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.model.record import Version, VersionStatus


def expired(versions: Iterable[Version], limit: int) -> list[Version]:
    """The versions beyond `limit`, lowest number first."""
    counted = sorted(v for v in versions if v.status == VersionStatus.KEPT and not v.pinned)
    return counted[: max(0, len(counted) - limit)]
