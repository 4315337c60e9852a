"""The slots of a process: where handlers run, one at a time each.

With one slot it is the main thread, so that a handler sees signals as in any program. With more they are threads.
Coroutine functions run on one event loop beside them (`coroutines.py`) and do not occupy a slot.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any, cast

from ..core.errors import HandlerStopped, WorkerLost
from ..core.outcome import Ack
from ..endpoint import Invocation, set_current
from ..middleware import entered
from ..report import Observer
from .conclusions import Conclusions
from .coroutines import Coroutines
from .gate import Gate
from .holds import Holds
from .permits import Permits
from .prefetch import Load
from .rates import Rates
from .runs import Run, Runs
from .softlimits import CancelledAfter, SoftLimits
from .work import Work

logger = logging.getLogger("lightbus.worker")


@dataclass(frozen=True, slots=True)
class Counts:
    """What the slots of a process did since they began; `coroutines` began, the rest is of plain handlers."""

    finished: int
    busy_seconds: float
    coroutines: int
    taken: int
    taken_bytes: int


class _Slot:
    """What one slot is at. Written by its own thread, read by others, who may see it a moment late."""

    __slots__ = ("busy_seconds", "finished", "started")

    def __init__(self) -> None:
        self.started = 0.0  # on the monotonic clock; 0.0 while it waits for work
        self.finished = 0
        self.busy_seconds = 0.0


class Slots:
    """Takes work from one inbox until it is stopped.

    Attributes:
        on_idle: called when a slot becomes free, from its thread.
        most_held: messages that the process may hold now; half of them may wait for their rate.
        gate: what is over its rate waits there.
    """

    def __init__(
        self,
        threads: int,
        coroutines: int,
        runs: Runs,
        observers: Sequence[Observer] = (),
        soft_limit_seconds: float | None = None,
        rates: Rates | None = None,
        permits: Permits | None = None,
    ) -> None:
        self._inbox: SimpleQueue[Work | None] = SimpleQueue()
        self._slots = [_Slot() for _ in range(threads)]
        self._runs = runs
        self._taken = self._taken_bytes = 0
        self._soft_limits = SoftLimits()
        self._soft_limit_seconds = soft_limit_seconds
        self.on_idle: Callable[[], None] | None = None
        self._coroutines = Coroutines(self._perform_async, coroutines)
        self._most_coroutines = coroutines
        self._draining = threading.Event()
        self.most_held = 0
        self.gate = Gate(
            Rates({}) if rates is None else rates, Permits({}) if permits is None else permits, self._put_admitted,
            lambda: self.most_held // 2,
        )  # fmt: skip
        self._holds = Holds(self._inbox.put)
        self._conclusions = Conclusions(runs, observers, self._holds)

    def put(self, work: Work) -> None:
        """Add work; it is handed back when the slots are stopping. Any thread, never blocks."""
        if self._draining.is_set():
            work.delivery.release()
            return
        self._taken += 1
        self._taken_bytes += len(work.delivery.wire.body)
        self._inbox.put(work)

    def run(self) -> None:
        """Handle work until `stop`; returns when what had begun is finished and the rest is handed back."""
        if threading.current_thread() is threading.main_thread():
            self._soft_limits.install()
        if len(self._slots) == 1:
            self._handle_until_stopped(self._slots[0])
        else:
            threads = [
                threading.Thread(target=self._handle_until_stopped, args=(slot,), name=f"lightbus-slot-{n}")
                for n, slot in enumerate(self._slots)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self._coroutines.close()
        self._soft_limits.close()

    def refuse(self) -> None:
        """Begin nothing more. Any thread; `stop` has to follow."""
        self._draining.set()

    def stop(self) -> None:
        """Hand back what has not begun, and let what has begun finish. Any thread, not a signal handler."""
        self._draining.set()
        for work in (*self.gate.close(), *self._holds.close()):
            work.delivery.release()
        self.release_waiting()
        for _ in self._slots:
            self._inbox.put(None)

    def give_up(self, run: Run, error: HandlerStopped) -> None:
        """Conclude a run whose handler does not come to its end. It is finished already (`Runs.finish`)."""
        self._conclusions.conclude(run.work, run.invocation, None, error, time.monotonic() - run.started)
        self._runs.end(run)

    def cancel(self, run: Run, error: HandlerStopped) -> None:
        """Conclude a coroutine's run, and cancel it. Any thread; nothing happens when it has just ended."""
        if self._runs.finish(run):
            self._coroutines.cancel(lambda begun: begun[1] is run.invocation)
            self.give_up(run, error)

    def waiting(self) -> list[Work]:
        """What has not begun; for a look. Any thread."""
        found: list[Work | None] = []
        with contextlib.suppress(Empty):
            while True:
                found.append(self._inbox.get_nowait())
        for work in found:  # back in its order; only what arrives in these microseconds gets ahead of it
            self._inbox.put(work)
        held = [work for work in found if work is not None] + [work for work, _ in self._coroutines.items_waiting()]
        return held + self.gate.waiting() + self._holds.waiting()

    def give_up_all(self) -> int:
        """Conclude all that runs, because the process ends; how many that were.

        What is acknowledged late goes back. What was acknowledged early must not run twice: it has failed.
        """
        runs = self._runs.take_all()
        for run in runs:
            if run.invocation.ack_early:
                self.give_up(run, WorkerLost("its worker was stopped and did not wait for it any longer"))
            else:
                run.work.delivery.requeue()
                self._runs.end(run)
        return len(runs)

    def release_waiting(self) -> int:
        """Hand back what has not begun; returns how many messages that were. Any thread, not a signal handler."""
        count, kept = 0, list[Work]()
        with contextlib.suppress(Empty):
            while (work := self._inbox.get_nowait()) is not None:
                if work.keeps_place and not self._draining.is_set():
                    kept.append(work)
                else:
                    self._hand_back(work)
                    count += 1
        for work in kept:
            self._inbox.put(work)
        for work, _ in self._coroutines.take_waiting():
            self._hand_back(work)
            count += 1
        return count

    def loads(self) -> tuple[Load, Load]:
        """What slots and coroutines are at."""
        starts = [slot.started for slot in self._slots if slot.started]
        coroutines = self._coroutines
        return (
            Load(len(self._slots), len(starts), max(starts, default=0.0), self._inbox.qsize()),
            Load(self._most_coroutines, coroutines.running, coroutines.last_start, coroutines.waiting),
        )

    def counts(self) -> Counts:
        return Counts(
            finished=sum(slot.finished for slot in self._slots),
            busy_seconds=sum(slot.busy_seconds for slot in self._slots),
            coroutines=self._coroutines.begun,
            taken=self._taken,
            taken_bytes=self._taken_bytes,
        )

    def _handle_until_stopped(self, slot: _Slot) -> None:
        while True:
            work = self._inbox.get()
            if work is None:
                return
            if self._draining.is_set():
                self._hand_back(work)
                continue
            if not (self.gate.is_open or self._is_admitted(work)):
                continue
            slot.started = started = time.monotonic()
            invocation = self._conclusions.prepare(work)
            if invocation is None:
                self.gate.leave(work)
            else:
                if inspect.iscoroutinefunction(invocation.function):
                    self._coroutines.put((work, invocation))
                else:
                    self._perform(work, invocation)
                    slot.busy_seconds += time.monotonic() - started
                    slot.finished += 1
            slot.started = 0.0
            if (on_idle := self.on_idle) is not None:
                on_idle()

    def _is_admitted(self, work: Work) -> bool:
        """Its rate has a turn for it at once. Otherwise it is cared for."""
        verdict = self.gate.judge(work)
        if isinstance(verdict, bool):
            return verdict
        self._conclusions.conclude_unrun(work, verdict)
        return False

    def _hand_back(self, work: Work) -> None:
        self.gate.leave(work)
        work.delivery.release()

    def _put_admitted(self, work: Work) -> None:
        self._inbox.put(replace(work, admitted=True))

    def _perform(self, work: Work, invocation: Invocation) -> None:
        run = self._runs.begin(work, invocation, is_coroutine=False)
        if invocation.ack_early:
            work.delivery.ack()
        started = time.monotonic()
        result, failure = None, None
        set_current(invocation)
        try:
            limit_seconds = invocation.soft_limit_seconds or self._soft_limit_seconds
            if work.middleware or limit_seconds:
                limit = self._soft_limits.within(limit_seconds, invocation.soft_limit_error)
                with entered(work.middleware, invocation), limit:
                    result = invocation.function(*invocation.args, **invocation.kwargs)
            else:
                result = invocation.function(*invocation.args, **invocation.kwargs)
        except BaseException as error:  # noqa: BLE001  # user code: whatever it raises is the message's outcome
            failure = error
        self.gate.leave(work)
        if self._runs.finish(run):
            self._conclusions.conclude(work, invocation, result, failure, time.monotonic() - started)
            if invocation.on_end is not None:
                invocation.on_end()
            self._runs.end(run)
        set_current(None)

    async def _perform_async(self, begun: tuple[Work, Invocation]) -> None:
        work, invocation = begun
        run = self._runs.begin(work, invocation, is_coroutine=True)
        if invocation.ack_early:
            work.delivery.ack()
        started = time.monotonic()
        result, failure = None, None
        set_current(invocation)
        function = cast("Callable[..., Coroutine[Any, Any, object]]", invocation.function)
        try:
            limit_seconds = invocation.soft_limit_seconds or self._soft_limit_seconds
            with entered(work.middleware, invocation) as stack:
                if limit_seconds:
                    stack.enter_context(CancelledAfter(limit_seconds, invocation.soft_limit_error))
                result = await function(*invocation.args, **invocation.kwargs)
        except BaseException as error:  # noqa: BLE001  # user code, as above
            failure = error
        self.gate.leave(work)
        seconds, in_thread = time.monotonic() - started, self._coroutines.in_thread
        if not self._runs.finish(run):
            return
        if work.endpoint.blocking:
            await in_thread(self._conclusions.conclude, work, invocation, result, failure, seconds)
        else:
            outcome = self._conclusions.outcome_of(work, invocation, result, failure, seconds)
            if isinstance(outcome, Ack):
                work.delivery.ack()
            else:
                await in_thread(self._conclusions.settle, work, outcome)  # publishing may wait for the broker
        if invocation.on_end is not None:
            invocation.on_end()
        self._runs.end(run)
