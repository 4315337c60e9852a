"""What a slot sends: a target makes the messages of a firing, each with the slot's own id.

A target declares the queues that it sends to, so that a firing waits for a worker that has not been started yet.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lightbus_scheduler import Firing, Overlap, ScheduleError

from ..core.api import Api, Event
from ..core.codec import encode_event
from ..core.message import EventMessage, Origin, Parcel, Route
from ..core.schema import encode_event as encode_payload
from ..core.topology import EVENTS_EXCHANGE, Exchange, Topology, event_route, listener_topology
from ..listeners import spec_of
from ..ports import Transport


class Target(Protocol):
    """What an entry fires."""

    def parcels(self, firing: Firing) -> Sequence[Parcel]:
        """The messages of a firing. What it raises skips the slot, with the error as the reason."""

    def describe(self) -> str:
        """In a few words, for people."""

    def url(self) -> str:
        """The broker on which it has to be sent."""

    def check_overlap(self, rule: Overlap) -> None:
        """Raises ScheduleError: nobody could tell whether the last firing still runs, or end it."""

    def may_run(self, message_id: str) -> bool:
        """Whether the firing with that message may still run. What workers tell is known elsewhere."""

    def cancel(self, message_id: str) -> None:
        """End the firing with that message, if it still waits or runs."""


class SendingBus(Protocol):
    """What a target needs of a `Bus`."""

    name: str

    @property
    def url(self) -> str: ...

    @property
    def transport(self) -> Transport: ...


@dataclass(frozen=True)
class EventTarget:
    """An event, the same at each slot."""

    bus: SendingBus
    event: Event

    def parcels(self, firing: Firing) -> Sequence[Parcel]:
        """See `Target`."""
        spec = spec_of(self.event)
        self.bus.transport.declare(Topology((Exchange(EVENTS_EXCHANGE, "topic"),)))
        return [_event_parcel(self.bus.name, self.event, firing.message_id, event_route(spec.name, spec.major))]

    def check_overlap(self, rule: Overlap) -> None:
        """See `Target`."""
        if rule != "allow":
            raise ScheduleError("overlap", rule, "allow, for an event: any number of listeners may handle it")

    def may_run(self, message_id: str) -> bool:
        """See `Target`."""
        return True

    def cancel(self, message_id: str) -> None:
        """See `Target`. Never called, as `check_overlap` refuses it."""

    def describe(self) -> str:
        """See `Target`."""
        return f"event {spec_of(self.event).name}"

    def url(self) -> str:
        """See `Target`."""
        return self.bus.url


@dataclass(frozen=True)
class FunctionTarget:
    """A function under `@bus.schedule`: an event that goes straight to that function's queue."""

    bus: SendingBus
    listener: str
    api: type[Api]  #: see `lightbus.scheduled.api_of`

    def parcels(self, firing: Firing) -> Sequence[Parcel]:
        """See `Target`."""
        event = self.api.api_events["due"](slot=firing.slot.isoformat())
        spec = spec_of(event)
        key = event_route(spec.name, spec.major).routing_key
        topology = listener_topology(self.bus.name, self.listener, (key,))
        self.bus.transport.declare(topology)
        return [_event_parcel(self.bus.name, event, firing.message_id, topology.queues[0].route)]

    def check_overlap(self, rule: Overlap) -> None:
        """See `Target`."""
        if rule == "cancel":
            raise ScheduleError("overlap", rule, "allow, skip, queue-one: a running function cannot be ended from here")

    def may_run(self, message_id: str) -> bool:
        """See `Target`: until its worker has told."""
        return True

    def cancel(self, message_id: str) -> None:
        """See `Target`. Never called, as `check_overlap` refuses it."""

    def describe(self) -> str:
        """See `Target`."""
        return f"function {self.bus.name}.{self.listener}"

    def url(self) -> str:
        """See `Target`."""
        return self.bus.url


def _event_parcel(app: str, event: Event, message_id: str, route: Route) -> Parcel:
    spec = spec_of(event)
    origin = Origin(id=message_id, source=app, sent_at=time.time(), correlation_id=message_id)
    message = EventMessage(origin=origin, name=spec.name, version=spec.version, payload=encode_payload(event))
    return Parcel(encode_event(message), route)
