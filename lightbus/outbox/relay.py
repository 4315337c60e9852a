"""The relay: publishes what waits in an outbox, and deletes each row once the broker has its message.

A crash between the two publishes a message again, with its old id and the header `lightbus_repeat`. Any number of
relays share one outbox. A broker or a database that is away is waited for; a message that the broker refuses is tried
again later and then set aside, and holds up at most what was written in the same transaction and is not under way yet.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from ..core.errors import ConfigError, TransportError
from ..core.outbox import Aside, Away, Backlog, Claimed, Later, Row, Sent, Verdict, parcel_of, slices, verdicts_of
from ..core.topology import EVENTS, EVENTS_EXCHANGE, Exchange, Topology
from ..ports import Transport
from .store import Claim, OutboxStore, StoreUnavailable

logger = logging.getLogger("lightbus.outbox")

LOOK_SECONDS = 10.0  #: between two looks at the backlog
CLEAN_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayOptions:
    """How a relay works.

    Attributes:
        batch: rows that are taken at a time.
        poll_seconds: how often an empty outbox is looked at where nothing wakes the relay.
        lease_seconds: after that long the rows of a relay that died go to another one. Longer than the broker is
            waited for (`publish_timeout_seconds`), and than the clocks of databases without one of their own differ.
    """

    batch: int = 100
    poll_seconds: float = 1.0
    lease_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.poll_seconds <= 0 or self.lease_seconds <= 0:
            raise ConfigError(f"batch, poll_seconds and lease_seconds of a relay must be above 0, got {self}")


class RelayWatcher:
    """Is told what a relay does; subclass what is of interest. Must not block or raise."""

    def on_verdict(self, store: str, row: Row, verdict: Verdict) -> None:
        """One attempt has ended."""

    def on_backlog(self, store: str, backlog: Backlog, lag_seconds: float) -> None:
        """Told about every 10 seconds."""


class Relay:
    """Publishes from one store to one broker, on one thread."""

    def __init__(
        self,
        store: OutboxStore,
        transport: Transport,
        options: RelayOptions | None = None,
        watcher: RelayWatcher | None = None,
    ) -> None:
        self._store = store
        self._transport = transport
        self._options = options or RelayOptions()
        self._watcher = watcher or RelayWatcher()
        self._stopped = threading.Event()
        self._pause_seconds = 0.0
        self._can_delay = False
        self._looked = self._cleaned = -float("inf")

    def stop(self) -> None:
        """Have `run` end after what it does now. From any thread or signal handler."""
        self._stopped.set()
        self._store.wake()

    def run(self, on_turn: Callable[[], None] = lambda: None) -> None:
        """Work until stopped. Outages of the broker and the database are logged and waited for.

        Args:
            on_turn: called once per turn of the loop, at least every LONGEST_PAUSE_SECONDS.
        """
        try:
            while not self._stopped.is_set():
                on_turn()
                self._turn()
        finally:
            self._store.close()

    def flush(self) -> int:
        """Publish what is due now, and return; how many rows were published. For tests and scripts.

        Raises:
            TransportError: the broker is away.
            StoreUnavailable: the database is.
        """
        done = 0
        while (number := self.step()) is not None:
            done += number
        return done

    def step(self) -> int | None:
        """One batch; how many rows of it were published, None when none was due.

        Raises:
            TransportError: the broker is away; what was not confirmed waits.
            StoreUnavailable: the database is. What was published and could not be deleted is published again.
        """
        started = time.monotonic()
        claim = self._store.claim(self._options.batch, lease_seconds=self._options.lease_seconds)
        if not claim.rows:
            return None
        done, rest = 0, list(claim.rows)
        try:
            # Here and not at the start: a broker that is away must not keep a relay from starting.
            self._transport.declare(Topology((Exchange(EVENTS_EXCHANGE, "topic"),)))
            for piece in slices(claim.rows):
                if time.monotonic() - started > self._options.lease_seconds / 2:
                    break  # too slow: another relay may have them soon
                del rest[: len(piece)]
                done += self._publish(claim, piece)
        finally:
            if rest:
                self._store.release(claim, [one.position for one in rest], unsent=True)
        return done

    def _turn(self) -> None:
        try:
            self._look()
            was_idle = self.step() is None
            self._pause_seconds = 0.0
            if was_idle:
                self._store.wait(self._options.poll_seconds)
        except (TransportError, StoreUnavailable) as error:
            self._pause_seconds = min(LONGEST_PAUSE_SECONDS, max(0.5, 2 * self._pause_seconds))
            logger.warning("outbox=%s waits %.1f s: %s: %s", self._store.name, self._pause_seconds,
                           type(error).__name__, error)  # fmt: skip
            self._stopped.wait(self._pause_seconds * random.uniform(0.5, 1.0))

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            backlog = self._store.backlog()
            self._watcher.on_backlog(self._store.name, backlog, backlog.lag_seconds(time.time()))
        if now - self._cleaned >= CLEAN_SECONDS:
            self._cleaned = now
            self._store.clean()

    def _publish(self, claim: Claim, piece: Sequence[Claimed]) -> int:
        """Publish one slice, in order, and settle each row by what became of it; how many were published.

        Raises:
            TransportError: the broker is away.
        """
        rows = self._store.load([one.position for one in piece])
        if not self._can_delay and any(row.entry.exchange and row.entry.visible_at for row in rows):
            self._transport.declare(Topology((EVENTS,)))
            self._can_delay = True
        sent = [(row, self._begin(row)) for row in rows]
        deadline = time.monotonic() + self._options.lease_seconds / 2
        errors = [_error_of(future, deadline) for _, future in sent]
        verdicts = verdicts_of([(error, row.attempts) for error, row in zip(errors, rows, strict=True)])
        done = [row.position for row, verdict in zip(rows, verdicts, strict=True) if isinstance(verdict, Sent)]
        if done:
            self._store.delete(done)  # first: should the database go now, these would be published again
        away: dict[bool, list[int]] = {True: [], False: []}
        for row, verdict in zip(rows, verdicts, strict=True):
            self._watcher.on_verdict(self._store.name, row, verdict)
            match verdict:
                case Away(was_sent):
                    away[was_sent].append(row.position)
                case Later(delay_seconds, text):
                    logger.warning("outbox=%s id=%s name=%s refused, again in %.0f s: %s", self._store.name,
                                   row.entry.message_id, row.entry.name, delay_seconds, text)  # fmt: skip
                    self._store.put_off(claim, row.position, delay_seconds, text)
                case Aside(text):
                    logger.error("outbox=%s id=%s name=%s set aside: %s", self._store.name, row.entry.message_id,
                                 row.entry.name, text)  # fmt: skip
                    self._store.set_aside(claim, row.position, text)
        for was_sent, positions in away.items():
            if positions:
                self._store.release(claim, positions, unsent=not was_sent)
        lost = [verdict for verdict in verdicts if isinstance(verdict, Away)]
        if lost:
            raise TransportError(lost[0].error)
        return len(done)

    def _begin(self, row: Row) -> Future[None]:
        """Publish without waiting. To a queue by its name only where there is one: nobody would keep it."""
        try:
            parcel = parcel_of(row, now=time.time())
            return self._transport.publish(
                parcel.wire, parcel.route, delay_seconds=parcel.delay_seconds, mandatory=not parcel.route.exchange
            )
        except Exception as error:  # noqa: BLE001  # a row is foreign data: what it brings about is its own
            failed: Future[None] = Future()
            failed.set_exception(error)
            return failed


def _error_of(future: Future[None], deadline: float) -> Exception | None:
    try:
        error = future.exception(max(0.0, deadline - time.monotonic()))
    except FutureTimeout:
        return TimeoutError("the broker did not confirm within half of the lease")
    return error if error is None or isinstance(error, Exception) else RuntimeError(repr(error))
