"""What runs in this process: written on the board, watched for its hard limit, and ended by whoever is first.

A run has one end: the slot's, when the handler returns; the watchdog's, when its limit is over; or the stop's, when the
process may not wait any longer. `finish` says who was first.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import HandlerStopped, TimeLimitExceeded, WorkerLost
from .board import Place, identity_of
from .limits import Limits

if TYPE_CHECKING:
    from ..endpoint import Invocation
    from .work import Work


#: How long a message that comes back waits for the supervisor to say whether a process died of it.
ACCOUNT_SECONDS = 0.5


@dataclass(slots=True, eq=False)  # by identity: a frozen one takes twice as long to make
class Run:
    """One handler call under way. `started` and `deadline` are of `time.monotonic()`."""

    work: Work
    invocation: Invocation
    cell: int
    started: float
    deadline: float


class Runs:
    """The runs of one process. Thread-safe.

    Args:
        on_over_time: called on the watchdog's thread with a run that is over its hard limit; it is finished then.
        on_exhausted: called once, on a slot's thread, when the last message that the process may handle begins.
    """

    def __init__(
        self, limits: Limits, place: Place, on_over_time: Callable[[Run], None], on_exhausted: Callable[[], None]
    ) -> None:
        self._limits = limits
        self._place = place
        self._on_over_time = on_over_time
        self._on_exhausted = on_exhausted
        self._begun = itertools.count(1)
        self._running: dict[int, Run] = {}
        self._totals: dict[str, int] = {}
        self._next_deadline = math.inf
        self._sooner = threading.Event()
        self._watchdog: threading.Thread | None = None
        self._starting = threading.Lock()

    def begin(self, work: Work, invocation: Invocation, *, is_coroutine: bool) -> Run:
        """A handler is about to be called. Before its message is acknowledged, if that happens early."""
        delivery, limit = work.delivery, invocation.hard_limit_seconds or self._limits.time_seconds
        now = time.monotonic()
        deadline = math.inf if limit is None else now + limit
        cell = self._place.begin(delivery, invocation, now, deadline, is_coroutine=is_coroutine)
        run = Run(work, invocation, cell, now, deadline)
        self._running[id(run)] = run
        self._totals[invocation.name] = self._totals.get(invocation.name, 0) + 1
        if deadline < self._next_deadline:
            self._watch_from(deadline)
        if self._limits.max_tasks is not None and next(self._begun) == self._limits.max_tasks:
            self._on_exhausted()
        return run

    def finish(self, run: Run) -> bool:
        """The handler is back: True for the first who says so, and he concludes."""
        if self._running.pop(id(run), None) is None:  # one bytecode of dict: safe between threads
            return False
        if run.deadline != math.inf:
            self._place.without_limit(run.cell)
        return True

    def end(self, run: Run) -> None:
        """The run is concluded: a process that dies from now on has not died of it."""
        self._place.end(run.cell)

    def verdict(self, work: Work, invocation: Invocation) -> HandlerStopped | None:
        """Why a message that was handed out before must not run (again); None when it may.

        One that is acknowledged early has had its one run, if the process died before the broker had heard of it.
        """
        identity = identity_of(work.delivery.queue, invocation.id, invocation.attempt)
        deadline = time.monotonic() + ACCOUNT_SECONDS
        while self._place.is_running(identity) and time.monotonic() < deadline:
            time.sleep(0.002)  # the broker may be quicker than the supervisor to see that a process is dead
        mark = self._place.marked(identity)
        if mark.over_time:
            return TimeLimitExceeded(
                "it ran for longer than its hard limit in a process that did not answer any more and was killed"
            )
        if invocation.ack_early and mark.crashes:
            return WorkerLost("its process died under it")
        if mark.crashes >= self._limits.max_crashes:
            return WorkerLost(f"its process died under it {mark.crashes} times", crashes=mark.crashes)
        return None

    def running(self) -> list[Run]:
        """What runs now."""
        return list(self._running.values())

    def totals(self) -> dict[str, int]:
        """How many runs have begun, by name."""
        return dict(self._totals)

    def take_all(self) -> list[Run]:
        """Every run that has not come to its end, finished now: the process may not wait any longer."""
        return [run for run in list(self._running.values()) if self.finish(run)]

    def _watch_from(self, deadline: float) -> None:
        self._next_deadline = deadline
        self._sooner.set()
        if self._watchdog is None:
            with self._starting:
                if self._watchdog is None:
                    self._watchdog = threading.Thread(target=self._watch, name="lightbus-watchdog", daemon=True)
                    self._watchdog.start()

    def _watch(self) -> None:
        while True:
            left = self._next_deadline - time.monotonic()
            if left > 0:  # looked at again only when it is over: most runs end long before, and cost no wake-up
                self._sooner.wait(None if left == math.inf else left)
                self._sooner.clear()
                continue
            # First, so that a run which begins meanwhile and ends sooner wakes this thread again.
            self._next_deadline = math.inf
            now = time.monotonic()
            runs = list(self._running.values())
            for run in runs:
                # The board keeps its deadline: should this process hang from now on, it is known for what.
                if run.deadline <= now and self._running.pop(id(run), None) is not None:
                    self._on_over_time(run)
            self._next_deadline = min([self._next_deadline, *(run.deadline for run in runs if run.deadline > now)])
