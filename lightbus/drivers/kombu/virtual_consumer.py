"""A consumer on a broker without AMQP: one thread, one connection, and the settlements of all other threads.

Handlers settle from their own threads; what they decide waits in one deque, and the consumer's thread is woken and
carries out all that is there at once.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from ...core.errors import BrokerUnreachable, ConnectionLost
from ...core.topology import Queue
from ...ports import Delivery, Settlement
from .backoff import Backoff
from .session import Session, SessionKind, Taken

logger = logging.getLogger("lightbus.virtual")

#: A message is looked for that often even when the broker does not tell of any.
LOOK_EVERY_SECONDS = 1.0

#: No more is taken while so much is held, whatever the prefetch: bodies of 16 MiB would fill the memory otherwise.
MOST_HELD_BYTES = 64 * 1024 * 1024


class VirtualConsumer:
    """See `ports.Consumer`.

    Args:
        declare_on: makes the transport's topology stand on a new session.
        forget: told the names of queues that went with this consumer.
    """

    def __init__(
        self,
        kind: SessionKind,
        queues: Sequence[Queue],
        on_delivery: Callable[[Delivery], None],
        prefetch: int,
        declare_on: Callable[[Session], None],
        forget: Callable[[Sequence[str]], None],
    ) -> None:
        self._kind = kind
        self._queues = list(queues)
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        self._session_prefetch = prefetch  # what the present session was told
        self._declare_on = declare_on
        self._forget = forget
        self._session: Session | None = None
        # Tags taken and not settled on the broker, with the sizes of their bodies; only the thread touches it.
        self._held: dict[str, int] = {}
        self._held_bytes = 0
        self._settlements: deque[tuple[str, Settlement]] = deque()
        self._cancelling = False
        self._closing = threading.Event()
        self._quiet = threading.Event()  # set when no further delivery will come
        self._awake = False
        self._thread = threading.Thread(target=self._run, name="lightbus-consumer", daemon=True)
        self._started: Future[None] = Future()
        self._failed_to_start = False
        self._stopped = False  # the present session was told of the cancellation
        self._backoff = Backoff()

    def start(self) -> None:
        """Raises TransportError: the first connection could not be made."""
        self._thread.start()
        self._started.result()

    @property
    def closed(self) -> bool:
        return not self._thread.is_alive()

    def set_prefetch(self, count: int) -> None:
        self._prefetch = count
        self._wake()

    def cancel(self) -> None:
        self._cancelling = True
        self._wake()
        if threading.current_thread() is not self._thread:
            while self._thread.is_alive() and not self._quiet.wait(0.1):
                self._wake()

    def close(self, *, timeout_seconds: float = 10.0) -> None:
        self._cancelling = True
        self._closing.set()
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_seconds)

    def _wake(self) -> None:
        self._awake = True
        session = self._session
        if session is not None:
            session.wake()

    def _settle(self, tag: str, settlement: Settlement) -> None:
        """Any thread."""
        self._settlements.append((tag, settlement))
        if not self._awake:  # a wake-up that is under way serves this one too
            self._wake()

    def _run(self) -> None:
        while True:
            session = self._try_to_open()
            if self._failed_to_start:
                break
            if session is not None and self._serve(session):
                break
            if self._cancelling:
                self._quiet.set()
            if self._closing.wait(self._backoff.next_seconds()):
                break
        self._quiet.set()

    def _try_to_open(self) -> Session | None:
        try:
            session = self._open_session()
        except Exception as error:  # noqa: BLE001 - top of a thread, and somebody may wait for it
            if self._started.done():
                logger.warning("cannot consume, trying again: %s", error)
            else:
                self._failed_to_start = True
                self._started.set_exception(error)
            return None
        if not self._started.done():
            self._started.set_result(None)
        return session

    def _open_session(self) -> Session:
        session = self._kind.open()
        try:
            self._declare_on(session)
            if not self._kind.tags_survive:
                self._held.clear()  # the broker gives those messages to somebody again
                self._held_bytes = 0
            session.subscribe(self._queues, self._session_prefetch, list(self._held))
        except BaseException:
            session.close(hand_back=False)
            raise
        self._stopped = False
        self._session = session
        return session

    def _serve(self, session: Session) -> bool:
        """Consume on one connection; True when the consumer is closed, False when the connection broke."""
        try:
            while not self._closing.is_set():
                if self._turn(session):
                    self._backoff = Backoff()
                else:
                    session.wait(LOOK_EVERY_SECONDS)
            self._turn(session)  # the settlements made so far
        except (ConnectionLost, BrokerUnreachable) as error:
            logger.warning("connection lost, opening it anew: %s", error)
        except Exception:
            logger.exception("consuming failed, opening the connection anew")
        self._session = None
        over = self._closing.is_set()
        gone = [queue for queue in self._queues if queue.exclusive] if over else []
        session.close(hand_back=over, gone=gone)
        self._forget([queue.name for queue in gone])
        return over

    def _turn(self, session: Session) -> bool:
        """Carry out the settlements there are, and hand over what comes; False when there was nothing to do."""
        self._awake = False  # before the deque is read: what is appended from now on wakes again
        cancelling = self._cancelling
        batch = []
        while self._settlements:
            batch.append(self._settlements.popleft())
        batch = [(tag, settlement) for tag, settlement in batch if tag in self._held]
        # Read after the settlements: what was handed back because the number falls must not be taken again.
        prefetch = self._prefetch
        if prefetch != self._session_prefetch and not cancelling:
            session.set_prefetch(prefetch)
            self._session_prefetch = prefetch
        is_full = self._held_bytes >= MOST_HELD_BYTES and len(batch) < len(self._held)
        limit = 0 if cancelling or is_full else max(0, prefetch - len(self._held) + len(batch))
        try:
            taken = carry_out(session, batch, limit)
        except BaseException:
            self._settlements.extendleft(reversed(batch))  # where tags survive, the next connection carries them out
            raise
        for tag, _ in batch:
            self._held_bytes -= self._held.pop(tag)
        if cancelling:
            if not self._stopped:  # after the settlements: a queue that goes with its consumer takes its messages along
                session.stop()
                self._stopped = True
            self._quiet.set()
        for one in taken:
            self._held[one.tag] = size = len(one.wire.body)
            self._held_bytes += size
        for one in taken:
            self._hand_over(one)
        return bool(taken or batch)

    def _hand_over(self, taken: Taken) -> None:
        delivery = Delivery(taken.wire, taken.queue, taken.redelivered, partial(self._settle, taken.tag))
        try:
            self._on_delivery(delivery)
        except Exception:
            logger.exception("handing over a message of queue %r failed; it goes back", taken.queue)
            delivery.requeue()


def carry_out(session: Session, settlements: Sequence[tuple[str, Settlement]], limit: int) -> list[Taken]:
    """Settle, and take at most `limit` messages in the same step."""
    kinds: dict[Settlement, list[str]] = {kind: [] for kind in Settlement}
    for tag, settlement in settlements:
        kinds[settlement].append(tag)
    return session.exchange(
        kinds[Settlement.ACK], kinds[Settlement.REQUEUE], limit, releases=kinds[Settlement.RELEASE]
    )  # fmt: skip
