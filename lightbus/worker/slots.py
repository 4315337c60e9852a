"""The slots of a process: where handlers run, one at a time each.

With one slot it is the main thread, so that a handler sees signals as in any program. With more they are threads.
Coroutine functions run on one event loop beside them and do not occupy a slot.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, cast

from ..aio import LoopThread, in_thread
from ..core.errors import MessageError
from ..core.outcome import DeadLetter, Outcome
from ..endpoint import Endpoint, Invocation, set_current
from ..middleware import Middleware, entered
from ..ports import Delivery
from .settle import Settler

logger = logging.getLogger("lightbus.worker")


@dataclass(frozen=True, slots=True)
class Work:
    """A delivery with all that is needed to handle it."""

    delivery: Delivery
    endpoint: Endpoint
    settler: Settler


class Slots:
    """Takes work from one inbox until it is stopped."""

    def __init__(self, threads: int, middleware: Sequence[Middleware]) -> None:
        self._inbox: SimpleQueue[Work | None] = SimpleQueue()
        self._middleware = tuple(middleware)
        self._threads = threads
        self._loop = LoopThread()
        self._draining = threading.Event()

    def put(self, work: Work) -> None:
        """Add work; it is handed back when the slots are stopping. Any thread, never blocks."""
        if self._draining.is_set():
            work.delivery.requeue()
        else:
            self._inbox.put(work)

    def run(self) -> None:
        """Handle work until `stop`; returns when what had begun is finished and the rest is handed back."""
        if self._threads == 1:
            self._handle_until_stopped()
        else:
            threads = [
                threading.Thread(target=self._handle_until_stopped, name=f"lightbus-slot-{n}")
                for n in range(self._threads)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self._loop.close()

    def stop(self) -> None:
        """Hand back what has not begun, and let what has begun finish. Any thread, not a signal handler."""
        self._draining.set()
        while not self._inbox.empty():
            work = self._inbox.get()
            if work is not None:
                work.delivery.requeue()
        for _ in range(self._threads):
            self._inbox.put(None)

    def _handle_until_stopped(self) -> None:
        while True:
            work = self._inbox.get()
            if work is None:
                return
            if self._draining.is_set():
                work.delivery.requeue()
                continue
            invocation = self._prepare(work)
            if invocation is None:
                continue
            if inspect.iscoroutinefunction(invocation.function):
                self._loop.start(self._perform_async(work, invocation))
            else:
                self._perform(work, invocation)

    def _perform(self, work: Work, invocation: Invocation) -> None:
        started = time.monotonic()
        result, failure = None, None
        set_current(invocation)
        try:
            if self._middleware:
                with entered(self._middleware, invocation):
                    result = invocation.function(*invocation.args, **invocation.kwargs)
            else:
                result = invocation.function(*invocation.args, **invocation.kwargs)
        except BaseException as error:  # noqa: BLE001  # user code: whatever it raises is the message's outcome
            failure = error
        self._conclude(work, invocation, result, failure, time.monotonic() - started)
        set_current(None)

    async def _perform_async(self, work: Work, invocation: Invocation) -> None:
        started = time.monotonic()
        result, failure = None, None
        set_current(invocation)
        function = cast("Callable[..., Coroutine[Any, Any, object]]", invocation.function)
        try:
            with entered(self._middleware, invocation):
                result = await function(*invocation.args, **invocation.kwargs)
        except BaseException as error:  # noqa: BLE001  # user code, as above
            failure = error
        # In a thread, since it may wait for the broker or a result store, and the loop must not.
        await in_thread(self._conclude, work, invocation, result, failure, time.monotonic() - started)

    def _prepare(self, work: Work) -> Invocation | None:
        delivery = work.delivery
        try:
            prepared = work.endpoint.prepare(delivery)
        except MessageError as error:
            work.settler.settle(delivery, DeadLetter(error.reason, str(error)))
            return None
        except Exception as error:  # the top of this message's way: a defect must not cost the worker
            logger.exception("a defect while a message of queue %s was read; it is parked", delivery.queue)
            work.settler.settle(delivery, DeadLetter("defect", repr(error)))
            return None
        if not isinstance(prepared, Invocation):
            work.settler.settle(delivery, prepared)
            return None
        if prepared.ack_early:
            delivery.ack()
        return prepared

    def _conclude(
        self, work: Work, invocation: Invocation, result: object, failure: BaseException | None, seconds: float
    ) -> None:
        endpoint = work.endpoint
        outcome: Outcome
        try:
            outcome = endpoint.succeed(invocation, result) if failure is None else endpoint.fail(invocation, failure)
        except Exception as error:  # the same top again: a result store that is down, a defect
            logger.exception(
                "the end of a message could not be worked out name=%s id=%s", invocation.name, invocation.id
            )
            # The handler has run: running it again would double its effects, so a person has to look.
            outcome = DeadLetter("defect", repr(error), invocation.attempt)
        logger.info(
            "handled name=%s id=%s attempt=%d seconds=%.3f outcome=%s",
            invocation.name,
            invocation.id,
            invocation.attempt,
            seconds,
            type(outcome).__name__,
        )
        work.settler.settle(work.delivery, outcome)
