"""The guard against mass deletion: how much may go before a person has to say that it is meant.

In: the state's figures, deletions as they are about to be done. Out: whether they may be, and if not, why.
Guarantees: `safety.max_delete_percent` is a share of the files that were known when a run last ended with
nothing held back; so what is added while deletions are held back, or by a run that is cut, doesn't make the
same deletions a small share. A run over a part of the sources counts together with those before it, since the
last run over everything, and only what was there by then: what came and went in between is no part of the
share. (A change of type counts all that it clears.) Fails as the state does.
"""

from __future__ import annotations

from pipeline.store.state import State

FROM_FILES = 100
_ALL_PERCENT = 100


class Guard:
    """percent: the configured share. known_files: in the sources, by the state. is_full: whether the run
    looks at everything."""

    def __init__(self, state: State, percent: int, known_files: int, is_full: bool) -> None:
        self._state = state
        self._percent = percent
        self._is_full = is_full
        self._files = int(state.setting("guard_files" if is_full else "full_files") or known_files)
        self._full_run: int | None = state.setting("full_run")
        self._before = int(state.setting("deleted_files") or 0)
        self._deleted = 0
        self.held_back = False

    def counts(self, path: bytes) -> bool:
        """Whether a path that is missing is part of the share. Where nobody knows of a run over everything
        (the state was made anew), all are."""
        if self._is_full or self._full_run is None:
            return True
        return self._state.was_present(path, self._full_run)

    def ask(self, deletions: int) -> str | None:
        """None: they may be done, and count from now on. Otherwise they are held back, and this is why."""
        total = self._deleted + deletions + (0 if self._is_full else self._before)
        if not self._is_too_much(total):
            self._deleted += deletions
            return None
        self.held_back = True
        return (
            f"held back: {total} of {self._files} files would count as deleted, more than"
            f" safety.max_delete_percent = {self._percent}; if that is meant, run once with"
            f" --set safety.max_delete_percent={_ALL_PERCENT}"
        )

    def _is_too_much(self, deletions: int) -> bool:
        """With 100 percent nothing is: more may be missing by now than there was when it was counted."""
        is_on = self._files >= FROM_FILES and self._percent < _ALL_PERCENT
        return is_on and deletions * 100 > self._percent * self._files

    def keep(self, number: int, present_files: int, interrupted: bool) -> None:
        """For the next runs. number: of the last run that is certain to be one. Not yet committed."""
        state, is_full = self._state, self._is_full and not interrupted
        is_held_back = self.held_back or (not is_full and bool(state.setting("held_back")))
        state.set_setting("held_back", int(is_held_back))
        state.set_setting("deleted_files", 0 if is_full else self._before + self._deleted)
        if is_full:
            state.set_setting("full_run", number)
        if not interrupted and not is_held_back:
            state.set_setting("guard_files", present_files)
            if is_full:
                state.set_setting("full_files", present_files)
