"""Hard links among what is restored: another name for a file that was restored before.

In: entry states that name an earlier path, in scan order. Out: a name, or None where the entry must be
restored as a file of its own. Guarantees: a name is only given to a file that is as this entry was, so what
stood in the earlier one's way, or couldn't be restored, never gets a second name. Never fails.
"""

from __future__ import annotations

from pipeline.model import treepath
from pipeline.model.record import Held
from pipeline.stages.descriptions import Descriptions
from pipeline.store import calls
from pipeline.store.folders import split
from pipeline.store.target import Occupied, Target, place_in_target


class Names:
    """target: None where nothing is restored (a dry run)."""

    def __init__(self, target: Target | None, descriptions: Descriptions, with_names: bool) -> None:
        self._target = target
        self._descriptions = descriptions
        self._with_names = with_names

    def give(self, held: Held) -> str | None:
        """What was done, in words; None for nothing."""
        assert self._target is not None, "a dry run restores every entry by itself"
        assert held.linked_to is not None, "only what has another name comes here"
        first_folder, first_name = split(place_in_target(held.linked_to, self._with_names))
        folder, name = split(place_in_target(held.path, self._with_names))
        try:
            first_parent = self._target.existing_folder(first_folder)
            first = calls.stat(first_name, dir_fd=first_parent, follow_symlinks=False)
            if not self._descriptions.fits(first, held):
                return None
            staged = self._target.new_name(first_name, first_parent)
            self._target.give_name(staged, self._target.folder(folder), name)
        except (OSError, Occupied):
            return None  # by itself it can be restored, or fails with the same cause, which is told then
        return f"another name of {treepath.shown(held.linked_to)}"
