"""Owners by name: numbers are called differently on two machines, and mean somebody else there.

In: numbers of users and groups, and the names that a state has recorded for them. Out: names, and the
numbers that this machine has for them. Guarantees: an owner without a name, or with one that nobody has here,
keeps its number. Fails with SQLite's errors.
"""

from __future__ import annotations

from pipeline.store.reading import Readable

USER, GROUP = 0, 1


def owner_name(of: int, number: int) -> str | None:
    """What this machine calls a user, or a group. None: nothing, or it has no such names (Windows)."""
    try:
        import grp
        import pwd

        name = grp.getgrgid(number).gr_name if of == GROUP else pwd.getpwuid(number).pw_name
    except (ImportError, KeyError, OverflowError):
        return None
    return name if name.isprintable() else None  # bytes that are no text are surrogates, which don't print


def owner_number(of: int, name: str) -> int | None:
    """The number of the user, or group, with a name."""
    try:
        import grp
        import pwd

        return grp.getgrnam(name).gr_gid if of == GROUP else pwd.getpwnam(name).pw_uid
    except (ImportError, KeyError, ValueError):
        return None


class LocalOwners:
    """Recorded owners as numbers of this machine. state: None where numbers are to stay as they are."""

    def __init__(self, state: Readable | None) -> None:
        rows = state.execute("SELECT is_group, id, name FROM owners").fetchall() if state is not None else []
        self._names = {(of, number): name for of, number, name in rows}
        self._known: dict[tuple[int, int], int] = {}

    def of(self, uid: int, gid: int) -> tuple[int, int]:
        """Both as this machine has them."""
        return self._number(USER, uid), self._number(GROUP, gid)

    def _number(self, of: int, number: int) -> int:
        known = self._known.get((of, number))
        if known is None:
            name = self._names.get((of, number))
            found = owner_number(of, name) if isinstance(name, str) else None
            known = self._known[of, number] = number if found is None else found
        return known
