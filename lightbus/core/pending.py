"""Calls that wait for their answer: correlation id to slot, with deadlines. Pure: the caller brings the clock."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

Slot = TypeVar("Slot")


class Pending(Generic[Slot]):
    """Slots by correlation id. Each is taken out once: by its answer or by its deadline.

    Not thread-safe; the owner holds a lock.
    """

    def __init__(self) -> None:
        self._slots: dict[str, tuple[float, Slot]] = {}
        self._deadlines: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, correlation_id: str, slot: Slot, deadline: float) -> None:
        """Wait for `correlation_id` until `deadline` (same clock as `expire`).

        Raises:
            ValueError: the id is waited for already.
        """
        if correlation_id in self._slots:
            raise ValueError(f"{correlation_id!r} is waited for already")
        self._slots[correlation_id] = (deadline, slot)
        heapq.heappush(self._deadlines, (deadline, correlation_id))
        if len(self._deadlines) > 64 + 2 * len(self._slots):  # answered ones stay in the heap until their deadline
            self._deadlines = [(when, key) for key, (when, _) in self._slots.items()]
            heapq.heapify(self._deadlines)

    def take(self, correlation_id: str) -> Slot | None:
        """The slot of an answer that came; None when nobody waits for it (any more)."""
        entry = self._slots.pop(correlation_id, None)
        return entry[1] if entry else None

    def expire(self, now: float) -> list[Slot]:
        """Take out every slot whose deadline is not after `now`."""
        expired: list[Slot] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            when, key = heapq.heappop(self._deadlines)
            entry = self._slots.get(key)
            if entry is not None and entry[0] == when:
                del self._slots[key]
                expired.append(entry[1])
        return expired

    def next_deadline(self) -> float | None:
        """A moment not after the earliest deadline, or None when nothing waits."""
        return self._deadlines[0][0] if self._slots and self._deadlines else None
