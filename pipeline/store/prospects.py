"""What retention has to look at, so that it needn't look at every version: kept by the state as versions come
and time goes by.

In: plans as they are written, and what retention finds out about a path. Out: the paths that are due, and the
versions that a budget may take, oldest first. Two tables, made when rules first need them:

- `prospects`: a path, and when it has to be judged next. 0: at the end of this run, because it has got a
  version or has left its source. A path may stand in it several times; too early a look does no harm.
- `spare_versions` (only with a budget): versions that count and aren't the newest of their path, in the order
  in which a budget takes them. One that is no longer so is passed over by whoever reads it.

Guarantees: the rows are written in the transaction that makes them true, so they survive any cut; what comes
out is bounded. They are complete only if every run since the last look at everything has kept them, under the
same rules: a run that doesn't (another program, a configuration without such rules), a state made anew, and a
version that was lost, make `is_complete` false, and then everything is to be judged once. Fails as the state
does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.model.plan import Plan
from pipeline.model.record import Area, Kind, Record, Version, VersionStatus
from pipeline.store.reading import RANGE_ROWS, RECORD_COLUMNS
from pipeline.store.state import RETENTION_RULES, State

_RUN = "retention_run"
_BYTES = "versions_bytes"
AT_ONCE = 0
"""When a path is due that has to be judged at the end of the run."""
_NEVER_NS = (1 << 63) - 1

_TABLES = (
    "CREATE TABLE IF NOT EXISTS prospects (due_ns INTEGER NOT NULL, path BLOB NOT NULL,"
    " PRIMARY KEY (due_ns, path)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS spare_versions (replaced_run INTEGER NOT NULL, path BLOB NOT NULL,"
    " number INTEGER NOT NULL, PRIMARY KEY (replaced_run, path, number)) WITHOUT ROWID",
)
_COUNTS = f"status = {VersionStatus.KEPT:d} AND kind = {Kind.FILE:d} AND NOT pinned"
_SUM = f"SELECT coalesce(sum(size), 0) FROM versions WHERE {_COUNTS}"
_WITH_VERSIONS = (
    f"SELECT {RECORD_COLUMNS} FROM files WHERE path > ? AND (+kept_versions > 0 OR (area = {Area.DELETED:d}"
    f" AND (digest IS NOT NULL OR target IS NOT NULL))) ORDER BY path LIMIT {RANGE_ROWS}"
)


class Spare(NamedTuple):
    """A version that a budget may take, unless it is the newest by now."""

    replaced_run: int
    path: bytes
    number: int


def counted_bytes(version: Version) -> int:
    """What a version counts in a budget: links have no bytes of their own."""
    counts = version.status == VersionStatus.KEPT and version.kind == Kind.FILE and not version.pinned
    return version.size if counts else 0


class Prospects:
    """rules: what tells them from others. with_bytes: whether there is a budget. Begins with a run, before
    its first commit."""

    def __init__(self, state: State, run: int, rules: str, with_bytes: bool) -> None:
        self._state = state
        self._rules = rules
        self._with_bytes = with_bytes
        self.is_complete = state.setting(RETENTION_RULES) == rules and state.setting(_RUN) == run - 1
        for statement in _TABLES:
            state.put(statement)
        if not self.is_complete:
            state.forget_setting(RETENTION_RULES)
        state.set_setting(_RUN, run)
        state.follow = self._follow

    def keep(self, run: int) -> None:
        """At the end of a run. run: the last one that is certain to be one. Not yet committed."""
        self._state.set_setting(_RUN, run)

    # -- as plans are written -----------------------------------------------------------------------------

    def _follow(self, plan: Plan) -> None:
        version, before = plan.archived, plan.before
        is_new = version is not None and version.status == VersionStatus.KEPT
        has_left = before is not None and before.is_present and not plan.record.is_present
        if is_new or has_left:
            self._state.put("INSERT OR IGNORE INTO prospects VALUES (?, ?)", (AT_ONCE, plan.path))
        if version is not None and self._with_bytes:
            known = f"SELECT coalesce(sum(size), 0) FROM versions WHERE path = ? AND number = ? AND {_COUNTS}"
            (bytes_before,) = self._state.put(known, (version.path, version.number)).fetchone()
            change = counted_bytes(version) - bytes_before
            self._state.put("UPDATE settings SET value = value + ? WHERE key = ?", (change, _BYTES))

    # -- everything ---------------------------------------------------------------------------------------

    def begin_anew(self) -> None:
        """All that was kept is of no use; everything is about to be judged."""
        for table in ("prospects", "spare_versions"):
            self._state.put(f"DELETE FROM {table}")

    def with_versions(self, after: bytes) -> list[Record]:
        """A bounded number of paths, in scan order, that retention could take something from."""
        return [Record._make(row) for row in self._state.execute(_WITH_VERSIONS, (after,))]

    def complete(self) -> None:
        """Everything has been judged. Not yet committed."""
        if self._with_bytes:
            self._state.set_setting(_BYTES, self._state.execute(_SUM).fetchone()[0])
        self._state.set_setting(RETENTION_RULES, self._rules)
        self.is_complete = True

    # -- what is due --------------------------------------------------------------------------------------

    def due(self, by_ns: int) -> list[tuple[int, bytes]]:
        """A bounded number of paths with the time at which they were due, the earliest first."""
        query = "SELECT due_ns, path FROM prospects WHERE due_ns <= ? ORDER BY due_ns, path LIMIT ?"
        return self._state.execute(query, (by_ns, RANGE_ROWS)).fetchall()

    def judged(self, path: bytes, due_ns: int | None, next_ns: int | None) -> None:
        """A path that was due has been judged, and will be due again, if it will. due_ns: None where it was
        judged with everything."""
        if due_ns is not None:
            self._state.put("DELETE FROM prospects WHERE due_ns = ? AND path = ?", (due_ns, path))
        if next_ns is not None:
            values = (min(next_ns, _NEVER_NS), path)
            self._state.put("INSERT OR IGNORE INTO prospects VALUES (?, ?)", values)

    # -- the budget ---------------------------------------------------------------------------------------

    def used_bytes(self) -> int:
        """What all versions count that a budget may count."""
        return int(self._state.setting(_BYTES) or 0)

    def spare(self, versions: Iterable[Spare]) -> None:
        """A budget may take these."""
        for version in versions:
            self._state.put("INSERT OR IGNORE INTO spare_versions VALUES (?, ?, ?)", version)

    def no_longer_spare(self, versions: Iterable[Spare]) -> None:
        for version in versions:
            query = "DELETE FROM spare_versions WHERE replaced_run = ? AND path = ? AND number = ?"
            self._state.put(query, version)

    def oldest(self, after: Spare) -> list[Spare]:
        """A bounded number of those behind one, in the order in which a budget takes them."""
        query = (
            "SELECT replaced_run, path, number FROM spare_versions WHERE (replaced_run, path, number) >"
            " (?, ?, ?) ORDER BY replaced_run, path, number LIMIT ?"
        )
        return [Spare._make(row) for row in self._state.execute(query, (*after, RANGE_ROWS))]
