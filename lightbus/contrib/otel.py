"""OpenTelemetry spans: one for each message that is sent and one for each that is handled, joined by `traceparent`.

    instrument(bus)                # events and calls
    instrument(default_app())      # the tasks of lightbus.compat

The spans go to the tracer provider that the program has set up; without one, OpenTelemetry drops them. Trace context is
W3C's, in the headers in which OpenTelemetry's Celery instrumentation writes and looks for it.

Names and attributes follow the semantic conventions for messaging and RPC, which are still in development: they stand
here and nowhere else. As these conventions ask, the span of a handled event or task begins a trace of its own and links
to the sender's span, because one message may have many handlers, late; that of a call is a child of the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .. import Invocation, Middleware
from ..ports import Transport
from ..publishing import Publication, PublishHook
from ..version import VERSION

SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
MESSAGE_ID = "messaging.message.id"
CONVERSATION_ID = "messaging.message.conversation_id"
ROUTING_KEY = "messaging.rabbitmq.destination.routing_key"
RPC_SYSTEM = "rpc.system"
RPC_METHOD = "rpc.method"
ERROR_TYPE = "error.type"
ATTEMPT = "lightbus.attempt"
REDELIVERED = "lightbus.redelivered"

_W3C = TraceContextTextMapPropagator()


class Instrumented(Protocol):
    """A `Bus` or a `TaskApp`."""

    @property
    def transport(self) -> Transport: ...

    def use(self, *middleware: Middleware) -> None: ...

    def on_publish(self, *hooks: PublishHook) -> None: ...


def instrument(*targets: Instrumented, tracer_provider: TracerProvider | None = None) -> None:
    """Make spans of what `targets` send and handle from now on. Once per target.

    Args:
        tracer_provider: in place of the program's own.
    """
    for target in targets:
        tracing = _Tracing(target, tracer_provider)
        target.use(tracing.around_handler)
        target.on_publish(tracing.on_publish)


class _Tracing:
    def __init__(self, target: Instrumented, tracer_provider: TracerProvider | None) -> None:
        self._target = target
        self._tracer = trace.get_tracer("lightbus", VERSION, tracer_provider)

    def on_publish(self, publication: Publication) -> Callable[[BaseException | None], None]:
        is_call = publication.kind == "call"
        span = self._tracer.start_span(
            f"{'call' if is_call else 'send'} {publication.name}",
            kind=SpanKind.CLIENT if is_call else SpanKind.PRODUCER,
            attributes={
                SYSTEM: self._system(),
                OPERATION_NAME: "send",
                OPERATION_TYPE: "send",
                DESTINATION: publication.exchange or publication.routing_key,
                ROUTING_KEY: publication.routing_key,
                MESSAGE_ID: publication.id,
                **_rpc(is_call, publication.name),
            },
        )
        if span.get_span_context().is_valid:  # without a tracer provider what came in goes on
            publication.trace.pop("tracestate", None)
            _W3C.inject(publication.trace, trace.set_span_in_context(span))

        def end(error: BaseException | None) -> None:
            if error is not None:
                span.set_attribute(ERROR_TYPE, type(error).__qualname__)
                span.set_status(StatusCode.ERROR, str(error))
            span.end()

        return end

    @contextmanager
    def around_handler(self, invocation: Invocation) -> Iterator[None]:
        is_call = invocation.kind == "call"
        sender = _W3C.extract(_carrier(invocation.trace), Context())
        sent_by = trace.get_current_span(sender).get_span_context()
        with self._tracer.start_as_current_span(
            f"process {invocation.name}",
            context=sender if is_call else Context(),
            kind=SpanKind.SERVER if is_call else SpanKind.CONSUMER,
            links=[Link(sent_by)] if sent_by.is_valid and not is_call else [],
            attributes={
                SYSTEM: self._system(),
                OPERATION_NAME: "process",
                OPERATION_TYPE: "process",
                DESTINATION: invocation.queue,
                MESSAGE_ID: invocation.id,
                CONVERSATION_ID: invocation.correlation_id or invocation.id,
                ATTEMPT: invocation.attempt,
                REDELIVERED: invocation.redelivered,
                **_rpc(is_call, invocation.name),
            },
        ) as span:
            try:
                yield
            except BaseException as error:
                span.set_attribute(ERROR_TYPE, type(error).__qualname__)
                raise  # the span's own block notes the rest

    def _system(self) -> str:
        name = self._target.transport.capabilities.name
        return {"RabbitMQ": "rabbitmq", "Redis": "redis"}.get(name, f"lightbus {name}")


def _rpc(is_call: bool, name: str) -> dict[str, str]:
    return {RPC_SYSTEM: "lightbus", RPC_METHOD: name} if is_call else {}


def _carrier(headers: Mapping[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in headers.items()}
