"""Brokers without AMQP: Redis, the embedded SQLite broker, and every other kombu transport.

Publishing happens in the calling thread under a lock, and the write is the confirm, so the future is done when it is
returned. Consumers (`virtual_consumer`) have a connection and a thread each. What differs between brokers is a
`session`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import msgspec

from ...core.errors import BrokerUnreachable, ConfigError, ConnectionLost, TransportError, Unwritable
from ...core.message import Route, Wire
from ...core.outcome import REPEAT_HEADER
from ...core.rate import Turn
from ...core.topology import Exchange, Queue, Topology
from ...forks import renewed_after_fork
from ...ports import Capabilities, Delivery, Settlement, settled_first
from .backoff import Backoff
from .session import Session, SessionKind
from .virtual_consumer import VirtualConsumer, carry_out

logger = logging.getLogger("lightbus.virtual")

PUBLISH_TIMEOUT_SECONDS = 10.0
_TIMEOUT_OPTION = "publish_timeout_seconds"

T = TypeVar("T")


def open_virtual(url: str, options: Mapping[str, object]) -> VirtualTransport:
    """The transport for a URL of Redis, SQLite or any kombu transport without AMQP.

    Args:
        options: kombu's transport options, and `publish_timeout_seconds`: how long a publish tries to reach a broker
            that is away (10).

    Raises:
        ConfigError: the options are wrong.
    """
    scheme = url.partition("://")[0]
    timeout = options.get(_TIMEOUT_OPTION, PUBLISH_TIMEOUT_SECONDS)
    if not isinstance(timeout, int | float) or timeout <= 0:
        raise ConfigError(f"transport option {_TIMEOUT_OPTION!r} is a number of seconds above 0, got {timeout!r}")
    left = {key: value for key, value in options.items() if key != _TIMEOUT_OPTION}
    kind: SessionKind
    if scheme.partition("+")[0] in ("redis", "rediss", "sentinel"):
        from .redis import RedisKind

        kind = RedisKind(url, left)
    else:
        from .channel_session import ChannelKind

        kind = ChannelKind(url, left)
    return VirtualTransport(kind, publish_timeout_seconds=float(timeout))


class VirtualTransport:
    """See `ports.Transport`."""

    def __init__(self, kind: SessionKind, *, publish_timeout_seconds: float = PUBLISH_TIMEOUT_SECONDS) -> None:
        self._kind = kind
        self._publish_timeout_seconds = publish_timeout_seconds
        self._lock = threading.Lock()  # held while the session is used, so taken with patience that ends
        self._session: Session | None = None
        self._books = threading.RLock()  # held for moments: what is declared, who consumes
        self._topology = Topology()
        self._consumers: list[VirtualConsumer] = []
        self._closed = False
        self._parents: list[object] = []
        renewed_after_fork(self)

    def renew_after_fork(self) -> None:
        """See `Renewable`."""
        self._parents += [self._session, *self._consumers]
        self._lock, self._books = threading.Lock(), threading.RLock()
        self._session = None
        self._consumers = []

    @property
    def capabilities(self) -> Capabilities:
        return self._kind.capabilities

    def declare(self, topology: Topology) -> None:
        self._with_session(lambda session: session.declare(_without_exclusive(topology)))
        with self._books:
            self._topology += topology

    def publish(self, wire: Wire, route: Route, *, delay_seconds: float = 0.0, mandatory: bool = False) -> Future[None]:
        future: Future[None] = Future()
        try:
            self._publish(wire, route, delay_seconds, mandatory)
        except TransportError as error:
            future.set_exception(error)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:  # a header that JSON does not have
            future.set_exception(Unwritable(f"a message for {route.routing_key!r} cannot be written: {error}"))
        else:
            future.set_result(None)
        return future

    def _publish(self, wire: Wire, route: Route, delay_seconds: float, mandatory: bool) -> None:
        """Raises what the last try raised, when the broker did not come back in time."""
        backoff = Backoff()
        deadline = time.monotonic() + self._publish_timeout_seconds
        while True:
            try:
                self._with_session(partial(_publish_on, wire, route, delay_seconds, mandatory))
                return
            except (ConnectionLost, BrokerUnreachable) as error:
                pause_seconds = backoff.next_seconds()
                if self._closed or time.monotonic() + pause_seconds >= deadline:
                    raise
                if isinstance(error, ConnectionLost):  # it was perhaps written before the connection broke
                    wire = msgspec.structs.replace(wire, headers={**wire.headers, REPEAT_HEADER: 1})
                time.sleep(pause_seconds)

    def announce(self, wire: Wire, exchange: Exchange, routing_key: str) -> None:
        """See `ports.Announces`."""
        self._with_session(lambda session: session.announce(wire, exchange, routing_key))

    def take_turn(self, name: str, interval_seconds: float, *, most_wait_seconds: float) -> Turn:
        """See `ports.RateStore`."""
        return self._with_session(lambda session: session.take_turn(name, interval_seconds, most_wait_seconds))

    def hold_permit(self, name: str, holder: str, most: int, *, lease_seconds: float) -> bool:
        """See `ports.PermitStore`."""
        return self._with_session(lambda session: session.hold_permit(name, holder, most, lease_seconds))

    def free_permit(self, name: str, holder: str) -> None:
        """See `ports.PermitStore`."""
        self._with_session(lambda session: session.free_permit(name, holder))

    def consume(
        self,
        queues: Sequence[Queue],
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        no_ack: bool = False,
    ) -> VirtualConsumer:
        if self._closed:
            raise ConnectionLost("this transport is closed")
        if prefetch < 1:
            raise ValueError(f"prefetch must be 1 or more, got {prefetch}")
        names = {queue.name for queue in queues}
        # An exclusive queue is its consumer's own, so nobody has to have declared it before.
        with self._books:
            self._topology += Topology(queues=tuple(queue for queue in queues if queue.exclusive))
        take = settled_first(on_delivery) if no_ack else on_delivery
        consumer = VirtualConsumer(self._kind, queues, take, prefetch, partial(self._declare_on, names), self._forget)
        consumer.start()
        with self._books:
            self._consumers = [*(one for one in self._consumers if not one.closed), consumer]
        return consumer

    def get(self, queue: str) -> Delivery | None:
        session, taken = self._with_session(lambda session: (session, session.get(queue)))
        if taken is None:
            return None
        return Delivery(taken.wire, queue, taken.redelivered, partial(self._settle, session, taken.tag))

    def _settle(self, session: Session, tag: str, settlement: Settlement) -> None:
        def settle(current: Session) -> None:
            if current is session:  # else the broker gives the message to somebody again
                carry_out(current, [(tag, settlement)], 0)

        self._with_session(settle)

    def message_count(self, queue: str) -> int | None:
        return self._with_session(lambda session: session.count(queue))

    def delete(self, queue: str) -> None:
        self._with_session(lambda session: session.delete(queue))
        self._forget([queue])

    def close(self) -> None:
        self._closed = True
        with self._books:
            consumers, self._consumers = self._consumers, []
        for consumer in consumers:
            consumer.close()
        if self._lock.acquire(timeout=self._publish_timeout_seconds):  # else a broken session is let go by its user
            self._drop_session()
            self._lock.release()

    def _with_session(self, act: Callable[[Session], T]) -> T:
        """Use the session, which one thread may at a time. A connection that broke is dropped, and the error raised.

        Raises:
            BrokerUnreachable: others wait for the broker already, and it did not come back in time.
        """
        if not self._lock.acquire(timeout=self._publish_timeout_seconds):
            seconds = self._publish_timeout_seconds
            raise BrokerUnreachable(f"{self.capabilities.name} has not answered others for {seconds:g} s")
        try:
            return self._act(act)
        finally:
            self._lock.release()

    def _act(self, act: Callable[[Session], T]) -> T:
        if self._closed:
            raise ConnectionLost("this transport is closed")
        if self._session is None:
            session = self._kind.open()
            try:
                session.declare(_without_exclusive(self._topology))
            except TransportError:
                session.close(hand_back=False)
                raise
            self._session = session
        try:
            return act(self._session)
        except (ConnectionLost, BrokerUnreachable):
            self._drop_session()
            raise

    def _drop_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _declare_on(self, consumed: Collection[str], session: Session) -> None:
        """For consumers: make what stands stand on a new connection too, with the exclusive queues that are its own."""
        session.declare(_without_exclusive(self._topology, consumed))

    def _forget(self, names: Sequence[str]) -> None:
        """Queues that are gone must not come back with the next connection."""
        with self._books:
            topology = self._topology
            self._topology = Topology(
                topology.exchanges,
                tuple(queue for queue in topology.queues if queue.name not in names),
                tuple(binding for binding in topology.bindings if binding.queue not in names),
            )


def _publish_on(wire: Wire, route: Route, delay_seconds: float, mandatory: bool, session: Session) -> None:
    session.publish(wire, route, delay_seconds, mandatory)


def _without_exclusive(topology: Topology, own: Collection[str] = ()) -> Topology:
    """Exclusive queues belong to the connection that declares them, which has to be the one that consumes: `own`."""
    others = {queue.name for queue in topology.queues if queue.exclusive and queue.name not in own}
    return Topology(
        topology.exchanges,
        tuple(queue for queue in topology.queues if queue.name not in others),
        tuple(binding for binding in topology.bindings if binding.queue not in others),
    )
