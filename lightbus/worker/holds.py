"""Messages that wait in this process for a while: for their rate, or to be tried again without losing their place."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .work import Work


class Holds:
    """Args:
    again: called with a message whose time has come, on a thread of its own.
    """

    def __init__(self, again: Callable[[Work], None]) -> None:
        self._again = again
        self._held: list[tuple[float, int, Work]] = []  # a heap: when, a number, the message
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, work: Work, seconds: float) -> None:
        """Bring it again after that long; it goes back when nothing is begun any more. Any thread."""
        with self._changed:
            if self._closed:
                work.delivery.requeue()
                return
            heapq.heappush(self._held, (time.monotonic() + seconds, next(self._number), work))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lightbus-holds", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    @property
    def count(self) -> int:
        """How many wait here now."""
        return len(self._held)

    def waiting(self) -> list[Work]:
        """What waits here now; for a look. Any thread."""
        with self._changed:
            return [work for _, _, work in self._held]

    def close(self) -> list[Work]:
        """Nothing waits here any more; what did. Any thread."""
        with self._changed:
            self._closed = True
            held, self._held = [work for _, _, work in self._held], []
            self._changed.notify_all()
        return held

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                left = self._held[0][0] - time.monotonic() if self._held else None
                if left is not None and left <= 0:
                    self._again(heapq.heappop(self._held)[2])
                else:
                    self._changed.wait(left)
