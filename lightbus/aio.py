"""The seam to asyncio, which is loaded only where a program uses coroutines.

Everything blocking hands out `concurrent.futures.Future`s; a coroutine awaits them through `awaitable`. The coroutine
handlers of a worker are the business of `worker/coroutines.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def awaitable(future: Future[T]) -> Awaitable[T]:
    """What the running loop can await in place of `future.result()`."""
    import asyncio

    return asyncio.wrap_future(future)
