"""The event that no system has: that some may have been missed."""

from __future__ import annotations

from watchdog.events import FileSystemEvent


class LostEvent(FileSystemEvent):
    """Something may have been missed at `src_path`, or below it. reason: why, for people."""

    event_type = "lost"
    reason = ""
