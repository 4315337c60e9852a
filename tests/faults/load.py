"""A steady load of numbered messages through one queue, and the ledger of what became of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from lightbus.core.errors import TransportError
from lightbus.core.message import Route, Wire
from lightbus.core.topology import Queue, Topology
from lightbus.ports import Delivery, Transport
from tests.faults.ledger import Ledger
from tests.processes import wait_for

#: That many are published before the first of them has to be confirmed.
UNDER_WAY = 20
ANSWER_SECONDS = 60.0


class Load:
    """Publishes on one thread and consumes on another, inside the block or until `finish`.

    Args:
        publishing: the transport that publishes.
        consuming: the transport that consumes; may be the same.
        prefix: of the queue's name.
        body_bytes: how much each message weighs at least.
        replicated: a quorum queue on RabbitMQ, which is slower.
    """

    def __init__(
        self,
        publishing: Transport,
        consuming: Transport,
        prefix: str,
        *,
        body_bytes: int = 200,
        prefetch: int = 20,
        replicated: bool = False,
    ) -> None:
        self.ledger = Ledger()
        self.queue = Queue(name=f"{prefix}.load", replicated=replicated)
        self._publishing = publishing
        self._consuming = consuming
        self._padding = b" " * body_bytes
        self._prefetch = prefetch
        self._ending = threading.Event()
        self._room = threading.BoundedSemaphore(UNDER_WAY)
        self._thread = threading.Thread(target=self._publish, name="load")
        self.act: Callable[[Delivery], None] = lambda delivery: None  #: the handler's work

    def __enter__(self) -> Load:
        self._publishing.declare(Topology(queues=(self.queue,)))
        self._consuming.declare(Topology(queues=(self.queue,)))
        self._consumer = self._consuming.consume([self.queue], self._handle, prefetch=self._prefetch)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.set()
        self._thread.join(ANSWER_SECONDS)
        self._consumer.close()

    def wait_for_flow(self, count: int = 100, seconds: float = 30) -> None:
        """Wait until `count` more are confirmed, and as many done."""
        confirmed, done = len(self.ledger.confirmed), len(self.ledger.done)
        wait_for(
            lambda: len(self.ledger.confirmed) >= confirmed + count and len(self.ledger.done) >= done + count,
            seconds,
            f"{count} more to be confirmed and done ({self.ledger})",
        )

    def finish(self, seconds: float = 30) -> None:
        """Publish no more, and wait until all that was confirmed is done. Asserts the ledger."""
        self._ending.set()
        self._thread.join(ANSWER_SECONDS)
        assert not self._thread.is_alive(), f"publishing hangs: {self.ledger}"
        wait_for(lambda: self._all_answered() and not self.ledger.lost, seconds, f"the rest: {self.ledger}")
        assert not self.ledger.differences(), str(self.ledger)

    def _all_answered(self) -> bool:
        return len(self.ledger.sent) == len(self.ledger.confirmed) + len(self.ledger.failed)

    def _publish(self) -> None:
        number = 0
        while not self._ending.is_set():
            if not self._room.acquire(timeout=0.1):
                continue
            number += 1
            entry = str(number)
            self.ledger.record_sent(entry)
            body = entry.encode() + self._padding
            future = self._publishing.publish(Wire(body=body), Route("", self.queue.name))
            future.add_done_callback(partial(self._answered, entry))

    def _answered(self, entry: str, future: Future[None]) -> None:
        error = future.exception()
        assert error is None or isinstance(error, TransportError), repr(error)
        self.ledger.record_answer(entry, error)
        self._room.release()

    def _handle(self, delivery: Delivery) -> None:
        self.act(delivery)
        self.ledger.record_done(delivery.wire.body.decode().strip(), flagged=delivery.may_repeat)
        delivery.ack()
