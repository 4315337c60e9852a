"""Publishing over AMQP: many messages under way at once, each finished when the broker confirmed it.

The calling thread writes the frame itself; the link's thread reads the confirms, which RabbitMQ sends in bulk. Waiting
for each confirm before the next publish would be ten times slower. While many are under way, frames are gathered and
written together, by whoever fills the batch or by the link's thread after its next read. What is not confirmed when the
connection breaks is sent again on the next one, marked with `lightbus_repeat`, since the broker may have it already.
"""

from __future__ import annotations

import itertools
import struct
import threading
import time
from collections import OrderedDict, deque
from concurrent.futures import Future
from typing import Any

import msgspec
from amqp.exceptions import FrameSyntaxError

from ...core.errors import AccessRefused, ConnectionLost, NotConfirmed, TransportError, Unroutable, Unwritable
from ...core.message import Route, Wire
from ...forks import renewed_after_fork
from .amqp_declare import delayed_route
from .amqp_errors import CONNECTION_ERRORS, publish_error
from .amqp_options import AmqpOptions
from .amqp_outgoing import frames_of
from .amqp_wire import message_of, wire_of
from .link import Link
from .publications import Publication, mark_returned, repeats_of, settled_by
from .refusals import Refusals

#: What py-amqp raises for a header or property that it cannot encode. The first counts as a connection error there.
_UNWRITABLE: tuple[type[Exception], ...] = (
    FrameSyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    RecursionError,
    struct.error,
)


#: With so many under way frames are gathered: the next confirm, or that many bytes, has them written together.
SOME_UNCONFIRMED = 4
GATHERED_BYTES = 16_384
#: With so many, confirms are read together, that long after the last ones.
MANY_UNCONFIRMED = 32
REST_SECONDS = 0.002


