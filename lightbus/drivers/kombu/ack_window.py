"""Which acknowledgements to send for a set of settled deliveries. Pure.

AMQP lets one frame acknowledge every delivery up to a tag. That is sound only when all lower tags are done, and with
several handlers at work they finish out of order; so the window keeps the order in which tags were delivered.
Grouping acknowledgements makes consumption 1.8 times as fast as one frame each (benchmarks/).
"""

from __future__ import annotations

from collections import deque


class AckWindow:
    """The deliveries of one channel that are not acknowledged yet."""

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._done: set[int] = set()
        self._closed: set[int] = set()  # settled on the broker already, but a lower tag is still open

    def delivered(self, tag: int) -> None:
        """Tags come in ascending order, as the broker numbers them."""
        self._order.append(tag)

    def settled(self, tag: int) -> None:
        """The delivery may be acknowledged."""
        self._done.add(tag)

    def rejected(self, tag: int) -> None:
        """The delivery was handed back on its own; it needs no acknowledgement."""
        self._closed.add(tag)

    @property
    def open_count(self) -> int:
        """Deliveries that are neither acknowledged nor handed back."""
        return len(self._order) - len(self._closed)

    def open_beyond(self, tag: int) -> int:
        """Open deliveries with a higher tag than that. Looks at each; for rare moments."""
        return sum(1 for one in self._order if one > tag and one not in self._done and one not in self._closed)

    @property
    def last_tag(self) -> int:
        """The highest tag that may still be open; 0 when there is none."""
        return self._order[-1] if self._order else 0

    def acknowledgements(self) -> list[tuple[int, bool]]:
        """The frames to send now, as (tag, multiple): one for all that are done below the lowest open one, then one
        each for those above it."""
        frames: list[tuple[int, bool]] = []
        last = 0
        while self._order and (self._order[0] in self._done or self._order[0] in self._closed):
            tag = self._order.popleft()
            if tag in self._done:
                self._done.discard(tag)
                last = tag
            else:
                self._closed.discard(tag)
        if last:
            frames.append((last, True))
        for tag in sorted(self._done):
            frames.append((tag, False))
            self._closed.add(tag)
        self._done.clear()
        return frames
