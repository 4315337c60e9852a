"""OpenTelemetry with its real SDK: which spans there are, how they are joined, and the context on the wire."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from queue import Queue

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from lightbus import Api, Bus, CallError, Event, RetryPolicy, current_delivery, rpc
from lightbus.contrib.otel import instrument
from lightbus.core.codec import encode_event
from lightbus.core.message import EventMessage, Origin
from lightbus.core.topology import event_route
from lightbus.drivers.memory import MemoryTransport
from lightbus.drivers.memory_broker import MemoryBroker
from tests.processes import wait_for
from tests.runtime.workers import working


class Doors(Api, name="tests.doors", version="1.0"):
    class opened(Event):
        id: int

    class shut(Event):
        id: int

    @rpc(timeout_seconds=5.0)
    def knock(self, *, id: int) -> str:
        raise NotImplementedError


class OurDoors(Doors):
    @rpc()
    def knock(self, *, id: int) -> str:
        if id == 13:
            raise ValueError("nobody")
        return "who?"


class Spans:
    """What was exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def wait(self, *names: str) -> list[ReadableSpan]:
        """The spans of those names, once all have ended."""

        def found() -> list[ReadableSpan]:
            by_name = {span.name: span for span in self._exporter.get_finished_spans()}
            return [by_name[name] for name in names if name in by_name]

        wait_for(lambda: len(found()) == len(names), 10, f"spans {names}")
        return found()


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def bus(spans: Spans) -> Iterator[Bus]:
    bus = Bus("doors", transport=MemoryTransport(MemoryBroker()))
    instrument(bus, tracer_provider=spans.provider)
    yield bus
    bus.close()


def id_of(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def test_a_handled_event_links_to_its_sender_and_begins_a_trace_of_its_own(bus: Bus, spans: Spans) -> None:
    seen = Queue[str]()

    @bus.on(Doors.opened)
    def heard(event: Doors.opened) -> None:
        delivery = current_delivery()
        assert delivery is not None
        seen.put(delivery.trace["traceparent"])
        bus.fire(Doors.shut(id=event.id))

    with working(bus):
        bus.fire(Doors.opened(id=1))
        sent, handled, then = spans.wait(
            "send tests.doors.opened", "process tests.doors.opened", "send tests.doors.shut"
        )

    trace_id, span_id = id_of(sent)
    assert seen.get().startswith(f"00-{format_trace_id(trace_id)}-{format_span_id(span_id)}-")  # then come flags
    assert [(link.context.trace_id, link.context.span_id) for link in handled.links] == [(trace_id, span_id)]
    assert handled.parent is None
    assert id_of(handled)[0] != trace_id
    assert then.parent is not None
    assert (then.parent.trace_id, then.parent.span_id) == id_of(handled)
    assert (sent.kind, handled.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert handled.attributes is not None
    assert handled.attributes["messaging.destination.name"] == "doors.on.heard"
    assert handled.attributes["messaging.message.id"] == (sent.attributes or {})["messaging.message.id"]


def test_a_served_call_is_a_child_of_the_callers_span_which_ends_with_the_answer(bus: Bus, spans: Spans) -> None:
    bus.serve(OurDoors())
    with working(bus):
        bus.client(Doors).knock(id=1)
        called, served = spans.wait("call tests.doors.knock", "process tests.doors.knock")

    assert (called.kind, served.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert served.parent is not None
    assert (served.parent.trace_id, served.parent.span_id) == id_of(called)
    assert called.end_time is not None
    assert served.end_time is not None
    assert called.end_time >= served.end_time


def test_failures_are_on_both_spans(bus: Bus, spans: Spans) -> None:
    bus.serve(OurDoors())
    with working(bus):
        with pytest.raises(CallError):
            bus.client(Doors).knock(id=13)
        called, served = spans.wait("call tests.doors.knock", "process tests.doors.knock")

    assert called.status.status_code is served.status.status_code is StatusCode.ERROR
    assert (called.attributes or {})["error.type"] == "RemoteError"
    assert (served.attributes or {})["error.type"] == "ValueError"
    assert served.events[0].name == "exception"


def test_coroutines_that_run_at_once_keep_their_spans_apart(bus: Bus, spans: Spans) -> None:
    both = threading.Barrier(2)
    inside = Queue[tuple[int, int]]()

    @bus.on(Doors.opened, retry=RetryPolicy(max_retries=0))
    async def heard(event: Doors.opened) -> None:
        await asyncio.to_thread(both.wait, 10)
        delivery = current_delivery()
        assert delivery is not None
        inside.put((event.id, trace.get_current_span().get_span_context().span_id))

    with working(bus):
        bus.fire(Doors.opened(id=1))
        bus.fire(Doors.opened(id=2))
        pairs = dict(inside.get(timeout=15) for _ in range(2))

    assert len(set(pairs.values())) == 2


def test_without_a_tracer_provider_the_context_of_others_goes_on_unchanged() -> None:
    bus = Bus("doors", transport=MemoryTransport(MemoryBroker()))
    instrument(bus)  # the program set up no provider
    seen = Queue[dict[str, str]]()
    theirs = {"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01", "tracestate": "them=1"}
    bus.on(Doors.opened, name="first")(lambda event: bus.fire(Doors.shut(id=event.id)))

    @bus.on(Doors.shut, name="second")
    def heard(event: Doors.shut) -> None:
        delivery = current_delivery()
        assert delivery is not None
        seen.put(dict(delivery.trace))

    origin = Origin(id="1", source="elsewhere", sent_at=0.0, trace=theirs)
    message = EventMessage(origin=origin, name="tests.doors.opened", version="1.0", payload=b'{"id": 1}')
    with working(bus):
        bus.transport.publish(encode_event(message), event_route("tests.doors.opened", 1)).result()
        assert seen.get(timeout=10) == theirs
    bus.close()
