"""The seam to asyncio, which is loaded only where a program uses coroutines.

Everything blocking hands out `concurrent.futures.Future`s; a coroutine awaits them through `awaitable`. Coroutine
handlers of a worker run on one loop on a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


def awaitable(future: Future[T]) -> Awaitable[T]:
    """What the running loop can await in place of `future.result()`."""
    import asyncio

    return asyncio.wrap_future(future)


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """What `function` returns, called on a thread with the coroutine's context."""
    import asyncio

    return await asyncio.to_thread(function, *arguments)


class LoopThread:
    """An event loop that starts with the first coroutine. asyncio is loaded only then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[Future[Any]] = set()
        self._idle = threading.Condition(self._lock)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run `coroutine` on the loop, without waiting for it."""
        import asyncio

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="lightbus-loop", daemon=True).start()
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._running.add(future)
        future.add_done_callback(self._done)

    def close(self) -> None:
        """Wait for the coroutines that run, and end the loop."""
        with self._idle:
            self._idle.wait_for(lambda: not self._running)
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _done(self, future: Future[Any]) -> None:
        with self._idle:
            self._running.discard(future)
            self._idle.notify_all()
