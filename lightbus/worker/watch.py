"""Looks at the slots of a process a few times a second: adapts the prefetch, and hands back what long handlers hold up.

Handlers pay for it with two clock readings. What to do is decided in `prefetch`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ..ports import Consumer
from .prefetch import AdaptivePrefetch, Pace
from .slots import Slots

logger = logging.getLogger("lightbus.worker")

LOOK_EVERY_SECONDS = 0.25


class Watch:
    """A thread from `start` to `stop`. `prefetch` fixes the number of messages that a process holds."""

    def __init__(
        self, slots: Slots, prefetch: int | None, on_handled: Callable[[int], None] = lambda count: None
    ) -> None:
        self._slots = slots
        self._on_handled = on_handled
        threads, coroutines = slots.loads()
        self._policy = AdaptivePrefetch(threads.places, coroutines.places)
        self._fixed = prefetch is not None
        self._prefetch = self._policy.first if prefetch is None else prefetch
        slots.most_held = self._prefetch
        self._pace = Pace()
        self._seen = slots.counts()
        self._paused = False
        self._consumers: list[Consumer] = []
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="lightbus-watch", daemon=True)

    @property
    def prefetch(self) -> int:
        """What consumers get now."""
        return self._prefetch

    def add(self, consumer: Consumer) -> None:
        """Any thread."""
        self._consumers.append(consumer)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when it has had its last look."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(LOOK_EVERY_SECONDS)
            self._wake.clear()
            if not self._stopping:
                self.look(time.monotonic())

    def look(self, now: float) -> None:
        """One look, at `now` on the monotonic clock."""
        threads, coroutines = self._slots.loads()
        if threads.is_stuck(now) or coroutines.is_stuck(now):
            self._pause()
        elif self._paused and not threads.full and not coroutines.full:
            self._slots.on_idle = None
            self._paused = False
            self._tell(self._prefetch)
        self._adapt(coroutines.running)

    def _pause(self) -> None:
        # First the limit, then the messages: the broker would send them here again.
        self._paused = True
        self._slots.on_idle = self._wake.set
        self._tell(0)
        count = self._slots.release_waiting()
        logger.info("every slot is busy for long; handed back waiting=%d", count)

    def _adapt(self, coroutines: int) -> None:
        counts = self._slots.counts()
        self._on_handled(counts.finished + counts.coroutines)
        seen, self._seen = self._seen, counts
        self._pace = self._pace.after(
            finished=counts.finished - seen.finished,
            busy_seconds=counts.busy_seconds - seen.busy_seconds,
            taken=counts.taken - seen.taken,
            taken_bytes=counts.taken_bytes - seen.taken_bytes,
        )
        if self._fixed:
            return
        wanted = self._policy.next(
            self._prefetch, self._pace, coroutines=max(coroutines, counts.coroutines - seen.coroutines)
        )
        if wanted != self._prefetch:
            logger.debug("prefetch %d after %d", wanted, self._prefetch)
            self._prefetch = self._slots.most_held = wanted
            if not self._paused:
                self._tell(wanted)

    def _tell(self, prefetch: int) -> None:
        for consumer in list(self._consumers):
            consumer.set_prefetch(prefetch)
