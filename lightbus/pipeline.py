"""Many messages under way at a time: the broker confirms in bulk, so nobody waits for each of them.

A window bounds the memory: when it is full the oldest message is waited for. After the first failure nothing more is
begun, and what is under way is waited for, so that whoever asked knows of each message what became of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

from .aio import finished, others_turn
from .core.errors import LightbusError, PartlyPublished

MOST_UNDER_WAY = 1000
#: A coroutine lets others have their turn after that many.
TURN = 100


class _Window:
    def __init__(self) -> None:
        self.begun = 0
        self._under_way: deque[tuple[int, Future[None]]] = deque()
        self._failed: dict[int, LightbusError] = {}

    @property
    def is_full(self) -> bool:
        return len(self._under_way) >= MOST_UNDER_WAY

    @property
    def oldest(self) -> Future[None] | None:
        return self._under_way[0][1] if self._under_way else None

    def begin(self, publishing: Iterator[Future[None]]) -> bool:
        """Publish one more; False when there is none, or something has failed."""
        if self._failed:
            return False
        try:
            published = next(publishing, None)
        except LightbusError as error:  # it has a value that it cannot have, or cannot be written
            self._failed[self.begun] = error
            self.begun += 1
            return False
        if published is None:
            return False
        self._under_way.append((self.begun, published))
        self.begun += 1
        return True

    def settle_oldest(self) -> None:
        """It is done: note how."""
        number, published = self._under_way.popleft()
        try:
            published.result()
        except LightbusError as error:
            self._failed[number] = error

    def conclude(self) -> int:
        if not self._failed:
            return self.begun
        first, error = min(self._failed.items())
        raise PartlyPublished(
            f"{len(self._failed)} of {self.begun} messages were not published, and none after these was begun; the "
            f"first is number {first}, counted from 0: {error}",
            failed=tuple(sorted(self._failed)),
            begun=self.begun,
        ) from error


def publish_all(publishing: Iterator[Future[None]]) -> int:
    """Wait for all, of which `publishing` begins one with each step; how many that were.

    Raises:
        PartlyPublished: some failed.
        Exception: what the iterator raises besides LightbusErrors; what was begun has been waited for.
    """
    window = _Window()
    try:
        while window.begin(publishing):
            if window.is_full:
                window.settle_oldest()
    finally:
        while window.oldest is not None:
            window.settle_oldest()
    return window.conclude()


async def publish_all_async(publishing: Iterator[Future[None]]) -> int:
    """`publish_all` from a coroutine. When that is cancelled, what was begun goes on."""
    window = _Window()
    try:
        while window.begin(publishing):
            if window.is_full:
                await _settle_oldest(window)
            if window.begun % TURN == 0:
                await others_turn()
    except Exception:
        await _settle_all(window)
        raise
    await _settle_all(window)
    return window.conclude()


async def _settle_all(window: _Window) -> None:
    while window.oldest is not None:
        await _settle_oldest(window)


async def _settle_oldest(window: _Window) -> None:
    if window.oldest is not None and not window.oldest.done():
        await finished(window.oldest)
    window.settle_oldest()
