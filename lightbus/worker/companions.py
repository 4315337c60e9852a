"""What stands beside a worker's supervisor, which itself opens no connection and has no thread: one process for all.

Each companion has a thread there. It begins at once or when the worker is ready, so that no first task waits for it,
and it ends when a stop begins or when the worker has ended. One that fails is started again and harms no other; a
process that dies is replaced, with all of them; when the supervisor was killed they end as they would have with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

from .beside import Beside
from .health import Health
from .latch import Latch
from .pauses import Pauses
from .snapshot import Snapshot

logger = logging.getLogger("lightbus.worker")

LOOK_SECONDS = 0.5
END_SECONDS = 3.0  #: for all good-byes together, before the process is killed
LOADING_NICENESS = 10  #: the first tasks of a worker need the processors more

#: Returns soon after the latch is set; what it raises is logged, and it is run again.
Run = Callable[[Latch], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """Something that talks to the outside for the supervisor.

    Attributes:
        does: what it is there for, to complete "the process that ...".
        load: imports and prepares what it needs, in the process; what it returns is then run on a thread of its own.
        begins_at_once: and not when the worker is ready.
        ends_with_stop: as soon as a stop was asked for, and not when the worker has ended.
        keeps: descriptors that it needs besides the standard ones and those of the log.
        if_orphaned: called in the process when the supervisor was killed, to clean up after it.
    """

    does: str
    load: Callable[[], Run]
    begins_at_once: bool = False
    ends_with_stop: bool = False
    keeps: Sequence[int] = ()
    if_orphaned: Callable[[], None] = lambda: None


#: Made by the supervisor, whose health the snapshot says.
MakeCompanion = Callable[[Snapshot], Companion]


@dataclass(slots=True)
class Moments:
    """Of a worker's life, for those beside it."""

    is_ready: Latch = field(default_factory=Latch)
    stops: Latch = field(default_factory=Latch)
    has_ended: Latch = field(default_factory=Latch)

    @property
    def descriptors(self) -> list[int]:
        return [one for latch in (self.is_ready, self.stops, self.has_ended) for one in latch.descriptors]


class Companions:
    """A `Sign` that keeps their process running, from when one of them is to begin. Without any there is none.

    Args:
        snapshot: where they read the supervisor's health.
    """

    def __init__(self, companions: Sequence[Companion], snapshot: Snapshot) -> None:
        self._companions = companions
        self._snapshot = snapshot
        self._moments = Moments()
        keeps = [*self._moments.descriptors, *(number for one in companions for number in one.keeps)]
        self._process = Beside(
            " and ".join(one.does for one in companions),
            lambda supervisor: _Host(companions, self._moments, supervisor).run(),
            keeps=keeps,
        )
        self._has_begun = False

    def begin(self) -> None:
        """Start the process where a companion does not wait for the worker; before the supervisor forks anything."""
        self._snapshot.write(Health(), time.monotonic())
        if any(one.begins_at_once for one in self._companions):
            self._has_begun = True
            self._process.start()

    def show(self, health: Health, now: float) -> None:
        """See `Sign`."""
        self._snapshot.write(health, now)
        if health.ready:
            self._moments.is_ready.set()
            self._has_begun = bool(self._companions)
        if health.stopping:
            self._moments.stops.set()
        if self._has_begun:
            self._process.keep()

    def reloading(self) -> None:
        """See `Sign`. The new code has its own."""
        self.gone()

    def gone(self) -> None:
        """See `Sign`. They get a few seconds at most."""
        self._moments.stops.set()
        self._moments.has_ended.set()
        self._process.end(END_SECONDS)


class _Host:
    """In the process: runs the companions until the worker has ended.

    They are loaded one after the other on its main thread, with low priority, which a thread never gets back and hands
    on to those that it starts. So those of the companions stand before, and wait.
    """

    def __init__(self, companions: Sequence[Companion], moments: Moments, supervisor: int) -> None:
        self._companions = companions
        self._moments = moments
        self._supervisor = supervisor
        self._seats = [_Seat(one, moments.stops if one.ends_with_stop else moments.has_ended) for one in companions]

    def run(self) -> None:
        moments = self._moments
        for seat in self._seats:
            seat.thread.start()
        if sys.platform == "linux":  # elsewhere a thread has no priority of its own
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOADING_NICENESS)
        for seat in [one for one in self._seats if one.companion.begins_at_once]:
            seat.load()
        waiting = [one for one in self._seats if not one.companion.begins_at_once]
        while not moments.has_ended.is_set() and os.getppid() == self._supervisor:
            if not waiting:
                moments.has_ended.wait(LOOK_SECONDS)
            elif moments.is_ready.wait(LOOK_SECONDS):
                waiting.pop(0).load()
        is_orphaned = not moments.has_ended.is_set()
        moments.stops.set()
        moments.has_ended.set()
        deadline = time.monotonic() + END_SECONDS
        for seat in self._seats:
            seat.end(max(0.0, deadline - time.monotonic()))
        if is_orphaned:
            for one in self._companions:
                one.if_orphaned()


class _Seat:
    """A companion and its thread."""

    def __init__(self, companion: Companion, until: Latch) -> None:
        self.companion = companion
        self.thread = threading.Thread(target=self._keep, name="lightbus-companion", daemon=True)
        self._until = until
        self._loaded: SimpleQueue[Run | None] = SimpleQueue()

    def load(self) -> None:
        """Have it begin. Where that fails it is tried again on its own thread."""
        if self._until.is_set():
            return
        try:
            self._loaded.put(self.companion.load())
        except BaseException as error:  # noqa: BLE001  # what is wrong with one is nothing to the others
            self._loaded.put(partial(_fail, error))

    def end(self, seconds: float) -> None:
        """Wait for its end, whose moment has come."""
        self._loaded.put(None)
        self.thread.join(seconds)

    def _keep(self) -> None:
        """Run it, again and again where it fails."""
        companion, until, pauses = self.companion, self._until, Pauses()
        run = self._loaded.get()
        while run is not None and not until.is_set():
            started = time.monotonic()
            try:
                run(until)
            except BaseException:  # the top of this thread
                logger.exception("what %s failed", companion.does)
            if until.is_set():
                return
            pause = pauses.after(time.monotonic() - started)
            logger.error("what %s has ended; it begins again in %.1f s", companion.does, pause)
            until.wait(pause)
            run = self._load_and_run

    def _load_and_run(self, until: Latch) -> None:
        self.companion.load()(until)


def _fail(error: BaseException, until: Latch) -> None:
    raise error
