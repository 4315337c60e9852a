"""The events of one app: made in Celery's form, and handed to the outbox."""

from __future__ import annotations

import atexit
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from ...ports import Transport
from ..serializers import encode
from .outbox import Letter, Outbox, Post
from .switch import Switch

CLOSE_SECONDS = 2.0


class TaskEvents:
    """Sends an app's events, from its workers and its producers. Thread-safe.

    Attributes:
        switch: of the workers, for `enable_events` and `disable_events`; producers and `send` do not ask it.
    """

    def __init__(self, transport: Callable[[], Transport], post: Callable[[], Post]) -> None:
        self.switch = Switch()
        self._outbox = Outbox(transport, post)
        self._post = post
        self._registered = 0

    def send(self, kind: str, *, hostname: str = "", pid: int = 0, alone: bool = True, **fields: Any) -> None:
        """Send one event, for example `send("task-progress", uuid=..., done=5)`. Does not wait.

        Args:
            kind: group and name, separated by `-`.
            hostname: the node's name; by default the process is a producer, `gen<pid>@<host>`.
            pid: of the node; this process by default.
            alone: in a message of its own, under its own routing key.

        Raises:
            ValueError: a field has no form in `event_serializer`.
        """
        hostname = hostname or f"gen{os.getpid()}@{socket.gethostname()}"
        event = self.made(kind, fields, hostname=hostname, pid=pid or os.getpid())
        if alone:
            encode(event, self._post().serializer)  # what cannot be written is the caller's to hear
            if self._registered != os.getpid():
                self._registered = os.getpid()
                atexit.register(self.close)  # a program may end right after its last task
        self._outbox.put(Letter(event, hostname, kind.replace("-", "."), alone))

    def made(self, kind: str, fields: Mapping[str, Any], *, hostname: str, pid: int) -> dict[str, Any]:
        """An event in Celery's form, for a caller that publishes it itself."""
        return {
            "hostname": hostname, "utcoffset": _utc_offset(), "pid": pid, "clock": self.switch.tick(), **fields,
            "timestamp": time.time(), "type": kind,
        }  # fmt: skip

    def close(self) -> None:
        """Publish what waits. Later events open it again."""
        self._outbox.close(CLOSE_SECONDS)


def _utc_offset() -> int:
    """Hours west of UTC, as Celery counts."""
    return (time.altzone if time.localtime().tm_isdst > 0 else time.timezone) // 3600
