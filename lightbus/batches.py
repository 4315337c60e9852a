"""Listeners that are given several events at a time: one insert of a hundred rows instead of a hundred inserts.

Each event stays a message of its own, with its own acknowledgement, attempts and dead letter. Its coroutine waits until
the batch that it is in was handled. When that fails, the halves of the batch are tried, and their halves, until what
fails stands alone: only that is retried and, in the end, parked.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

from .core.batch import Batch

logger = logging.getLogger("lightbus.events")

Waiting = list[tuple[Any, "asyncio.Future[None]"]]


class Batches:
    """The batches of one listener in this process. Everything but the making happens on the loop of its coroutines.

    Args:
        function: gets a list of events, in the order in which they came here; plain or a coroutine function.

    Attributes:
        at_once: begin without waiting for more; for tests, where time stands still.
    """

    def __init__(self, function: Callable[[list[Any]], Any], batch: Batch) -> None:
        self._function = function
        self._batch = batch
        self._waiting: Waiting = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.at_once = False

    async def take(self, event: Any) -> None:
        """Be in a batch, and end as its handler does with this event.

        Raises:
            Exception: what the handler raised.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # another worker, or a forked child: nothing of the former loop is ours
            self._loop, self._timer, self._waiting = loop, None, []
        done = loop.create_future()
        self._waiting.append((event, done))
        if self.at_once or len(self._waiting) >= self._batch.size:
            self._begin()
        elif self._timer is None:
            self._timer = loop.call_later(self._batch.wait_seconds, self._begin)
        await asyncio.shield(done)  # one that is stopped must not stop the others

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting, self._timer = self._waiting, [], None
        task = asyncio.ensure_future(self._handle(waiting))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _handle(self, waiting: Waiting) -> None:
        try:
            if inspect.iscoroutinefunction(self._function):
                await self._function([event for event, _ in waiting])
            else:
                await asyncio.to_thread(self._function, [event for event, _ in waiting])
        except Exception as error:  # noqa: BLE001  # user code: what it raises is the events' outcome
            if len(waiting) == 1:
                _end(waiting, error)
                return
            logger.warning("a batch of %d events failed, its halves are tried: %r", len(waiting), error)
            middle = len(waiting) // 2
            await self._handle(waiting[:middle])
            await self._handle(waiting[middle:])
        except BaseException as error:
            _end(waiting, error)
            raise
        else:
            _end(waiting, None)


def _end(waiting: Waiting, error: BaseException | None) -> None:
    for _, done in waiting:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
            done.exception()  # whoever waited may have been stopped, and then nobody else looks at it
