"""Dead letters: look at what was parked, try it again, or throw it away. Nothing is lost on the way.

The queue is walked once. A message that fails again while the others are replayed comes back to its end and is left
there. What is not meant is held meanwhile and handed back to its place.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

from .core.errors import BadArguments, TransportError, Unroutable, Unwritable
from .core.parked import EVERYTHING, Parked, Selection, checked_body, parked_of, replayed, why_not
from .ports import Delivery, Transport

UNCONFIRMED = 100  #: replayed messages that may be under way to the broker at a time
#: A walk ends after twice as many messages as the broker counted, and this: what is held for too long comes round
#: again, and RabbitMQ's count may lack what was handed back a moment ago.
SLACK = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """How dead letters are replayed.

    Attributes:
        rate_per_second: None for as quickly as the broker takes them.
        limit: at most that many; None for all.
        payload: a JSON text in place of what they carry.
        to: a queue in place of the one that each came from.
    """

    rate_per_second: float | None = None
    limit: int | None = None
    payload: str | None = None
    to: str = ""

    def __post_init__(self) -> None:
        if self.rate_per_second is not None and self.rate_per_second <= 0:
            raise BadArguments(f"rate_per_second must be above 0, got {self.rate_per_second}")

    @property
    def unconfirmed(self) -> int:
        """Messages to send before their confirms are waited for: those of a tenth of a second, when there is a rate."""
        rate = self.rate_per_second
        return UNCONFIRMED if rate is None else max(1, min(UNCONFIRMED, int(rate / 10)))


@dataclass(slots=True)
class Replay:
    """What became of a replay.

    Attributes:
        done: messages that are back in a queue.
        kept: dead letters that could not be replayed and are where they were, each with the reason.
    """

    done: int = 0
    kept: list[tuple[Parked, str]] = field(default_factory=list)


class DeadLetters:
    """The dead letters of one queue; `Bus.dead_letters()` makes one."""

    def __init__(self, transport: Transport, queue: str) -> None:
        self.queue = queue
        self._transport = transport

    def count(self) -> int:
        """Messages that wait in the queue."""
        return self._transport.message_count(self.queue) or 0

    def look(self, which: Selection = EVERYTHING, *, limit: int | None = None) -> list[Parked]:
        """The dead letters of `which`, the oldest first, at most `limit`. All stay in the queue.

        All that are walked over are in the memory of this process meanwhile, and out of the reach of others.
        """
        found: list[Parked] = []
        with _Held() as held:
            for delivery, parked in self._walk():
                held.add(delivery)
                if which.meets(parked):
                    found.append(parked)
                    if len(found) == limit:
                        break
        return found

    def replay(self, which: Selection = EVERYTHING, *, options: ReplayOptions | None = None) -> Replay:
        """Publish the dead letters of `which` to the queues that they came from, where they begin with attempt 1.

        The broker has confirmed each before its dead letter is acknowledged: a crash in between doubles the message,
        with the flag `redelivered`, and never loses it.

        Raises:
            BadArguments: the payload is not what such a message carries; what it was meant for stays.
            TransportError: the broker is away. What is not replayed yet stays.
        """
        options = options or ReplayOptions()
        replay, begun, sent = Replay(), time.monotonic(), set[tuple[str, str]]()
        number = 0
        with _Held() as held:
            batch: list[tuple[Delivery, Parked, Future[None]]] = []
            try:
                for delivery, parked in self._walk():
                    key = (parked.id, parked.failure.queue)
                    fails_again = key in sent and len(parked.history) > 0
                    if fails_again or not which.meets(parked):
                        held.add(delivery)
                        continue
                    if reason := why_not(parked, options.to):
                        held.add(delivery)
                        replay.kept.append((parked, reason))
                        continue
                    batch.append((delivery, parked, self._send(delivery, parked, options, held)))
                    sent.add(key)
                    number += 1
                    if len(batch) == options.unconfirmed or number == options.limit:
                        _conclude(batch, replay, held)
                        if number == options.limit:
                            break
                        if options.rate_per_second is not None:
                            time.sleep(max(0.0, begun + number / options.rate_per_second - time.monotonic()))
            finally:
                _conclude(batch, replay, held)
        return replay

    def discard(self, which: Selection = EVERYTHING, *, limit: int | None = None) -> int:
        """Throw the dead letters of `which` away, at most `limit`; how many went."""
        done = 0
        with _Held() as held:
            for delivery, parked in self._walk():
                if not which.meets(parked):
                    held.add(delivery)
                    continue
                delivery.ack()
                done += 1
                if done == limit:
                    break
        return done

    def _walk(self) -> Iterator[tuple[Delivery, Parked]]:
        count = self._transport.message_count(self.queue)
        if count is None:
            return
        for _ in range(2 * count + SLACK):
            delivery = self._transport.get(self.queue)
            if delivery is None:
                return
            yield delivery, parked_of(delivery.wire)

    def _send(self, delivery: Delivery, parked: Parked, options: ReplayOptions, held: _Held) -> Future[None]:
        try:
            body = None if options.payload is None else checked_body(parked, options.payload)
        except BadArguments:
            held.add(delivery)
            raise
        copy = replayed(parked, may_repeat=delivery.redelivered, body=body, to=options.to)
        return self._transport.publish(copy.wire, copy.route, mandatory=True)


class _Held:
    """Deliveries that go back to their places at the end of the block, the last one first."""

    def __init__(self) -> None:
        self._deliveries: list[Delivery] = []

    def add(self, delivery: Delivery) -> None:
        self._deliveries.append(delivery)

    def __enter__(self) -> _Held:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for delivery in reversed(self._deliveries):
            with suppress(TransportError):  # a broker that is away gives back by itself what was not settled
                delivery.release()


def _conclude(batch: list[tuple[Delivery, Parked, Future[None]]], replay: Replay, held: _Held) -> None:
    """Acknowledge what is confirmed, and hold the rest; empties `batch`.

    Raises:
        TransportError: of the first that was not confirmed, unless its queue or its headers are to blame.
    """
    failed: TransportError | None = None
    for delivery, parked, confirmed in batch:
        try:
            confirmed.result()
        except (Unroutable, Unwritable) as error:
            held.add(delivery)
            replay.kept.append((parked, str(error)))
        except TransportError as error:
            held.add(delivery)
            failed = failed or error
        else:
            delivery.ack()
            replay.done += 1
    batch.clear()
    if failed is not None:
        raise failed
