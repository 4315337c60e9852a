"""RPC, the calling half: one reply queue per process, and futures that answers or deadlines finish."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Awaitable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import msgspec

from .aio import awaitable
from .core.api import Rpc
from .core.codec import decode_reply, encode_call
from .core.errors import (
    CallError,
    CallTimeout,
    DeclarationError,
    DecodeError,
    Expired,
    NotServed,
    Rejected,
    RemoteError,
    Unroutable,
)
from .core.message import CallMessage, ReplyMessage
from .core.pending import Pending
from .core.schema import CallSchema, decode_problem, rebuild_declared
from .core.topology import Topology, reply_queue, rpc_queue
from .endpoint import current_delivery
from .forks import renewed_after_fork
from .identity import new_origin
from .ports import Consumer, Delivery, Transport
from .publishing import Publication, PublishHooks

logger = logging.getLogger("lightbus.rpc")

REPLY_PREFETCH = 1000


@dataclass(slots=True)
class _Waiting:
    schema: CallSchema
    future: Future[Any]
    timeout_seconds: float


class RpcClient:
    """Sends calls and finishes their futures. Thread-safe; subscribes to its reply queue at the first call."""

    def __init__(self, app: str, transport: Transport, publish_hooks: PublishHooks) -> None:
        self._app = app
        self._publish_hooks = publish_hooks
        self._transport = transport
        self._schemas: dict[Rpc[Any, Any], CallSchema] = {}
        self._parents: list[Consumer | None] = []
        self._reset()
        renewed_after_fork(self)

    def renew_after_fork(self) -> None:
        """See `Renewable`: the subscription is the parent's, and so are the calls under way."""
        self._parents.append(self._consumer)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._pending: Pending[_Waiting] = Pending()
        self._consumer: Consumer | None = None
        self._closing = False
        self._next_look = float("inf")  # when the thread that keeps deadlines wakes by itself, on the monotonic clock
        host = "".join(c if c.isalnum() else "-" for c in os.uname().nodename)[:40]
        self._queue = reply_queue(self._app, f"{host}.{os.getpid()}.{uuid.uuid4().hex[:8]}")

    def start(
        self, rpc: Rpc[Any, Any], arguments: dict[str, object], timeout_seconds: float | None = None
    ) -> Future[Any]:
        """Send a call; see `core.api.Caller.start`. The deadline of the message being handled here bounds it.

        Raises:
            BadArguments: the arguments do not fit; nothing was sent.
            TransportError: the reply queue could not be opened.
        """
        schema = self._schema(rpc)
        payload = schema.encode_arguments(arguments)
        if self._consumer is None:
            self._subscribe()
        now = time.time()
        timeout_seconds = rpc.timeout_seconds if timeout_seconds is None else timeout_seconds
        outer = current_delivery()
        if outer is not None and outer.deadline is not None:
            timeout_seconds = min(timeout_seconds, outer.deadline - now)
        waiting = _Waiting(schema, Future(), timeout_seconds)
        if timeout_seconds <= 0:
            waiting.future.set_exception(
                CallTimeout(f"{rpc.full_name}: the deadline has passed before the call was sent", may_have_run=False)
            )
            return waiting.future
        api = _api_of(rpc)
        origin, route = new_origin(self._app), rpc_queue(api.api_name, api.major()).route
        if self._publish_hooks:
            publication = Publication(
                kind="call", name=rpc.full_name, id=origin.id, exchange=route.exchange, routing_key=route.routing_key,
                trace=dict(origin.trace),
            )  # fmt: skip
            waiting.future.add_done_callback(self._publish_hooks.begin(publication))
            origin = msgspec.structs.replace(origin, trace=publication.trace)
        call = CallMessage(
            origin=origin, name=rpc.full_name, version=api.api_version, payload=payload,
            reply_to=self._queue.name, deadline=now + timeout_seconds,
        )  # fmt: skip
        with self._wake:
            expires = time.monotonic() + timeout_seconds
            self._pending.add(call.origin.id, waiting, expires)
            if expires < self._next_look:
                self._wake.notify()
        sent = self._transport.publish(encode_call(call, now=now), route, mandatory=True)
        sent.add_done_callback(lambda done: self._on_sent(call.origin.id, done))
        return waiting.future

    def start_async(
        self, rpc: Rpc[Any, Any], arguments: dict[str, object], timeout_seconds: float | None = None
    ) -> Awaitable[Any]:
        """See `core.api.Caller.start_async`."""
        return awaitable(self.start(rpc, arguments, timeout_seconds))

    def connect_to(self, transport: Transport) -> None:
        """Send by another transport from now on; calls under way end as in `close`."""
        self.close()
        self._transport = transport

    def close(self) -> None:
        """Stop waiting: calls under way end with CallTimeout."""
        with self._wake:
            self._closing = True
            consumer, self._consumer = self._consumer, None
            left = self._pending.expire(float("inf"))
            self._wake.notify()
        for waiting in left:
            waiting.future.set_exception(CallTimeout(f"{waiting.schema.rpc.full_name}: the bus was closed meanwhile"))
        if consumer is not None:
            consumer.close()

    def _schema(self, rpc: Rpc[Any, Any]) -> CallSchema:
        schema = self._schemas.get(rpc)
        if schema is None:
            _api_of(rpc)
            schema = self._schemas[rpc] = CallSchema(rpc)
        return schema

    def _subscribe(self) -> None:
        with self._lock:
            if self._consumer is not None:
                return
            self._transport.declare(Topology(queues=(self._queue,)))
            self._consumer = self._transport.consume(
                [self._queue], self._on_delivery, prefetch=REPLY_PREFETCH, no_ack=True
            )  # fmt: skip
            self._closing = False
            threading.Thread(target=self._expire, name="lightbus-deadlines", daemon=True).start()

    def _on_sent(self, call_id: str, sent: Future[None]) -> None:
        error = sent.exception()
        if error is None:
            return
        waiting = self._take(call_id)
        if waiting is None:
            return
        name = waiting.schema.rpc.full_name
        if isinstance(error, Unroutable):
            error = NotServed(f"nobody serves {name}: is a worker of its owner running, with the same major version?")
        waiting.future.set_exception(error)

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            reply = decode_reply(delivery.wire)
        except DecodeError as error:
            logger.warning("an answer could not be read: %s", error)
            return
        waiting = self._take(reply.call_id)
        if waiting is None:
            logger.info("an answer came after its deadline id=%s", reply.call_id)
            return
        _finish(waiting, reply)

    def _take(self, call_id: str) -> _Waiting | None:
        with self._lock:
            return self._pending.take(call_id)

    def _expire(self) -> None:
        """The thread that keeps deadlines."""
        while True:
            with self._wake:
                if self._closing:
                    return
                # An answer leaves this as it is: with calls that are answered soon, the thread sleeps nearly always.
                deadline = self._pending.next_deadline()
                self._next_look = float("inf") if deadline is None else deadline
                self._wake.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
                expired = self._pending.expire(time.monotonic())
            for waiting in expired:
                waiting.future.set_exception(
                    CallTimeout(f"{waiting.schema.rpc.full_name}: no answer within {waiting.timeout_seconds:.3g} s")
                )


def _finish(waiting: _Waiting, reply: ReplyMessage) -> None:
    schema, future = waiting.schema, waiting.future
    if reply.failed:
        future.set_exception(_error_of(schema, reply))
        return
    try:
        future.set_result(schema.decode_result(reply.payload))
    except RemoteError as error:
        future.set_exception(error)


def _error_of(schema: CallSchema, reply: ReplyMessage) -> Exception:
    problem = decode_problem(reply.payload)
    kind, _, name = problem.type.partition(":")
    if kind == "api" and name in schema.rpc.errors:
        return rebuild_declared(schema.rpc.errors[name], problem)
    text = f"{schema.rpc.full_name}: {problem.detail or problem.title}"
    if kind in _CALL_ERRORS:
        return _CALL_ERRORS[kind](text)
    return RemoteError(text, error_type=name or problem.title)


_CALL_ERRORS: dict[str, type[CallError]] = {"expired": Expired, "rejected": Rejected}


def _api_of(rpc: Rpc[Any, Any]) -> Any:
    if rpc.api is None:
        raise DeclarationError(f"{rpc!r} belongs to no Api: define it inside an Api class")
    return rpc.api
