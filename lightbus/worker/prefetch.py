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
    """The prefetch of a process with `slots` slots, and at most so many coroutines."""

    slots: int
    most_coroutines: int = 0

    @property
    def first(self) -> int:
        """Before anything is known."""
        return max(_FIRST, 2 * self.slots)

    def next(self, current: int, pace: Pace, *, coroutines: int = 0) -> int:
        """The prefetch to have now. Never less than the slots; does not follow each small change, since a change
        costs a few round trips on some brokers; grows in steps, so that one quick handler does not fetch hundreds of
        long ones.

        Args:
            coroutines: those that run or have run since the last look.
        """
        if pace.mean_seconds is None and not coroutines:
            return current
        wanted = self._wanted(pace.mean_seconds or 0.0, pace.mean_bytes)
        # They are held too. When they fill the prefetch, more of them may fit: as many as the process may run.
        wanted += min(_STEP * coroutines, self.most_coroutines)
        if 4 * wanted >= 5 * current:
            return min(wanted, _STEP * current)
        if 2 * wanted <= current or wanted == self.slots:
            return wanted
        return current

    def _wanted(self, mean_seconds: float, mean_bytes: float) -> int:
        ahead = BUFFER_SECONDS * self.slots / max(mean_seconds, 1e-9)
        fitting = BUFFER_BYTES / max(mean_bytes, 1.0)
        return self.slots + int(max(0.0, min(ahead, fitting, max(0, MOST - self.slots))))


@dataclass(frozen=True, slots=True)
class Load:
    """What the slots, or the coroutines, of a process are at.

    Attributes:
        places: handlers that may run at a time.
        running: those that do.
        last_start: when the last of them began, on the monotonic clock.
        waiting: messages that the process holds for them.
    """

    places: int
    running: int
    last_start: float
    waiting: int

    @property
    def full(self) -> bool:
        return self.running >= self.places

    def is_stuck(self, now: float) -> bool:
        """Messages wait while every place has been taken by the same handler for too long."""
        return self.waiting > 0 and self.full and now - self.last_start >= STUCK_SECONDS
