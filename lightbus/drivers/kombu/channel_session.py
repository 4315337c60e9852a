"""Any kombu transport without AMQP, through its channels: the embedded SQLite broker, SQS, the file system...

What a transport offers beyond kombu's interface is used where it is there (`delay_seconds`, `ack_many`, `wake`, the
number of queues that took a message); `Capabilities` says honestly what is missing.
"""

from __future__ import annotations

import inspect
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import amqp
import kombu
import kombu.exceptions
from kombu.transport.virtual.base import NotEquivalentError

from ...core.errors import (
    BrokerUnreachable,
    ConfigError,
    ConnectionLost,
    NotConfirmed,
    TopologyMismatch,
    Unroutable,
)
from ...core.message import Route, Wire
from ...core.rate import Turn
from ...core.topology import Exchange, Queue, Topology
from ...core.turns import Turns
from ...ports import Capabilities
from .session import Taken
from .tls import tls_of
from .wire import properties_of, wire_of

#: kombu inflates a body whole as soon as its message is made, whatever that takes, unless there are errors with it. The
#: body is wanted as it came: who reads it does so up to a limit, and a copy of it keeps its header `compression`.
_AS_IT_CAME = ("not inflated",)

#: How soon a settlement is carried out where the transport cannot be woken.
UNWOKEN_WAIT_SECONDS = 0.1

_NEVER = float("inf")


class ChannelKind:
    """Opens sessions with the broker at a URL; see `session.SessionKind`."""

    tags_survive = False

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        scheme = url.partition("://")[0]
        self._embedded = scheme == "sqlite"
        if self._embedded:
            from .. import sqlite as _sqlite  # noqa: F401 - teaches kombu the scheme
        self._url = url
        self._options = options
        self._name = scheme

    @property
    def capabilities(self) -> Capabilities:
        embedded = self._embedded
        return Capabilities(
            name="embedded (SQLite)" if embedded else f"kombu's {self._name}",
            confirms=embedded,
            returns_unroutable=embedded,
            shared=True,
            persistent=True,
            delay_resolution_seconds=0.05 if embedded else _NEVER,
            redelivery_seconds=5.0 if embedded else _NEVER,
            priorities=embedded,
            expires=embedded,
            releases=embedded,
            rates=embedded,
            permits=embedded,
        )

    def open(self) -> ChannelSession:
        tls, options = tls_of(self._options)
        connection: Any = kombu.Connection(self._url, ssl=tls, transport_options=options)
        where = connection.as_uri()
        try:
            errors = (*connection.connection_errors, *connection.channel_errors, OSError, ValueError)
            # `connect()` would pause for two seconds between its tries; pausing is the transport's business
            connection.ensure_connection(max_retries=1, interval_start=0, reraise_as_library_errors=False)
            return ChannelSession(connection, where)
        except ModuleNotFoundError as error:
            raise ConfigError(f"{where} needs the package {error.name!r}: pip install {error.name}") from error
        except errors as error:
            with suppress(*errors):
                connection.release()
            raise BrokerUnreachable(
                f"cannot open {where}: {error}; does it exist, may this user write there?"
            ) from error


