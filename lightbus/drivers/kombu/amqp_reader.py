"""Reads a py-amqp connection in large chunks, and takes the usual deliveries out of them itself.

What has been received and not yet read lies in py-amqp's own read buffer. So at every moment py-amqp can go on reading
where this stopped: it does so for every frame that is not a whole delivery in the usual form, and when the link's
thread makes a call that waits for its answer. There is no state of our own that could come apart from py-amqp's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...core.message import Wire
from .amqp_frames import read_delivery, waits_for_more

READ_BYTES = 32 * 1024

#: Takes the deliveries of one consumer tag: message, delivery tag, whether it may have been delivered before.
Taker = Callable[[Wire, int, bool], None]


class FrameReader:
    """The reading half of an open py-amqp connection. Used by the thread that owns the connection, and only by it."""

    def __init__(self, connection: Any, takers: Mapping[bytes, Taker]) -> None:
        """`takers` by consumer tag; a tag that is not among them is py-amqp's business."""
        self._connection = connection
        self._takers = takers

    def read(self) -> bool:
        """Receive once, and handle all that has come in whole; whether there is more that `poll` does not see.

        Blocks when the socket has nothing, so ask `poll` first.

        Raises:
            amqp.ChannelError, amqp.ConnectionError: what the broker said in a frame. `handle` goes on behind it.
            OSError: the connection broke.
        """
        transport = self._connection.transport
        chunk = transport.sock.recv(READ_BYTES)
        if not chunk:
            raise ConnectionResetError("the broker closed the connection")
        transport._read_buffer += chunk
        return self.handle()

    def handle(self) -> bool:
        """Handle what has been received and has come in whole. As `read`, but receives nothing."""
        connection, takers = self._connection, self._takers
        transport = connection.transport
        buffer, at = transport._read_buffer, 0
        try:
            while at < len(buffer):
                arrival = read_delivery(buffer, at)
                if arrival is not None and (taker := takers.get(arrival.consumer_tag)) is not None:
                    at = arrival.end
                    # py-amqp counts frames there, and takes them for signs of life of the broker.
                    connection.bytes_recv += 3 if arrival.wire.body else 2
                    taker(arrival.wire, arrival.delivery_tag, arrival.redelivered)
                elif waits_for_more(buffer, at):
                    break
                else:
                    transport._read_buffer, buffer, at = buffer[at:], b"", 0
                    try:
                        connection.blocking_read()  # one frame, out of that buffer
                    finally:
                        buffer = transport._read_buffer
        finally:
            transport._read_buffer = buffer[at:]
        pending = getattr(transport.sock, "pending", None)  # a TLS socket hands out one record at a time
        return pending is not None and pending() > 0
