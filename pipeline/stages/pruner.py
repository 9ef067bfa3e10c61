"""The pruner: retention after a scan, or by itself. Looks where something may have to go, has it judged, and
puts what goes into the journal.

In: the state, the rules, the time that counts as now. Out: plans. Guarantees: decided from the state alone,
so what a cut run has left is done by the next one (promise 5); what is looked at is what is due
(`store.prospects`), and every version only where nothing is known of them; no list of all versions is ever
held (promise 6). Fails as the state and the journal do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from pipeline import planner, retention
from pipeline.model import treepath
from pipeline.model.plan import Plan
from pipeline.model.record import Record, Version
from pipeline.planner import Context
from pipeline.retention import Dated, Judged, Rules
from pipeline.store import past
from pipeline.store.prospects import AT_ONCE, Prospects, Spare, counted_bytes
from pipeline.store.state import State

_BEFORE_ALL = Spare(-1, b"", 0)
_KNOWN_RUNS = 4096


class _Found(NamedTuple):
    """A version that a budget may take, with its path's record."""

    record: Record
    version: Version
    spare: Spare


class Pruner:
    """prospects: None where the rules only count. now_ns: None where the clock is not to be trusted.

    execute: puts a plan into the journal. close_group: has all that was put there until now count.
    """

    def __init__(
        self,
        state: State,
        prospects: Prospects | None,
        rules: Rules,
        contexts: Mapping[bytes, Context],
        now_ns: int | None,
        execute: Callable[[Plan], None],
        close_group: Callable[[], None],
    ) -> None:
        self._state = state
        self._prospects = prospects
        self._rules = rules
        self._contexts = contexts
        self._now_ns = now_ns
        self._execute = execute
        self._close_group = close_group
        self._start_of = lru_cache(_KNOWN_RUNS)(lambda run: past.start_of(state, run))
        self._stored_in = lru_cache(_KNOWN_RUNS)(lambda run: past.stored_in(state, run))

    def apply(self) -> Iterator[None]:
        """Yields after each path, so that the caller can look around, and stop."""
        if self._prospects is None:
            yield from self._by_count()
            return
        if self._now_ns is None and self._rules.keeps:
            return  # which version was whose day isn't known; what is due stays due
        if not self._prospects.is_complete:
            yield from self._judge_everything(self._prospects)
        yield from self._judge_due(self._prospects)
        if self._rules.max_bytes:
            yield from self._keep_to_budget(self._prospects)

    def _context(self, path: bytes) -> Context:
        return self._contexts[treepath.source_name(path)]

    def _by_count(self) -> Iterator[None]:
        """One limit for all, which an index answers."""
        policy, after = self._rules.policy, b""
        while crowded := self._state.with_more_versions(policy.max_versions_per_file, after):
            for record in crowded:
                undated = [Dated(version, 0, 0, 0) for version in self._state.versions(record.path)]
                self._take(record, retention.judge(undated, None, None, policy))
                yield
            after = crowded[-1].path

    def _judge_everything(self, prospects: Prospects) -> Iterator[None]:
        prospects.begin_anew()
        after = b""
        while records := prospects.with_versions(after):
            for record in records:
                prospects.judged(record.path, None, self._judge(record, prospects))
                yield
            after = records[-1].path
            self._close_group()
        prospects.complete()

    def _judge_due(self, prospects: Prospects) -> Iterator[None]:
        """A path that was judged is due later, if at all; without a clock, only what has changed is due."""
        by_ns = AT_ONCE if self._now_ns is None else self._now_ns
        while due := prospects.due(by_ns):
            for due_ns, path in sorted(due, key=itemgetter(1)):  # in scan order, for who reads the log
                record = self._state.record(path)
                next_ns = self._judge(record, prospects) if record is not None else None
                prospects.judged(path, due_ns, next_ns)
                yield
            self._close_group()

    # -- one path -----------------------------------------------------------------------------------------

    def _judge(self, record: Record, prospects: Prospects) -> int | None:
        """Take what has to go. Returns when the path is due again."""
        dated = self._dated(record)
        judged = self._judged(record, dated)
        self._take(record, judged)
        if self._rules.max_bytes:
            self._note_spare(dated, judged, prospects)
        return judged.due_ns

    def _dated(self, record: Record) -> list[Dated]:
        versions = self._state.versions(record.path)
        first_runs = past.first_runs(self._state, record)
        return retention.dated(versions, first_runs, self._start_of, self._stored_in)

    def _judged(self, record: Record, dated: list[Dated]) -> Judged:
        policy = self._rules.of_path(record.path, record.kind)
        deleted_ns = None if record.is_present else self._start_of(record.since_run)
        return retention.judge(dated, deleted_ns, self._now_ns, policy)

    def _take(self, record: Record, judged: Judged) -> None:
        """What lies in `_deleted/` first: its number is the highest, so no version needs a mark then."""
        context = self._context(record.path)
        if judged.deleted is not None and planner.is_stored(record):
            plan = planner.plan_drop_deleted(record, judged.deleted, context)
            self._execute(plan)
            record = plan.record
        for verdict in judged.verdicts:
            if verdict.taken is not None:
                plan = planner.plan_retention(record, verdict.version, verdict.taken, context)
                self._execute(plan)
                record = plan.record

    # -- the budget ---------------------------------------------------------------------------------------

    def _note_spare(self, dated: list[Dated], judged: Judged, prospects: Prospects) -> None:
        run_of = {one.version.number: one.replaced_run for one in dated}
        stay, gone = [], []
        for version, taken, *_ in judged.verdicts:
            spare = Spare(run_of[version.number], version.path, version.number)
            if taken is not None:
                gone.append(spare)
            elif counted_bytes(version):
                stay.append(spare)
        newest = retention.newest(verdict.version for verdict in judged.verdicts if verdict.taken is None)
        prospects.spare(spare for spare in stay if spare.number != newest)
        prospects.no_longer_spare(gone)

    def _keep_to_budget(self, prospects: Prospects) -> Iterator[None]:
        used_bytes, max_bytes = prospects.used_bytes(), self._rules.max_bytes
        why = f"all versions together take more than {max_bytes} bytes"
        found = self._oldest_first(prospects) if used_bytes > max_bytes else ()
        for one in retention.over_budget(found, lambda one: one.version.size, used_bytes, max_bytes):
            self._execute(
                planner.plan_retention(one.record, one.version, why, self._context(one.record.path))
            )
            prospects.no_longer_spare([one.spare])
            yield

    def _oldest_first(self, prospects: Prospects) -> Iterator[_Found]:
        after = _BEFORE_ALL
        while spares := prospects.oldest(after):
            for spare in spares:
                record = self._state.record(spare.path)
                versions = {version.number: version for version in self._state.versions(spare.path)}
                version = versions.get(spare.number)
                if record is None or version is None or not counted_bytes(version):
                    prospects.no_longer_spare([spare])
                elif version.number != retention.newest(versions.values()):
                    yield _Found(record, version, spare)
            after = spares[-1]
