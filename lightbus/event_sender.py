"""The half of a bus that fires events: what is published, where, under which terms, and how long is waited for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import datetime
from typing import Any

import msgspec

from .aio import awaitable
from .core.api import Event
from .core.codec import encode_event
from .core.message import EventMessage, Parcel, Route, Wire
from .core.schema import encode_event as encode_payload
from .core.topology import EVENTS, EVENTS_EXCHANGE, Exchange, Topology, event_route
from .firing import AT_ONCE, Terms, terms_of
from .identity import new_origin
from .listeners import spec_of
from .pipeline import publish_all, publish_all_async
from .ports import Transport
from .publishing import Publication, PublishHooks


class EventSender(ABC):
    """What `Bus` is to those who fire.

    Args:
        name: of the app.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._publish_hooks = PublishHooks()
        self._can_fire = self._can_delay = False  # the exchanges for it stand

    @property
    @abstractmethod
    def transport(self) -> Transport:
        """The way to the broker. Reading it opens nothing."""

    @abstractmethod
    def _now(self) -> float:
        """Unix seconds, from which delays are counted."""

    def fire(
        self,
        event: Event,
        *,
        delay_seconds: float = 0.0,
        at: datetime | None = None,
        expires_seconds: float | None = None,
        priority: int | None = None,
    ) -> None:
        """Publish an event; returns when the broker has taken charge of it.

        Args:
            delay_seconds: it waits in the broker for so long, and goes to those that listen then.
            at: the same as a moment with a time zone; one that has passed means now.
            expires_seconds: a listener that is not free so long after it has arrived does not get it any more.
            priority: 0 to 9, for listeners with `max_priority`; 9 is handled first.

        Raises:
            BadArguments: a field or an argument has a value that it cannot have; nothing was sent.
            ConfigError: the broker has no priorities.
            TransportError: the broker did not take it.
        """
        terms = self._terms(delay_seconds, at, expires_seconds, priority)
        wire, route, end = self._event(event, terms)
        sent = self.transport.publish(wire, route, delay_seconds=terms.delay_seconds)
        if end is not None:
            sent.add_done_callback(end)
        sent.result()

    async def fire_async(
        self,
        event: Event,
        *,
        delay_seconds: float = 0.0,
        at: datetime | None = None,
        expires_seconds: float | None = None,
        priority: int | None = None,
    ) -> None:
        """`fire` from a coroutine."""
        await awaitable(self._fire(event, self._terms(delay_seconds, at, expires_seconds, priority)))

    def fire_all(
        self,
        events: Iterable[Event],
        *,
        delay_seconds: float = 0.0,
        at: datetime | None = None,
        expires_seconds: float | None = None,
        priority: int | None = None,
    ) -> int:
        """Publish many events, as `fire` does, and wait for the broker once; much faster than one by one.

        Args:
            events: any number; a generator is read as the broker takes them, at most 1,000 being under way.

        Returns:
            int: how many they were.

        Raises:
            PartlyPublished: some were not published; it says which. After the first of them no more was begun.
            BadArguments, ConfigError: as `fire`, for the terms; nothing was sent.
        """
        terms = self._terms(delay_seconds, at, expires_seconds, priority)
        return publish_all(self._fire(event, terms) for event in events)

    async def fire_all_async(
        self,
        events: Iterable[Event],
        *,
        delay_seconds: float = 0.0,
        at: datetime | None = None,
        expires_seconds: float | None = None,
        priority: int | None = None,
    ) -> int:
        """`fire_all` from a coroutine."""
        terms = self._terms(delay_seconds, at, expires_seconds, priority)
        return await publish_all_async(self._fire(event, terms) for event in events)

    def parcel_of(
        self,
        event: Event,
        *,
        delay_seconds: float = 0.0,
        at: datetime | None = None,
        expires_seconds: float | None = None,
        priority: int | None = None,
    ) -> Parcel:
        """What `fire` would publish, with its id, for somebody who publishes it later. Connects to nothing.

        The terms are those of `fire`, and count from now.

        Raises:
            BadArguments: a field or an argument has a value that it cannot have.
            ConfigError: the broker has no priorities.
        """
        terms = self._terms(delay_seconds, at, expires_seconds, priority)
        wire, route, end = self._encoded(event)
        if end is not None:
            written: Future[None] = Future()
            written.set_result(None)
            end(written)
        return Parcel(terms.put_on(wire), route, terms.delay_seconds)

    def _terms(
        self, delay_seconds: float, at: datetime | None, expires_seconds: float | None, priority: int | None
    ) -> Terms:
        if not delay_seconds and at is None and expires_seconds is None and priority is None:
            return AT_ONCE
        return terms_of(
            delay_seconds, at, expires_seconds, priority, now=self._now(), broker=self.transport.capabilities
        )

    def _fire(self, event: Event, terms: Terms) -> Future[None]:
        wire, route, end = self._event(event, terms)
        sent = self.transport.publish(wire, route, delay_seconds=terms.delay_seconds)
        if end is not None:
            sent.add_done_callback(end)
        return sent

    def _event(self, event: Event, terms: Terms) -> tuple[Wire, Route, Callable[[Future[Any]], None] | None]:
        if not self._can_fire:
            spec_of(event)
            self.transport.declare(Topology((Exchange(EVENTS_EXCHANGE, "topic"),)))
            self._can_fire = True
        if terms.delay_seconds and not self._can_delay:
            self.transport.declare(Topology((EVENTS,)))
            self._can_delay = True
        wire, route, end = self._encoded(event)
        return (wire if terms is AT_ONCE else terms.put_on(wire)), route, end

    def _encoded(self, event: Event) -> tuple[Wire, Route, Callable[[Future[Any]], None] | None]:
        spec = spec_of(event)
        payload = encode_payload(event)
        origin, route, end = new_origin(self.name), event_route(spec.name, spec.major), None
        if self._publish_hooks:
            publication = Publication(
                kind="event", name=spec.name, id=origin.id, exchange=route.exchange, routing_key=route.routing_key,
                trace=dict(origin.trace),
            )  # fmt: skip
            end = self._publish_hooks.begin(publication)
            origin = msgspec.structs.replace(origin, trace=publication.trace)
        message = EventMessage(origin=origin, name=spec.name, version=spec.version, payload=payload)
        return encode_event(message), route, end
