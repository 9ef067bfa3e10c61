"""What becomes of a path: backed up, or left out, and by which rule.

In: the configuration and a path on the disk. Out: its fate in words. Guarantees: asks the very rules that a
run goes by, in the order of its walk; nothing is written, no link is followed below the source. Fails with
SourceError where a source can't be looked at.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from pipeline import sources
from pipeline.config import Config
from pipeline.filters import Filter, SizeLimits
from pipeline.model import treepath
from pipeline.sources import Resolved
from pipeline.stages.ignore_file import rules_inside
from pipeline.stages.marked import Closed, Marked
from pipeline.store import calls
from pipeline.store.folders import FOLDER_FLAGS


class Fate(NamedTuple):
    """path: as it was asked for. is_backed_up: by the next run, if it can be read. why: in words."""

    path: str
    is_backed_up: bool
    why: str


def fate_of(config: Config, path: Path) -> Fate:
    """path: absolute or relative to the current folder. Where its last component is a link, that is meant."""
    place = Path(os.path.realpath(path.parent)) / path.name if path.name not in ("", "..") else path.resolve()
    resolved = sources.resolve(config)
    homes = [source for source in resolved if place.is_relative_to(os.fsdecode(source.path))]
    if not homes:
        return Fate(str(path), False, "it lies in no source")
    left_out = [
        why for source in homes if (why := _why_left_out(config, resolved, source, place)) is not None
    ]
    if len(left_out) == len(homes):
        return Fate(str(path), False, left_out[0])
    return Fate(str(path), True, "no rule leaves it out")


def _why_left_out(config: Config, resolved: list[Resolved], source: Resolved, place: Path) -> str | None:
    """From the source's root down, as a walk comes there."""
    folder_rules = sources.folder_rules(config)
    rules, marked = Filter(config.patterns), Marked(folder_rules, source.identity[0])
    limits = SizeLimits(folder_rules.max_file_bytes, folder_rules.max_bytes_by_pattern)
    own, at = sources.own_places(config, resolved), Path(os.fsdecode(source.path))
    parts = place.relative_to(at).parts
    for depth, name in enumerate(("", *parts)):
        at = at / name
        relative = os.fsencode("/".join(parts[:depth]))
        shown = treepath.escaped(relative)
        try:
            found = at.lstat()
        except OSError as error:
            return f"{shown}: {error.strerror}"
        is_folder = stat.S_ISDIR(found.st_mode)
        path = treepath.inside(source.name, relative)
        if path in own:
            return f"{shown} belongs to the backup itself"
        if relative and (line := rules.excluded_by(relative, is_folder)) is not None:
            return f"{shown} matches {line.shown}"
        if depth < len(parts) and is_folder:
            closed, rules = _entered(at, path, marked, rules)
            if closed is not None:
                return f"the content of {shown or 'the source'} is left out: {closed.why}"
        limit = limits.of(relative) if stat.S_ISREG(found.st_mode) else None
        if limit is not None and found.st_size > limit[0]:
            return f"{shown} is larger than {limit[1]}"
    return None


def _entered(folder: Path, path: bytes, marked: Marked, rules: Filter) -> tuple[Closed | None, Filter]:
    """Why a folder's content is left out as a whole, and the rules for what lies in it."""
    try:
        handle = calls.open(folder, FOLDER_FLAGS)
    except OSError:
        return None, rules
    try:
        return marked.closed_by(handle), rules_inside(rules, handle, path)[0]
    finally:
        calls.close(handle)
