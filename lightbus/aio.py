"""The seam to asyncio, which is loaded only where a program uses coroutines.

Everything blocking hands out `concurrent.futures.Future`s; a coroutine awaits them through `awaitable`. The coroutine
handlers of a worker are the business of `worker/coroutines.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def awaitable(future: Future[T]) -> Awaitable[T]:
    """What the running loop can await in place of `future.result()`."""
    import asyncio

    return asyncio.wrap_future(future)


def finished(future: Future[T]) -> Awaitable[None]:
    """What the running loop can await until `future` is done, whether well or not."""
    import asyncio

    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    def wake() -> None:
        if not woken.done():  # cancelled meanwhile
            woken.set_result(None)

    def on_done(done: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(on_done)
    return woken


async def others_turn() -> None:
    """Let the loop's other coroutines go on."""
    import asyncio

    await asyncio.sleep(0)
