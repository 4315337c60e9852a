"""Runs the handler of one delivery here and now, through all that a worker does to it but its slots."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..core.errors import MessageError
from ..core.outcome import DeadLetter, Outcome
from ..endpoint import Endpoint, Invocation, set_current
from ..middleware import Middleware, entered
from ..ports import Delivery
from ..worker.settle import Settler


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """What became of a delivery.

    Attributes:
        kind: of the message: `event`, `call` or `task`.
        invocation: the handler call; None when there was nothing to call.
        outcome: how the delivery was settled.
        result: what the handler returned.
        error: what it raised.
    """

    kind: str
    delivery: Delivery
    invocation: Invocation | None
    outcome: Outcome
    result: object = None
    error: BaseException | None = None


def handle(endpoint: Endpoint, delivery: Delivery, settler: Settler, middleware: Sequence[Middleware]) -> Handled:
    """Handle one delivery, and settle it."""
    try:
        prepared = endpoint.prepare(delivery)
    except MessageError as error:
        prepared = DeadLetter(error.reason, str(error))
    if not isinstance(prepared, Invocation):
        settler.settle(delivery, prepared)
        return Handled(kind=endpoint.kind, delivery=delivery, invocation=None, outcome=prepared)
    if prepared.ack_early:
        delivery.ack()
    result, failure = None, None
    context = contextvars.copy_context()
    try:
        result = context.run(_call, prepared, middleware)
    except Exception as error:  # noqa: BLE001 - user code; the endpoint decides
        failure = error
    outcome = endpoint.succeed(prepared, result) if failure is None else endpoint.fail(prepared, failure)
    settler.settle(delivery, outcome)
    if prepared.on_end is not None:
        context.run(prepared.on_end)
    return Handled(
        kind=endpoint.kind, delivery=delivery, invocation=prepared, outcome=outcome, result=result, error=failure
    )  # fmt: skip


def _call(invocation: Invocation, middleware: Sequence[Middleware]) -> object:
    set_current(invocation)
    with entered(middleware, invocation):
        result = invocation.function(*invocation.args, **invocation.kwargs)
        return _awaited(result) if inspect.iscoroutine(result) else result


def _awaited(coroutine: Coroutine[Any, Any, object]) -> object:
    """The coroutine's result. On a thread of its own where this one runs a loop already: a test may be a coroutine."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    done: Future[object] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            done.set_result(context.run(asyncio.run, coroutine))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            done.set_exception(error)

    thread = threading.Thread(target=run, name="lightbus-testing")
    thread.start()
    thread.join()
    return done.result()
