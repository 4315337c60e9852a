"""How many messages a process holds: many short ones, so that no slot waits for the broker, and no long one more than
its slots work on, so that another process can have it. Pure; `watch.py` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass

#: A process holds what its slots finish in about that long; the broker sends more within a few milliseconds.
BUFFER_SECONDS = 0.25
#: Bodies of the messages that a process holds, together.
BUFFER_BYTES = 32 * 1024 * 1024
#: When no slot has become free for that long, what waits behind them is handed back to the broker.
STUCK_SECONDS = 0.5
MOST = 500
_FIRST = 8
_STEP = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a process has learnt about its messages; None before the first.

    Attributes:
        mean_seconds: how long a handler runs, lately.
        mean_bytes: of a body.
    """

    mean_seconds: float | None = None
    mean_bytes: float = 0.0

    def after(self, *, finished: int, busy_seconds: float, taken: int, taken_bytes: int) -> Pace:
        """With what happened since the last look; the newer half counts as much as all before."""
        seconds, size = self.mean_seconds, self.mean_bytes
        if finished:
            latest = busy_seconds / finished
            seconds = latest if seconds is None else (seconds + latest) / 2
        if taken:
            size = max(taken_bytes / taken, size / 2)  # up at once: memory does not wait
        return Pace(mean_seconds=seconds, mean_bytes=size)


@dataclass(frozen=True, slots=True)
class AdaptivePrefetch:
    """The prefetch of a process with `slots` slots."""

    slots: int

    @property
    def first(self) -> int:
        """Before anything is known."""
        return max(_FIRST, 2 * self.slots)

    def next(self, current: int, pace: Pace) -> int:
        """The prefetch to have now. Never less than the slots; changes by half or more, since a change costs a few
        round trips on some brokers; grows in steps, so that one quick handler does not fetch hundreds of long ones."""
        if pace.mean_seconds is None:
            return current
        wanted = self._wanted(pace.mean_seconds, pace.mean_bytes)
        if wanted >= 2 * current:
            return min(wanted, _STEP * current)
        if 2 * wanted <= current or wanted == self.slots:
            return wanted
        return current

    def _wanted(self, mean_seconds: float, mean_bytes: float) -> int:
        ahead = BUFFER_SECONDS * self.slots / max(mean_seconds, 1e-9)
        fitting = BUFFER_BYTES / max(mean_bytes, 1.0)
        return self.slots + int(max(0.0, min(ahead, fitting, max(0, MOST - self.slots))))


def is_stuck(*, slots: int, running: int, since_last_start_seconds: float, waiting: int) -> bool:
    """Messages wait in the process while every slot has been busy with the same one for too long."""
    return waiting > 0 and running >= slots and since_last_start_seconds >= STUCK_SECONDS
