"""The coroutine handlers of a process: on one event loop, on a thread of its own, so many at a time and no more.

What is over that number waits here, not begun, and can be handed back. The loop never waits for a broker or a result
store: what may block goes to a few threads. asyncio is loaded with the first coroutine.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
R = TypeVar("R")

BLOCKING_THREADS = 4


class Coroutines(Generic[T]):
    """Performs items of work, each as a task with a context of its own.

    Args:
        perform: the coroutine function for one item; must not raise.
        most: items at a time.
    """

    def __init__(self, perform: Callable[[T], Coroutine[Any, Any, None]], most: int) -> None:
        self._perform = perform
        self._most = most
        self._waiting: deque[T] = deque()
        self._running: dict[asyncio.Task[None], T] = {}  # only the loop's thread changes it
        self._begun = 0
        self._last_start = 0.0
        self._told = False  # the loop is about to look at what waits
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool = ThreadPoolExecutor(BLOCKING_THREADS, thread_name_prefix="lightbus-blocking")
        self._idle = threading.Condition()

    @property
    def waiting(self) -> int:
        """Items that have not begun."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def begun(self) -> int:
        """Items that have begun since the process did."""
        return self._begun

    @property
    def last_start(self) -> float:
        """When the last item began, on the monotonic clock."""
        return self._last_start

    def put(self, item: T) -> None:
        """Perform `item` when there is room. Any thread, does not wait."""
        self._waiting.append(item)
        if self._loop is None:
            self._start_loop()
        if not self._told:  # one wake-up of the loop serves all that come before it looks
            self._told = True
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._begin_waiting)

    def take_waiting(self) -> list[T]:
        """Take back what has not begun. Any thread."""
        items = []
        while self._waiting:
            try:
                items.append(self._waiting.popleft())
            except IndexError:  # the loop was quicker
                break
        return items

    def items_waiting(self) -> list[T]:
        """What has not begun, for a look."""
        return list(self._waiting)

    def cancel(self, chosen: Callable[[T], bool]) -> None:
        """Cancel the running items that are chosen. Any thread, does not wait."""
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._cancel, chosen)

    def _cancel(self, chosen: Callable[[T], bool]) -> None:
        for task, item in list(self._running.items()):
            if chosen(item):
                task.cancel()

    async def in_thread(self, function: Callable[..., R], *arguments: Any) -> R:
        """What `function` returns, called on a thread with the coroutine's context."""
        assert self._loop is not None
        return await self._loop.run_in_executor(self._pool, copy_context().run, function, *arguments)

    def close(self) -> None:
        """Wait for what has begun, and end the loop."""
        with self._idle:
            self._idle.wait_for(lambda: not self._running and not self._told)
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
        self._pool.shutdown()

    def _start_loop(self) -> None:
        import asyncio

        with self._idle:  # several slots may come at once
            if self._loop is None:
                loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, name="lightbus-loop", daemon=True).start()
                self._loop = loop

    def _begin_waiting(self) -> None:
        """On the loop."""
        self._told = False  # before the look: what is put from now on wakes again
        loop = self._loop
        while loop is not None and self._waiting and len(self._running) < self._most:
            try:
                item = self._waiting.popleft()
            except IndexError:  # taken back meanwhile
                break
            self._last_start = time.monotonic()
            self._begun += 1
            # From an empty context: nothing of the message before it, nor of the thread that handed it over.
            task = Context().run(loop.create_task, self._perform(item))
            self._running[task] = item
            task.add_done_callback(self._ended)
        if not self._running:
            with self._idle:
                self._idle.notify_all()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._begin_waiting()
