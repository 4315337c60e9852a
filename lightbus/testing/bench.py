"""What the parts of the transport contract share: hooks, names, an inbox, and waiting with a deadline."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from ..core.errors import TransportError
from ..core.message import Wire
from ..core.topology import Queue, Topology
from ..ports import Consumer, Delivery, Transport

T = TypeVar("T")

#: A deadline, not a pause: what is waited for comes in milliseconds unless the machine is busy.
PATIENCE_SECONDS = 20.0


def eventually(look: Callable[[], T], wanted: Callable[[T], bool], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """What `look` gives as soon as it is `wanted`; AssertionError with what was seen last when that takes too long."""
    deadline = time.monotonic() + seconds
    while not wanted(seen := look()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}; last seen: {seen!r}"
        time.sleep(0.01)
    return seen


def let_pass(seconds: float) -> None:
    """For tests about time itself."""
    time.sleep(seconds)


class Inbox:
    """Collects deliveries. As a callback it may settle them too, by `then`."""

    def __init__(self, then: Callable[[Delivery], None] | None = None) -> None:
        self._then = then
        self._changed = threading.Condition()
        self._deliveries: list[Delivery] = []

    def __call__(self, delivery: Delivery) -> None:
        with self._changed:
            self._deliveries.append(delivery)
            self._changed.notify_all()
        if self._then is not None:
            self._then(delivery)

    def all(self) -> list[Delivery]:
        with self._changed:
            return list(self._deliveries)

    def wait(self, count: int, seconds: float = PATIENCE_SECONDS) -> list[Delivery]:
        """All deliveries, once there are `count` of them."""
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self._deliveries) >= count, seconds)
            seen = [delivery.wire.body[:40] for delivery in self._deliveries]
            assert enough, f"waited {seconds:g} s for {count} messages, got {len(seen)}: {seen[:20]}"
            return list(self._deliveries)

    def bodies(self) -> list[bytes]:
        return [delivery.wire.body for delivery in self.all()]


def settle_now(delivery: Delivery) -> None:
    delivery.ack()


class Bench:
    """Base of the contract's parts: the hooks that a subclass fills in, and helpers.

    Attributes:
        tells_mismatch: the broker refuses to declare a queue again with other arguments.
    """

    tells_mismatch = True

    def make_transport(self) -> Transport:
        """A new connection to the broker under test, the same broker for the whole of one test."""
        raise NotImplementedError("a transport's contract says how to connect to its broker")

    def make_unreachable(self) -> Transport | None:
        """A transport to an address where nothing answers, that gives up soon; None for a broker in this process."""
        raise NotImplementedError("say how a broker that is away looks, or return None")

    def make_refused(self) -> Transport | None:
        """A transport with a wrong password, that gives up soon; None where there are no passwords."""
        raise NotImplementedError("say how a wrong password looks, or return None")

    def url_for_processes(self) -> str | None:
        """The URL under which another process reaches the broker under test; None when none can."""
        raise NotImplementedError("give the broker's URL, or None")

    @pytest.fixture(autouse=True)
    def _bench(self) -> Iterator[None]:
        self._opened: list[Transport] = []
        self._own_names: list[str] = []
        yield
        for transport in self._opened:
            transport.close()
        if self._own_names:
            cleaner = self.make_transport()
            for name in self._own_names:
                cleaner.delete(name)
            cleaner.close()

    def open(self) -> Transport:
        """A transport that is closed after the test."""
        transport = self.make_transport()
        self._opened.append(transport)
        return transport

    def name(self, what: str = "q") -> str:
        """A name that no other test has; a queue of that name is deleted after the test."""
        name = f"contract.{what}.{uuid.uuid4().hex[:12]}"
        self._own_names.append(name)
        return name

    def new_queue(self, transport: Transport) -> Queue:
        """A declared durable queue."""
        queue = Queue(name=self.name())
        transport.declare(Topology(queues=(queue,)))
        return queue

    def send(self, transport: Transport, queue: Queue, *bodies: bytes) -> None:
        """Publish, and wait until the broker has them."""
        for future in [transport.publish(Wire(body=body), queue.route) for body in bodies]:
            future.result(PATIENCE_SECONDS)

    def drain(self, transport: Transport, queue: Queue) -> list[bytes]:
        """Take what waits in a queue, one by one."""
        bodies = []
        while (delivery := transport.get(queue.name)) is not None:
            bodies.append(delivery.wire.body)
            delivery.ack()
        return bodies

    def wait_for_count(self, transport: Transport, queue: Queue, count: int | None) -> None:
        eventually(
            lambda: transport.message_count(queue.name),
            lambda seen: seen == count,
            f"{count} messages in {queue.name}",
        )

    def collect(self, transport: Transport, queue: Queue, *, prefetch: int = 100) -> tuple[Inbox, Consumer]:
        """Consume a queue, acknowledging at once."""
        inbox = Inbox(settle_now)
        return inbox, transport.consume([queue], inbox, prefetch=prefetch)


def error_of(act: Callable[[], object]) -> TransportError:
    """The transport error that `act` raises."""
    with pytest.raises(TransportError) as caught:
        act()
    return caught.value
