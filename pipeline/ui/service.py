"""What a service manager is told: that the watch is ready, what it does, that it ends (sd_notify(3)).

In: words. Out: datagrams to the socket that NOTIFY_SOCKET names. Guarantees: without that variable, nothing
happens; a manager that doesn't listen holds nothing up and ends nothing.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

_VARIABLE = "NOTIFY_SOCKET"


class ServiceManager:
    """Whoever has started this process and asked to be told, if anybody."""

    def __init__(self) -> None:
        self._address = os.environ.get(_VARIABLE, "")
        self._status = ""

    def ready(self) -> None:
        self._tell("READY=1")

    def status(self, text: str) -> None:
        """One line for people (`systemctl status`), sent when it is another one than before."""
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={text}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def _tell(self, words: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.setblocking(False)
            end.sendto(words.encode("utf-8", "backslashreplace"), address)