class ChannelSession:
    """See `session.Session`. One channel of one kombu connection."""

    def __init__(self, connection: Any, where: str) -> None:
        self._connection = connection
        self._where = where
        self._channel: Any = connection.channel()
        if (made := getattr(self._channel, "Message", None)) is not None:
            self._channel.Message = type("AsItCame", (made,), {"errors": _AS_IT_CAME})
        # Stable for threads that call `wake` while another closes the connection
        self._wake: Callable[[], None] | None = getattr(connection.transport, "wake", None)
        self._can_delay = "delay_seconds" in inspect.signature(self._channel.basic_publish).parameters
        self._counts = self._can_delay  # our own transport also says how many queues took a message
        self._errors = (*connection.connection_errors, OSError)
        self._channel_errors = (*connection.channel_errors, kombu.exceptions.ChannelError, amqp.ChannelError)
        self._tags: dict[str, Any] = {}
        self._arrived: deque[Taken] = deque()
        self._consumer_tags: list[str] = []
        self._subscribed: list[str] = []
        self._announced_on: set[str] = set()

    @contextmanager
    def _talking(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (amqp.NotFound, amqp.PreconditionFailed, amqp.ResourceLocked, NotEquivalentError) as error:
            raise TopologyMismatch(f"cannot {doing}: {error}") from error
        except self._errors as error:
            raise ConnectionLost(f"the connection to {self._where} broke (trying to {doing}): {error}") from error
        except self._channel_errors as error:
            if getattr(error, "code", None) in (404, "404"):
                raise TopologyMismatch(f"cannot {doing}: {error}") from error
            raise NotConfirmed(f"{self._where} refused to {doing}: {error}") from error

    def declare(self, topology: Topology) -> None:
        for exchange in topology.exchanges:
            with self._talking(f"declare exchange {exchange.name!r}"):
                self._channel.exchange_declare(
                    exchange=exchange.name, type=exchange.kind, durable=True, auto_delete=False
                )
        for queue in topology.queues:
            with self._talking(f"declare queue {queue.name!r}"):
                self._channel.queue_declare(
                    queue=queue.name, passive=queue.passive, durable=queue.durable, exclusive=queue.exclusive,
                    auto_delete=queue.auto_delete, arguments=_arguments(queue),
                )  # fmt: skip
        for binding in topology.bindings:
            with self._talking(f"bind queue {binding.queue!r} to exchange {binding.exchange!r}"):
                self._channel.queue_bind(
                    queue=binding.queue, exchange=binding.exchange, routing_key=binding.routing_key
                )

    def publish(self, wire: Wire, route: Route, delay_seconds: float, mandatory: bool) -> None:
        if delay_seconds > 0 and not self._can_delay:
            raise NotConfirmed(
                f"{self._where} cannot hold a message back for {delay_seconds} s: "
                "delays need RabbitMQ, Redis or the embedded broker (sqlite:///)"
            )
        properties = properties_of(wire)
        message = self._channel.prepare_message(
            wire.body, priority=properties.pop("priority", None), content_type=wire.content_type,
            content_encoding=wire.content_encoding, headers=dict(wire.headers), properties=properties,
        )  # fmt: skip
        publish = partial(self._channel.basic_publish, message, exchange=route.exchange, routing_key=route.routing_key)
        try:
            with self._talking(f"publish to exchange {route.exchange!r} with key {route.routing_key!r}"):
                count = publish(delay_seconds=delay_seconds) if delay_seconds > 0 else publish()
        except TopologyMismatch as error:
            raise Unroutable(f"there is no exchange {route.exchange!r}: nobody has declared it") from error
        if mandatory and self._counts and not count:
            raise Unroutable(f"no queue takes messages for exchange {route.exchange!r}, key {route.routing_key!r}")

    def announce(self, wire: Wire, exchange: Exchange, routing_key: str) -> None:
        if exchange.name not in self._announced_on:
            self.declare(Topology((exchange,)))
            self._announced_on.add(exchange.name)
        self.publish(wire, Route(exchange.name, routing_key), 0.0, False)

    def get(self, queue: str) -> Taken | None:
        with self._talking(f"look into queue {queue!r}"):
            message = self._channel.basic_get(queue, no_ack=False)
        return None if message is None else self._taken(queue, message)

    def count(self, queue: str) -> int | None:
        try:
            with self._talking(f"count queue {queue!r}"):
                return int(self._channel.queue_declare(queue=queue, passive=True).message_count)
        except TopologyMismatch:
            return None

    def take_turn(self, name: str, interval_seconds: float, most_wait_seconds: float) -> Turn:
        if not self._counts:
            raise ConfigError(f"{self._where} counts no rates of all workers together")
        with self._talking(f"take a turn of {name!r}"):
            turn: Turn = self._channel.take_turn(name, interval_seconds, most_wait_seconds)
            return turn

    def hold_permit(self, name: str, holder: str, most: int, lease_seconds: float) -> bool:
        if not hasattr(self._channel, "hold_permit"):
            raise ConfigError(f"{self._where} counts no permits of all workers together")
        with self._talking(f"hold a permit of {name!r}"):
            return bool(self._channel.hold_permit(name, holder, most, lease_seconds))

    def free_permit(self, name: str, holder: str) -> None:
        with self._talking(f"free a permit of {name!r}"):
            self._channel.free_permit(name, holder)

    def delete(self, queue: str) -> None:
        with suppress(TopologyMismatch), self._talking(f"delete queue {queue!r}"):
            self._channel.queue_delete(queue)

    def subscribe(self, queues: Sequence[Queue], prefetch: int, held: Iterable[str]) -> None:
        self._subscribed = [queue.name for queue in queues]
        turns = Turns(queues)
        if not turns.are_even and hasattr(self._channel, "turns"):
            self._channel.turns = turns
        self.set_prefetch(prefetch)

    def set_prefetch(self, count: int) -> None:
        self._give_back_arrived()
        if hasattr(self._channel, "hold_at_most"):  # a queue that goes when nobody consumes it must not go in a pause
            self._channel.hold_at_most(count)
        elif count == 0:
            self.stop()
            return
        else:
            self._channel.basic_qos(0, count, False)
        if not self._consumer_tags:
            for queue in self._subscribed:
                tag = uuid.uuid4().hex
                with self._talking(f"consume queue {queue!r}"):
                    self._channel.basic_consume(
                        queue=queue, no_ack=False, callback=partial(self._on_message, queue), consumer_tag=tag
                    )
                self._consumer_tags.append(tag)

    def _on_message(self, queue: str, message: Any) -> None:
        self._arrived.append(self._taken(queue, message))

    def _taken(self, queue: str, message: Any) -> Taken:
        tag = str(message.delivery_tag)
        self._tags[tag] = message.delivery_tag
        info = message.delivery_info or {}
        body, headers = message.body, message.headers or {}
        if "compression" in headers and not message.errors:  # kombu has decompressed the body on the way in
            headers = {key: value for key, value in headers.items() if key != "compression"}
        wire = wire_of(
            body.encode("utf-8", "surrogateescape") if isinstance(body, str) else bytes(body or b""),
            message.properties, headers, message.content_type, message.content_encoding,
        )  # fmt: skip
        return Taken(tag, wire, queue, bool(info.get("redelivered")))

    def exchange(
        self, acks: Sequence[str], requeues: Sequence[str], limit: int, *, releases: Sequence[str] = ()
    ) -> list[Taken]:
        with self._talking("settle messages"):
            done = [self._tags.pop(tag) for tag in acks if tag in self._tags]
            if done and hasattr(self._channel, "ack_many"):
                self._channel.ack_many(done)
            else:
                for number in done:
                    self._channel.basic_ack(number)
            if releases and hasattr(self._channel, "release_many"):
                self._channel.release_many([self._tags.pop(tag) for tag in releases if tag in self._tags])
                releases = ()
            for tag in (*requeues, *releases):
                if tag in self._tags:
                    self._channel.basic_reject(self._tags.pop(tag), requeue=True)
        while self._consumer_tags and len(self._arrived) < limit and self._drain(0.0):
            pass
        return [self._arrived.popleft() for _ in range(min(limit, len(self._arrived)))]

    def _drain(self, timeout_seconds: float) -> bool:
        """Let one message arrive; False when there was none in time."""
        with self._talking("receive"):
            try:
                self._connection.drain_events(timeout=timeout_seconds)
            except TimeoutError:  # socket.timeout is the same since Python 3.10
                return False
        return True

    def wait(self, timeout_seconds: float) -> None:
        self._drain(timeout_seconds if self._wake is not None else min(timeout_seconds, UNWOKEN_WAIT_SECONDS))

    def wake(self) -> None:
        if self._wake is not None:
            self._wake()

    def stop(self) -> None:
        with self._talking("cancel"):
            for tag in self._consumer_tags:
                self._channel.basic_cancel(tag)
            self._consumer_tags.clear()
        self._give_back_arrived()

    def _give_back_arrived(self) -> None:
        unseen = [taken.tag for taken in self._arrived]
        self._arrived.clear()
        if unseen:
            self.exchange((), (), 0, releases=unseen)

    def close(self, *, hand_back: bool = True, gone: Sequence[Queue] = ()) -> None:
        with suppress(*self._errors, *self._channel_errors):
            if hand_back:
                for queue in gone:
                    self._channel.queue_delete(queue.name)
            self._connection.release()


def _arguments(queue: Queue) -> dict[str, object]:
    arguments = dict(queue.arguments)
    if queue.expires_seconds is not None:
        arguments["x-expires"] = max(1, round(queue.expires_seconds * 1000))
    if queue.max_priority is not None:
        arguments["x-max-priority"] = queue.max_priority
    return arguments
