"""What a test of apps plays on: one broker, the apps connected to it, and a clock that the test moves."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import msgspec

from ..bus import Bus
from ..core.api import Event, Rpc
from ..core.codec import decode_call, encode_event, encode_reply, kind_of
from ..core.errors import RemoteError
from ..core.matching import key_matches
from ..core.message import EventMessage, Origin, Route, Wire
from ..core.outcome import Ack, Forward
from ..core.schema import encode_event as encode_payload
from ..core.topology import Queue, Topology, event_route, rpc_queue
from ..endpoint import Endpoint
from ..listeners import spec_of
from ..middleware import Middleware
from ..ports import Delivery, Settlement, Transport
from ..worker.settle import Settler
from .assertions import Sent, sent_of
from .references import HasReference, TaskReference
from .running import Handled, handle
from .stub import Stub
from .wiretap import Clock, Faults, Wiretap

ROUNDING_SECONDS = 0.001  #: what is delayed by 60 s comes when 60 s have passed, though a moment on the wire is rounded
MAX_DELIVERIES = 10_000  #: of one `settle`; more is a message that goes round
_STEERED = ("retry", "ignored")  #: verdicts of a task that raised in order to say what shall become of it


class AppUnderTest(Protocol):
    """What can be put under test: a `Bus` is one."""

    @property
    def name(self) -> str: ...

    @property
    def dead_letter_queue(self) -> str: ...

    @property
    def middleware(self) -> Sequence[Middleware]: ...

    def endpoints(self) -> Sequence[Endpoint]: ...

    def on_transport(self, transport: Transport) -> AbstractContextManager[None]: ...


@runtime_checkable
class FollowsClock(Protocol):
    """An app for which it matters what time it is in the test."""

    def follow(self, now: Callable[[], float]) -> None:
        """Take the time from `now`, in Unix seconds."""


@dataclass(frozen=True, slots=True)
class Modifiers:
    """What stands before a verb; see `Harness`."""

    times: int | None = None
    partial: bool = False
    delay_seconds: float | None = None
    app: str = "test"
    id: str = ""
    correlation_id: str = ""
    attempt: int = 1
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class _Place:
    """A queue of an app under test, and who answers it."""

    app: AppUnderTest
    endpoint: Endpoint
    queue: str


class _Watcher:
    """Notes what one app sends, answers what is stubbed, and lets calls be served while their caller waits."""

    def __init__(self, stage: Stage, app: str) -> None:
        self._stage = stage
        self._app = app

    def before(self, wire: Wire, route: Route, delay_seconds: float) -> bool:
        if kind_of(wire) not in ("result", "error"):
            self._stage.sent.append(sent_of(wire, route, delay_seconds, self._app))
        return kind_of(wire) == "call" and self._stage.answer_by_stub(wire)

    def after(self, wire: Wire, route: Route) -> None:
        if kind_of(wire) == "call":
            self._stage.serve(route.routing_key)


class _Caller:
    """Watches the calls that a test simulates: they are not what an app has sent, and they reach the real owner."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def before(self, wire: Wire, route: Route, delay_seconds: float) -> bool:
        return False

    def after(self, wire: Wire, route: Route) -> None:
        self._stage.serve(route.routing_key)


