"""What a supervisor and one of its processes say to each other, over a pair of datagram sockets.

One datagram is one JSON object with one key. Datagrams, because a process may write from several threads.

from the process    ready: it consumes · failed: why it could not start · leaving: it ends, start another ·
                    told: the endpoint knows of that lost run · served: names of what it has
to the process      drain: end when what runs is finished · end: hand back what runs, and end · lost: tell the endpoint
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass

from .board import Place

_MOST_BYTES = 65536
MOST_TEXT = 8000  #: of an error; the kernel takes a datagram of some 200 KB


class Channel:
    """One end. Never blocks, but for `wait`; a message that cannot be sent is dropped, since the other side is gone."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._socket.setblocking(False)

    @staticmethod
    def pair() -> tuple[Channel, Channel]:
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        return Channel(left), Channel(right)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, word: str, value: object = True) -> bool:
        """False when the other side does not take it."""
        try:
            self._socket.send(json.dumps({word: value}).encode())
        except OSError:
            return False
        return True

    def received(self) -> list[tuple[str, object]]:
        """All messages that have arrived."""
        messages: list[tuple[str, object]] = []
        with contextlib.suppress(OSError):  # nothing more, or the other side is gone
            while datagram := self._socket.recv(_MOST_BYTES):
                messages += json.loads(datagram).items()
        return messages

    def close(self) -> None:
        self._socket.close()


@dataclass(frozen=True, slots=True)
class Supervised:
    """What a child process gets from its supervisor.

    Attributes:
        life: read end of a pipe that only the supervisor can write to: its end is the supervisor's.
    """

    life: int
    channel: Channel
    place: Place

    def ready(self) -> None:
        """All queues are consumed."""
        self.channel.send("ready")


#: Runs one child: returns when it is done.
ChildMain = Callable[[Supervised], None]
