"""Trace context over the seam: OpenTelemetry's own Celery instrumentation on one side, Lightbus's on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from queue import Queue

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lightbus import current_delivery
from lightbus.compat import Settings, TaskApp
from lightbus.compat.endpoint import TaskEndpoint
from lightbus.contrib.otel import instrument
from lightbus.drivers import open_result_backend, open_transport
from tests.processes import wait_for
from tests.runtime.workers import working


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = CeleryInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield provider
    instrumentor.uninstrument()


def test_a_trace_goes_from_celery_through_lightbus_and_back_to_celery(
    redis_url: str, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    celery_app = Celery("traced", broker=redis_url, backend=redis_url, set_as_current=False)

    @celery_app.task(name="celery.side.end", shared=False)
    def end() -> str:
        return "end"

    transport = open_transport(redis_url)
    backend = open_result_backend(redis_url)
    app = TaskApp(Settings(celery_serves_others=True), transport=transport, result_backend=backend)
    instrument(app, tracer_provider=provider)

    @app.task(name="lightbus.side.middle")
    def middle() -> str:
        app.send_task("celery.side.end", ignore_result=True)
        return "middle"

    app.bus.add_endpoint(TaskEndpoint(app))
    names = [
        "apply_async/lightbus.side.middle", "process lightbus.side.middle", "run/lightbus.side.middle",
        "send celery.side.end", "run/celery.side.end",
    ]  # fmt: skip

    def by_name() -> dict[str, ReadableSpan]:
        return {span.name: span for span in exporter.get_finished_spans()}

    with start_worker(celery_app, pool="solo", perform_ping_check=False), working(app.bus):
        celery_app.send_task("lightbus.side.middle", queue="lightbus.celery", ignore_result=True)
        wait_for(lambda: set(names) <= set(by_name()), 20, f"spans {names}")
    celery_app.close()
    app.close()
    transport.close()

    # Both instrumentations hear of the moved task here: a span of Lightbus's own, and one that Celery's makes.
    sent, handled, run, passed_on, ran = (by_name()[name] for name in names)
    (link,) = handled.links
    assert link.context.span_id == sent.get_span_context().span_id
    for child, parent in ((run, sent), (passed_on, run), (ran, passed_on)):
        assert child.parent is not None
        assert child.parent.span_id == parent.get_span_context().span_id, (child.name, parent.name)


def test_opentelemetrys_celery_instrumentation_alone_sees_the_tasks_of_lightbus(
    redis_url: str, provider: TracerProvider, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    transport = open_transport(redis_url)
    app = TaskApp(Settings(), transport=transport, result_backend=open_result_backend(redis_url))

    @app.task(name="first")
    def first() -> None:
        second.delay()

    @app.task(name="second")
    async def second() -> None:
        await asyncio.sleep(0)
        third.delay()

    @app.task(name="third")
    def third() -> None:
        raise ValueError("no")

    names = [f"{what}/{name}" for name in ("first", "second", "third") for what in ("apply_async", "run")]
    app.bus.add_endpoint(TaskEndpoint(app))
    with working(app.bus):
        first.delay()
        wait_for(lambda: {span.name for span in exporter.get_finished_spans()} >= set(names), 20, f"spans {names}")
    app.close()
    transport.close()

    spans = {span.name: span for span in exporter.get_finished_spans()}
    for parent, child in pairwise(names):
        below = spans[child].parent
        assert below is not None
        assert below.span_id == spans[parent].get_span_context().span_id, (parent, child)
    assert [name for name in names if not spans[name].status.is_ok] == ["run/third"]
    assert "detach" not in caplog.text  # each span ends in the context in which it began, a coroutine's too


def test_a_task_sent_by_a_task_keeps_the_trace_without_opentelemetry(redis_url: str) -> None:
    transport = open_transport(redis_url)
    app = TaskApp(Settings(), transport=transport, result_backend=open_result_backend(redis_url))
    theirs = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"

    @app.task(name="outer", ignore_result=True)
    def outer() -> None:
        app.send_task("inner", ignore_result=True)

    seen = Queue[str]()

    @app.task(name="inner", ignore_result=True)
    def inner() -> None:
        delivery = current_delivery()
        seen.put("" if delivery is None else delivery.trace.get("traceparent", ""))

    app.bus.add_endpoint(TaskEndpoint(app))
    with working(app.bus):
        outer.apply_async(headers={"traceparent": theirs})
        assert seen.get(timeout=10) == theirs
    app.close()
    transport.close()