class Stage:
    """See the head of this module.

    Args:
        broker: where the messages wait; it is closed with the stage.
        raises: raise what handlers raised; otherwise it is only in `handled`.
    """

    def __init__(self, apps: Sequence[AppUnderTest], broker: Transport, *, raises: bool) -> None:
        self.sent: list[Sent] = []
        self.handled: list[Handled] = []
        self.stubs: dict[str, Stub] = {}
        self.clock = Clock()
        self.faults = Faults()
        self._apps = tuple(apps)
        self._raises = raises
        self._broker = broker
        self._declared: set[str] = set()
        self._copies = Wiretap(self._broker, self.clock)
        self._taps = [Wiretap(self._broker, self.clock, _Watcher(self, app.name), self.faults) for app in self._apps]
        self._settlers = [Settler(self._copies, app.dead_letter_queue) for app in self._apps]
        self._stack = ExitStack()

    def open(self) -> None:
        """Connect the apps to the broker of the test."""
        for app, tap in zip(self._apps, self._taps, strict=True):
            self._stack.enter_context(app.on_transport(tap))
            if isinstance(app, FollowsClock):
                app.follow(self.now)
        self._places()

    def close(self) -> None:
        self._stack.close()
        if self._broker.capabilities.persistent:
            for queue in self._declared:
                self._broker.delete(queue)
        self._broker.close()

    # -- incoming ----------------------------------------------------------------------------------------------------

    def simulate(self, named: Any, args: Sequence[Any], kwargs: Mapping[str, Any], said: Modifiers) -> Any:
        """See `Verbs.simulate`."""
        if isinstance(named, type) and issubclass(named, Event):
            return self._simulate_event(named(*args, **kwargs), said)
        if isinstance(named, Rpc):
            return self._simulate_call(named, args, kwargs, said)
        if isinstance(named, HasReference):
            return self._simulate_task(named.testing_reference(), args, kwargs, said)
        raise TypeError(f"simulate() takes an event class, a call of an Api or a task, got {named!r:.100}")

    def _simulate_event(self, event: Event, said: Modifiers) -> None:
        spec = spec_of(event)
        message_id = said.id or uuid.uuid4().hex
        origin = Origin(
            id=message_id, source=said.app, sent_at=self.now(), correlation_id=said.correlation_id or message_id
        )  # fmt: skip
        message = EventMessage(
            origin=origin, name=spec.name, version=spec.version, payload=encode_payload(event), attempt=said.attempt
        )  # fmt: skip
        wire, route = encode_event(message), event_route(spec.name, spec.major)
        places = [place for place in self._places() if _is_bound(place, route)]
        if not places:
            listening = sorted(place.queue for place in self._places() if place.endpoint.kind == "event")
            raise AssertionError(f"nobody under test listens to {spec.name}; there is {', '.join(listening) or 'none'}")
        done = [self._handle(place, self._incoming(wire, place.queue, said)) for place in places]
        self._raise_first([*done, *(moved for one in done if (moved := self._follow(one)) is not None)])

    def _follow(self, one: Handled) -> Handled | None:
        """Handle what was only sorted into another queue of its listener."""
        if not isinstance(one.outcome, Forward) or one.invocation is not None or one.outcome.route.exchange:
            return None
        queue = one.outcome.route.routing_key
        place = next((place for place in self._places() if place.queue == queue), None)
        delivery = None if place is None else self._broker.get(queue)
        return None if place is None or delivery is None else self._handle(place, delivery)

    def _simulate_call(
        self, rpc: Rpc[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any], said: Modifiers
    ) -> object:
        assert rpc.api is not None, f"{rpc!r} belongs to no Api: define it inside an Api class"
        queue = rpc_queue(rpc.api.api_name, rpc.api.major()).name
        if not any(place.queue == queue for place in self._places()):
            raise AssertionError(f"nobody under test serves {rpc.full_name}: put the owner's bus under test")
        caller = Bus(said.app, transport=Wiretap(self._broker, self.clock, _Caller(self)))
        before = len(self.handled)
        try:
            return caller.call(rpc, *args, **kwargs)
        except RemoteError:
            errors = [
                one.error for one in self.handled[before:] if one.invocation and one.invocation.name == rpc.full_name
            ]
            if self._raises and errors and errors[-1] is not None:
                raise errors[-1] from None  # with the traceback of the handler
            raise
        finally:
            caller.close()

    def _simulate_task(
        self, reference: TaskReference, args: Sequence[Any], kwargs: Mapping[str, Any], said: Modifiers
    ) -> object:
        wire, queue = reference.incoming(args, kwargs, said.id)
        places = [place for place in self._places() if place.queue == queue]
        if not places:
            raise AssertionError(f"nobody under test serves the queue {queue!r} of {reference.name}")
        done = self._handle(places[0], self._incoming(wire, queue, said))
        self._raise_first([done])
        return done.result

    def _incoming(self, wire: Wire, queue: str, said: Modifiers) -> Delivery:
        def settle(settlement: Settlement) -> None:
            if settlement is not Settlement.ACK:
                self._broker.publish(wire, Route("", queue)).result()

        return Delivery(msgspec.structs.replace(wire, headers=dict(wire.headers)), queue, said.redelivered, settle)

    # -- what waits --------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Handle what waits in the apps' queues, and what that sends, until nothing waits.

        Raises:
            AssertionError: there is no end to it.
            Exception: the first that a handler raised.
        """
        done: list[Handled] = []
        while found := self._next():
            done.append(self._handle(*found))
            if len(done) > MAX_DELIVERIES:
                last = done[-1].invocation.name if done[-1].invocation else "a message"
                raise AssertionError(f"{MAX_DELIVERIES} messages were handled, and there are more; the last: {last}")
        self._raise_first(done)

    def advance(self, seconds: float | None) -> None:
        """Let time pass, and handle what becomes due on the way; None: until the next delayed message.

        Raises:
            AssertionError: nothing is delayed.
        """
        if seconds is None:
            due = self._next_due_seconds()
            if due is None:
                raise AssertionError("nothing is delayed: no retry, no countdown")
            seconds = due - self.clock.passed_seconds
        end = self.clock.passed_seconds + seconds + ROUNDING_SECONDS
        while (due := self._next_due_seconds()) is not None and due <= end:
            self.clock.passed_seconds = max(due, self.clock.passed_seconds)
            for tap in (*self._taps, self._copies):
                tap.release_due()
            self.settle()
        self.clock.passed_seconds = end

    def redeliver(self) -> None:
        """Hand the message that was handled last out once more, flagged."""
        if not self.handled:
            raise AssertionError("nothing was handled yet")
        last = self.handled[-1].delivery
        place = next(place for place in self._places() if place.queue == last.queue)
        self._raise_first([self._handle(place, self._incoming(last.wire, last.queue, Modifiers(redelivered=True)))])

    def now(self) -> float:
        """Unix seconds, on the clock of the test."""
        return time.time() + self.clock.passed_seconds

    # -- calls -------------------------------------------------------------------------------------------------------

    def serve(self, queue: str) -> None:
        """Handle the call that has just arrived; its caller gets what becomes of it."""
        for place in self._places():
            if place.queue == queue and (delivery := self._broker.get(queue)) is not None:
                self._handle(place, delivery)

    def answer_by_stub(self, wire: Wire) -> bool:
        """Answer a call that is stubbed."""
        call = decode_call(wire)
        stub = self.stubs.get(call.name)
        if stub is None:
            return False
        reply = stub.reply_to(call)
        self._broker.publish(encode_reply(reply), Route("", call.reply_to))
        return True

    # -- inside ------------------------------------------------------------------------------------------------------

    def _places(self) -> list[_Place]:
        """All queues of the apps, which stand from now on: an app may have got listeners since."""
        places: list[_Place] = []
        for app, settler in zip(self._apps, self._settlers, strict=True):
            self._declare(settler.topology())
            for endpoint in app.endpoints():
                self._declare(endpoint.topology())
                places += [_Place(app, endpoint, queue) for queue in endpoint.queues()]
        return places

    def _declare(self, topology: Topology) -> None:
        names = {queue.name for queue in topology.queues}
        if names <= self._declared:
            return
        for name in sorted(names - self._declared):
            if self._broker.message_count(name) is not None:
                raise AssertionError(
                    f"the broker has a queue {name!r} already, and a test would handle what is in it and delete it: "
                    "take a virtual host or a database for tests alone, or delete what an interrupted test left"
                )
        # The queue of one process would be its consumer's alone on a real broker; here nobody consumes.
        shared = [_as_shared(queue) if queue.exclusive else queue for queue in topology.queues]
        self._broker.declare(replace(topology, queues=tuple(shared)))
        self._declared |= names

    def _next(self) -> tuple[_Place, Delivery] | None:
        for place in self._places():
            if (delivery := self._broker.get(place.queue)) is not None:
                return place, delivery
        return None

    def _next_due_seconds(self) -> float | None:
        due = [at for tap in (*self._taps, self._copies) if (at := tap.next_due_seconds()) is not None]
        return min(due, default=None)

    def _handle(self, place: _Place, delivery: Delivery) -> Handled:
        settler = self._settlers[self._apps.index(place.app)]
        done = handle(place.endpoint, delivery, settler, place.app.middleware)
        self.handled.append(done)
        return done

    def _raise_first(self, done: Sequence[Handled]) -> None:
        if not self._raises:
            return
        for one in done:
            steered = isinstance(one.outcome, Ack) and one.outcome.verdict in _STEERED
            if one.error is not None and one.kind != "call" and not steered:
                raise one.error


def _as_shared(queue: Queue) -> Queue:
    return replace(queue, exclusive=False, auto_delete=False, durable=True, expires_seconds=None)


def _is_bound(place: _Place, route: Route) -> bool:
    topology = place.endpoint.topology()
    kinds = {exchange.name: exchange.kind for exchange in topology.exchanges}
    return any(
        binding.queue == place.queue
        and binding.exchange == route.exchange
        and key_matches(kinds[binding.exchange], binding.routing_key, route.routing_key)
        for binding in topology.bindings
    )
