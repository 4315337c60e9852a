"""Events, the receiving half: which function listens to which events, and what becomes of a failure."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .core.anyevent import AnyEvent, any_event, is_heard, pattern_key
from .core.api import Event, EventSpec
from .core.codec import decode_event, split_version
from .core.concurrency import Concurrency
from .core.errors import BadArguments, DeclarationError, HandlerNotFound, TimeLimitExceeded, WorkerLost
from .core.message import Route
from .core.ordering import Ordered
from .core.outcome import Ack, DeadLetter, Forward, Outcome, Retry
from .core.rate import Rate
from .core.retry import RetryPolicy
from .core.schema import event_decoder
from .core.topology import Topology, event_route, listener_topology, ordered_lane, ordered_topology
from .dedupe import Claimed, Claims, Dedupe
from .endpoint import Invocation
from .ports import Delivery

logger = logging.getLogger("lightbus.events")


@dataclass(frozen=True, slots=True)
class Listener:
    """A function of an app that gets each event of some kinds once, whichever process of the app takes it."""

    name: str
    function: Callable[..., Any]
    events: tuple[type[Event], ...]
    retry: RetryPolicy
    soft_limit_seconds: float | None = None
    hard_limit_seconds: float | None = None
    rate: Rate | None = None
    dedupe: Dedupe | None = None
    concurrency: Concurrency | None = None
    ordered: Ordered | None = None
    max_priority: int | None = None  #: its queue has an order of priorities up to that
    patterns: tuple[str, ...] = ()  #: of names of events that it gets as an `AnyEvent`


class EventEndpoint:
    """Answers the queues of an app's listeners: one durable queue each."""

    kind = "event"

    def __init__(self, app: str) -> None:
        self._app = app
        self._topology = Topology()
        self._now: Callable[[], float] = time.time
        self._claims: Claims | None = None
        self._listeners: dict[str, Listener] = {}  # by queue; an ordered one has several
        self._lanes: dict[str, str] = {}  # those of ordered listeners, with the queue that is bound, which is one too
        self._decoders: dict[tuple[str, str, int], Callable[[bytes], Event]] = {}

    def add(self, listener: Listener, topology: Topology | None = None) -> None:
        """Let `listener` have its queue, or the one that is given.

        Raises:
            DeclarationError: the name is taken, or an event belongs to no API.
        """
        specs = [_spec_of(kind) for kind in listener.events]
        if topology is None:
            topology = self._topology_of(listener)
        queue = topology.queues[0].name
        if queue in self._listeners:
            raise DeclarationError(
                f"app {self._app!r} has a listener named {listener.name!r} already; give one of them another name="
            )
        if listener.ordered is not None:
            fields = {spec.name: kind.__struct_fields__ for kind, spec in zip(listener.events, specs, strict=True)}
            listener.ordered.check(fields, listener.patterns, listener.retry)
            self._lanes |= {lane.name: queue for lane in topology.queues}
        self._topology += topology
        for one in topology.queues:
            self._listeners[one.name] = listener
            for kind, spec in zip(listener.events, specs, strict=True):
                self._decoders[one.name, spec.name, spec.major] = event_decoder(kind)

    def listeners(self) -> Collection[Listener]:
        """All listeners, for tools."""
        return [one for queue, one in self._listeners.items() if self._lanes.get(queue, queue) == queue]

    def follow(self, now: Callable[[], float]) -> None:
        """Take the time from `now`, in Unix seconds."""
        self._now = now

    def claim_in(self, claims: Claims | None) -> None:
        """Where listeners with `dedupe` claim their messages from now on."""
        self._claims = claims

    @property
    def blocking(self) -> bool:
        return self._claims is not None

    def topology(self) -> Topology:
        """See `Endpoint`."""
        return self._topology

    def queues(self) -> Collection[str]:
        """See `Endpoint`."""
        return self._listeners.keys()

    def rates(self) -> Mapping[str, Rate | None]:
        """See `Rated`: by queue, which is a listener's own."""
        return {queue: listener.rate for queue, listener in self._listeners.items()}

    def rate_name(self, delivery: Delivery) -> str | None:
        """See `Rated`."""
        return delivery.queue

    def limits(self) -> Mapping[str, Concurrency]:
        """See `Limited`: by queue, which is a listener's own."""
        return {queue: one.concurrency for queue, one in self._listeners.items() if one.concurrency is not None}

    def limit_name(self, queue: str) -> str | None:
        """See `Limited`."""
        listener = self._listeners.get(queue)
        return queue if listener is not None and listener.concurrency is not None else None

    def lanes(self) -> Mapping[str, str]:
        """See `HasLanes`: what comes to the queue that is bound goes to the lane of its key."""
        return self._lanes

    def prepare(self, delivery: Delivery) -> Invocation | Outcome:
        """See `Endpoint`."""
        message = decode_event(delivery.wire)
        listener = self._listeners[delivery.queue]
        major = split_version(message.version)[0]
        decode = self._decoders.get((delivery.queue, message.name, major))
        by_pattern = decode is None and any(is_heard(message.name, pattern) for pattern in listener.patterns)
        if decode is None and not by_pattern:
            known = [f"{name}.v{v}" for queue, name, v in self._decoders if queue == delivery.queue]
            raise HandlerNotFound(f"{message.name}.v{major}", known)
        if message.expires_at is not None and self._now() >= message.expires_at:
            return Ack("expired")
        event: Event | AnyEvent = any_event(message) if decode is None else decode(message.payload)
        origin = message.origin
        if listener.ordered is not None and self._lanes[delivery.queue] == delivery.queue:
            return Forward(Route("", ordered_lane(self._app, listener.name, listener.ordered.lane_of(event))))
        state: object = listener
        if listener.dedupe is not None and self._claims is not None:
            own = origin.id if listener.dedupe.key is None else listener.dedupe.key(event)
            state = self._claims.begin(listener, f"{delivery.queue}/{own}", listener.dedupe, message.attempt)
            if not isinstance(state, Claimed):
                return _in_order(listener, state)
        return Invocation(
            function=listener.function,
            args=(event,),
            name=message.name,
            id=origin.id,
            kind=self.kind,
            queue=delivery.queue,
            correlation_id=origin.correlation_id,
            causation_id=origin.causation_id,
            sent_at=origin.sent_at,
            trace=origin.trace,
            attempt=message.attempt,
            redelivered=delivery.may_repeat,
            soft_limit_seconds=listener.soft_limit_seconds,
            hard_limit_seconds=listener.hard_limit_seconds,
            state=state,
        )

    def succeed(self, invocation: Invocation, result: object) -> Outcome:
        """See `Endpoint`."""
        if isinstance(invocation.state, Claimed) and self._claims is not None:
            self._claims.succeed(invocation.state)
        return Ack()

    def fail(self, invocation: Invocation, error: BaseException) -> Outcome:
        """Retry by the listener's policy, then dead-letter. What takes processes down is not tried again."""
        listener = invocation.state
        if isinstance(listener, Claimed):
            if self._claims is not None:
                self._claims.fail(listener)
            listener = listener.state
        assert isinstance(listener, Listener)
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, WorkerLost):
            return DeadLetter("worker-lost", text, attempts=error.crashes)
        if listener.ordered is not None and isinstance(error, TimeLimitExceeded):
            # Its tries are counted in the process, which ends with it: it would be tried for ever.
            return DeadLetter("time-limit", text, attempts=invocation.attempt)
        delay_seconds = listener.retry.delay_seconds(invocation.attempt, random.random())
        logger.warning(
            "listener failed name=%s listener=%s id=%s attempt=%d error=%s retry_in_seconds=%s",
            invocation.name, listener.name, invocation.id, invocation.attempt, text, delay_seconds,
            exc_info=error,
        )  # fmt: skip
        if delay_seconds is None:
            reason = "time-limit" if isinstance(error, TimeLimitExceeded) else "handler-failed"
            return DeadLetter(reason, text, attempts=invocation.attempt)
        return _in_order(listener, Retry(delay_seconds, invocation.attempt + 1, text))

    def _topology_of(self, listener: Listener) -> Topology:
        keys = routing_keys_of(listener)
        if listener.ordered is not None:
            return ordered_topology(self._app, listener.name, keys, listener.ordered.lanes)
        return listener_topology(self._app, listener.name, keys, max_priority=listener.max_priority)


def _in_order(listener: Listener, outcome: Outcome) -> Outcome:
    if listener.ordered is not None and isinstance(outcome, Retry):
        return replace(outcome, in_place=True)
    return outcome


def routing_keys_of(listener: Listener) -> tuple[str, ...]:
    """The keys under which its events are published.

    Raises:
        DeclarationError: one belongs to no API.
    """
    specs = [_spec_of(kind) for kind in listener.events]
    return (
        *(event_route(spec.name, spec.major).routing_key for spec in specs),
        *(pattern_key(pattern) for pattern in listener.patterns),
    )


def _spec_of(kind: type[Event]) -> EventSpec:
    if not (isinstance(kind, type) and issubclass(kind, Event)):
        raise DeclarationError(f"bus.on() takes the event classes of an Api, got {kind!r}")
    if kind.spec is None:
        raise DeclarationError(f"event {kind.__qualname__} belongs to no Api: define it inside an Api class")
    return kind.spec


def spec_of(event: Event) -> EventSpec:
    """Where an event instance belongs.

    Raises:
        BadArguments: it belongs to no API.
    """
    if not isinstance(event, Event) or event.spec is None:
        raise BadArguments(f"only an event of an Api can be fired, got {event!r:.200}")
    return event.spec