class AmqpPublisher:
    """The publishing connection of one process. Connects at the first message; anew in a forked child."""

    def __init__(self, url: str, options: AmqpOptions) -> None:
        self._url = url
        self._options = options
        self._timeout_seconds = options.publish_timeout_seconds
        self._parents: list[Link | None] = []
        self._reset()
        renewed_after_fork(self)

    def renew_after_fork(self) -> None:
        """See `Renewable`."""
        self._parents.append(self._link)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._link: Link | None = None
        self._channel: Any = None
        self._sequence = 0
        self._unconfirmed: OrderedDict[int, Publication] = OrderedDict()
        self._waiting: deque[Publication] = deque()
        # Of the last unconfirmed ones; there is then a written one before them, whose confirm wakes the link's thread.
        self._gathered = bytearray()
        self._refusals = Refusals()
        self._was_open = False
        self._blocked = ""
        self._last_error: TransportError | None = None
        self._idle = threading.Condition(self._lock)
        self._closed = False

    def publish(self, wire: Wire, route: Route, *, delay_seconds: float = 0.0, mandatory: bool = False) -> Future[None]:
        """See `ports.Transport.publish`."""
        if delay_seconds > 0:
            route = delayed_route(route, delay_seconds)
            if wire.expiration_seconds is not None:  # it would let the message out of the ladder too early
                wire = msgspec.structs.replace(wire, expiration_seconds=None)
            mandatory = False  # the ladder takes it in any case
        publication = Publication(wire, route, mandatory, time.monotonic() + self._timeout_seconds)
        with self._lock:
            if self._closed:
                publication.fail(ConnectionLost("this transport is closed; a Bus opens a new one by itself"))
                return publication.future
            if self._link is None:
                self._link = Link(self._url, self._options, self, name="publish")
                self._link.lock = self._lock  # one lock for the channel's numbers and its frames: they go together
                self._link.start()
            if self._channel is None or self._blocked:
                self._waiting.append(publication)
            else:
                self._sequence += 1
                self._unconfirmed[self._sequence] = publication
                try:  # here and not in `_write`: this is the way of nearly every message, and it is short
                    channel = self._channel
                    connection = channel.connection
                    frames = connection and frames_of(
                        wire, route, channel=channel.channel_id, mandatory=mandatory, frame_max=connection.frame_max
                    )
                    if frames and len(self._unconfirmed) > SOME_UNCONFIRMED:
                        self._gathered += frames
                        if len(self._gathered) >= GATHERED_BYTES:
                            self._write_gathered()
                    elif frames and not self._gathered:
                        connection.transport.write(frames)
                        connection.bytes_sent += 1  # as py-amqp counts; its heartbeats look at it
                    else:
                        self._write_frames(publication, frames)
                except _UNWRITABLE as error:
                    if self._is_gone():
                        self._link.sever()
                    else:
                        self._not_written(publication, error)
                except CONNECTION_ERRORS:
                    self._link.sever()  # its thread meets the break and sends this one again
        return publication.future

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Wait for confirms under way, then disconnect. What is still unconfirmed fails."""
        self._closed = True
        if self._link is None:
            return
        with self._lock:
            self._idle.wait_for(lambda: not self._unconfirmed and not self._waiting, timeout_seconds)
        self._link.stop(timeout_seconds)
        self._fail_all(ConnectionLost("the transport was closed before the broker confirmed the message"))
        with self._lock:
            self._link = None

    # -- called by the link, on its thread --------------------------------------------------------------------------

    def on_open(self, connection: Any) -> None:
        connection.on_blocked = self._on_blocked
        connection.on_unblocked = self._on_unblocked
        self._open_channel(connection)

    def on_lost(self, error: TransportError) -> None:
        with self._lock:
            self._channel = None
            self._gathered.clear()  # they are among the unconfirmed
            self._blocked = ""
            self._last_error = error
            self._take_back_unconfirmed()
        # Nothing ever worked here, so it is the address or the password: say so now rather than at the timeout.
        if not self._was_open or isinstance(error, AccessRefused):
            self._fail_all(error)

    def on_channel_error(self, error: Exception) -> None:
        """The broker closed the channel on one message: fail those for the same exchange; the rest go again."""
        with self._lock:
            for publication in self._unconfirmed.values():
                route = publication.route
                if f"'{route.exchange}'" in str(error) or len(self._unconfirmed) == 1:
                    publication.fail(publish_error(error, route.exchange, route.routing_key))
        raise error  # a fresh connection has a fresh channel; this is rare enough not to deserve a shorter way

    def on_tick(self) -> float:
        now = time.monotonic()
        with self._lock:
            if self._channel is not None and not self._is_gone():
                self._write_gathered()
            self._expire(now)
            self._idle.notify_all()
            if self._refusals and self._channel is not None and self._refusals.want_fresh_channel(now):
                raise ConnectionLost("the broker goes on refusing messages; perhaps a fresh connection knows better")
        return 1.0

    def rest_seconds(self) -> float:
        """While many are under way their confirms are read together: each read wakes this thread in the middle of the
        work of those who publish. Somebody who waits for one confirm does not wait longer."""
        return REST_SECONDS if len(self._unconfirmed) >= MANY_UNCONFIRMED else 0.0

    def on_stop(self) -> None:
        """Nothing to say: `close` has waited for the confirms."""

    # -- inside ------------------------------------------------------------------------------------------------------

    def _open_channel(self, connection: Any) -> None:
        channel = connection.channel()
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_confirm)
        channel.events["basic_nack"].add(self._on_refuse)
        channel.events["basic_return"].add(self._on_return)
        with self._lock:
            self._sequence = 0
            self._channel = channel
            self._was_open = True
            self._send_waiting()

    def _send_waiting(self) -> None:
        while self._waiting and not self._blocked:
            publication = self._waiting.popleft()
            if publication.future.done():
                continue
            self._write(publication)

    def _write(self, publication: Publication) -> None:
        """Number it as the broker will, and write its frames. Under the lock."""
        self._sequence += 1
        self._unconfirmed[self._sequence] = publication
        wire, route, mandatory = publication.wire, publication.route, publication.mandatory
        channel = self._channel
        connection = channel.connection
        try:  # as in `publish`, which does it itself
            frames = connection and frames_of(
                wire, route, channel=channel.channel_id, mandatory=mandatory, frame_max=connection.frame_max
            )
            self._write_frames(publication, frames)
        except _UNWRITABLE as error:
            if self._is_gone():
                raise ConnectionLost("the connection broke while messages were written to it") from error
            self._not_written(publication, error)

    def _is_gone(self) -> bool:
        """py-amqp has met a break, and taken its objects apart, while something was to be written."""
        connection = self._channel.connection
        return connection is None or connection.transport is None

    def _write_frames(self, publication: Publication, frames: bytes | None) -> None:
        """Write it behind what is gathered: the broker numbers messages as they come. Without frames, by py-amqp."""
        self._write_gathered()
        channel, route = self._channel, publication.route
        if frames:
            channel.connection.transport.write(frames)
            channel.connection.bytes_sent += 1
        else:
            channel.basic_publish(
                message_of(publication.wire), exchange=route.exchange, routing_key=route.routing_key,
                mandatory=publication.mandatory,
            )  # fmt: skip

    def _write_gathered(self) -> None:
        if self._gathered:
            frames, self._gathered = bytes(self._gathered), bytearray()
            self._channel.connection.transport.write(frames)
            self._channel.connection.bytes_sent += 1

    def _not_written(self, publication: Publication, error: Exception) -> None:
        """py-amqp encodes before it writes, so the broker has seen nothing of it and counts on from the last one."""
        del self._unconfirmed[self._sequence]
        self._sequence -= 1
        key = publication.route.routing_key
        publication.fail(Unwritable(f"a message for {key!r} cannot be written as AMQP: {error}"))

    def _take_back_unconfirmed(self) -> None:
        """Put what was written but not confirmed in front of the queue, in its order, marked as a repeat."""
        self._waiting.extendleft(repeats_of(self._unconfirmed))
        self._unconfirmed.clear()

    def _on_confirm(self, delivery_tag: int, multiple: bool) -> None:
        with self._lock:
            settled = settled_by(self._unconfirmed, delivery_tag, multiple)
        for publication in settled:
            if self._refusals:
                self._refusals.confirmed(publication.route.routing_key)
            if publication.returned:
                publication.fail(
                    Unroutable(
                        f"no queue takes messages for key {publication.route.routing_key!r} of exchange "
                        f"{publication.route.exchange!r}"
                    )
                )
            elif not publication.future.done():
                publication.future.set_result(None)

    def _on_refuse(self, delivery_tag: int, multiple: bool) -> None:
        now = time.monotonic()
        with self._lock:
            settled = settled_by(self._unconfirmed, delivery_tag, multiple)
        for publication in settled:
            self._refusals.refused(publication.route.routing_key, now)
            publication.fail(
                NotConfirmed(
                    f"the broker refused a message for {publication.route.routing_key!r}: "
                    "the queue is full, or has no leader at the moment"
                )
            )

    def _on_return(self, exception: Exception, exchange: str, routing_key: str, message: Any) -> None:
        """The broker returns an unroutable message just before it confirms it."""
        with self._lock:
            mark_returned(self._unconfirmed, Route(exchange, routing_key), wire_of(message))

    def _on_blocked(self, reason: str) -> None:
        with self._lock:
            self._blocked = reason or "blocked by an alarm"

    def _on_unblocked(self) -> None:
        with self._lock:
            self._blocked = ""
            self._send_waiting()

    def _expire(self, now: float) -> None:
        expired = False
        for publication in itertools.chain(self._unconfirmed.values(), self._waiting):
            if publication.deadline > now:
                break  # both are in order of their deadlines, so nothing behind this one is due either
            expired = True
            if self._blocked:
                publication.fail(NotConfirmed(f"the broker takes no messages at the moment: {self._blocked}"))
            else:
                why = f": {self._last_error}" if self._last_error and self._channel is None else ""
                publication.fail(
                    NotConfirmed(f"the broker did not confirm a message in {self._timeout_seconds:g} s{why}")
                )
        while self._waiting and self._waiting[0].future.done():
            self._waiting.popleft()
        if expired:
            for tag in [tag for tag, publication in self._unconfirmed.items() if publication.future.done()]:
                del self._unconfirmed[tag]

    def _fail_all(self, error: TransportError) -> None:
        with self._lock:
            failed = [*self._unconfirmed.values(), *self._waiting]
            self._unconfirmed.clear()
            self._waiting.clear()
        for publication in failed:
            publication.fail(error)
