"""All listeners of one app, whichever way they are given their events, with their claims and their clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from .broadcast import BroadcastEndpoint
from .core.batch import Batch
from .core.claims import ClaimStore
from .core.errors import DeclarationError
from .dedupe import Claims
from .firing import HIGHEST_PRIORITY
from .listeners import EventEndpoint, Listener

if TYPE_CHECKING:
    from .batches import Batches


class Listening:
    """See the head of this module.

    Args:
        app: the app's name.
        store: of the claims of listeners with `dedupe`; None for none.
    """

    def __init__(self, app: str, store: ClaimStore | None) -> None:
        self._clock: Callable[[], float] = time.time
        self._shared = EventEndpoint(app)
        self._of_each_process = BroadcastEndpoint(app)
        self._batches: list[Batches] = []
        self._claims = None if store is None else Claims(store, self.now)
        self._shared.claim_in(self._claims)

    def check(self, *, each_process: bool, has_retry: bool, dedupe: object, max_priority: int | None) -> None:
        """Raises DeclarationError: options that exclude each other, or lack what they need."""
        if each_process and (has_retry or dedupe is not None or max_priority is not None):
            raise DeclarationError("a listener of each_process has no retry, no dedupe and no max_priority")
        if dedupe is not None and self._claims is None:
            raise DeclarationError(f"dedupe={dedupe!r} needs a store: give the Bus claims='sqlite:///claims.db', say")
        if max_priority is not None and not 1 <= max_priority <= HIGHEST_PRIORITY:
            raise DeclarationError(f"max_priority is from 1 to {HIGHEST_PRIORITY}, got {max_priority!r}")

    def check_ordered(self, listener: Listener, *, each_process: bool, batch: Batch | None) -> None:
        """Raises DeclarationError: options that exclude each other."""
        others = {
            "rate": listener.rate, "concurrency": listener.concurrency, "max_priority": listener.max_priority,
            "batch": batch, "each_process": each_process or None,
        }  # fmt: skip
        given = [name for name, value in others.items() if value is not None]
        if listener.ordered is not None and given:
            raise DeclarationError(f"a listener with ordered_by has no {' and no '.join(given)}")

    def check_batch(self, batch: Batch | None, concurrency: object) -> None:
        """Raises DeclarationError: options that exclude each other."""
        if batch is not None and concurrency is not None:
            raise DeclarationError(
                f"a listener with batch has no concurrency, got {concurrency!r}: its batches would not fill"
            )

    def add(self, listener: Listener, *, each_process: bool, batch: Batch | None) -> None:
        """Raises DeclarationError: the name is taken, or an event belongs to no API."""
        if batch is not None:
            from .batches import Batches  # with asyncio, which most programs do not need

            batches = Batches(listener.function, batch)
            batches.at_once = self._clock is not time.time
            self._batches.append(batches)
            listener = replace(listener, function=batches.take)
        (self._of_each_process if each_process else self._shared).add(listener)

    def endpoints(self) -> tuple[EventEndpoint, BroadcastEndpoint]:
        """What answers the listeners' queues; either may have none."""
        return self._shared, self._of_each_process

    def broadcast_listeners(self) -> tuple[Listener, ...]:
        """Those that every process hears for itself, for tools."""
        return tuple(self._of_each_process.listeners())

    def listeners(self) -> tuple[Listener, ...]:
        """Those with a queue that stays, for tools."""
        return tuple(self._shared.listeners())

    def now(self) -> float:
        """Unix time in seconds."""
        return self._clock()

    def follow(self, now: Callable[[], float]) -> None:
        """Take the time from `now`. With another clock than the machine's, batches wait for nothing."""
        self._clock = now
        self._shared.follow(now)
        self._of_each_process.follow(now)
        for batches in self._batches:
            batches.at_once = now is not time.time

    def begin_test(self, store: ClaimStore) -> None:
        """Claim in `store`, until `end_test`, where there is a store."""
        if self._claims is not None:
            self._shared.claim_in(Claims(store, self.now))

    def end_test(self) -> None:
        """Take up the machine's clock and the app's own claims."""
        self.follow(time.time)
        self._shared.claim_in(self._claims)

    def close(self) -> None:
        """Disconnect from the store of claims."""
        if self._claims is not None:
            self._claims.close()
