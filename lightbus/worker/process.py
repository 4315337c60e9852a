"""One child process of a worker: consumes the queues of its buses' endpoints, and ends when told to or used up.

Three ways to end. Drained: what runs is finished, for as long as the grace lasts. Used up (its messages are counted,
or the supervisor says so): the same without a limit, since another process has taken its place. Cut off (grace over, a
second stop, a handler over its hard limit): what runs is handed back, and the process ends at once.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NamedTuple

from ..core.errors import TimeLimitExceeded, TransportError
from ..core.exitcodes import EXIT_CUT_OFF, EXIT_TIME_LIMIT
from .board import Place
from .control import Supervised
from .intake import Intake
from .lost import tell_lost
from .options import WorkerOptions
from .runs import Run, Runs
from .served import Served, permits_of, rates_of
from .slots import Slots
from .steering import Steering
from .watch import Watch

logger = logging.getLogger("lightbus.worker")

SETTLE_SECONDS = 10.0
OVER_TIME_SECONDS = 10.0  #: for all that a process does at a hard limit; then its supervisor kills it
CUT_OFF_SECONDS = 2.0  #: for each step of a hurried end
LOOK_SECONDS = 0.5  #: how often a process tells how much waits, where somebody asks
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOP = b"\xff"  #: no signal has that number
USED_UP = b"\xfe"


class Process:
    """Runs in the calling thread until a signal, `stop()` or the supervisor stops it.

    Signals are handled only when that is the main thread, the only one that Python lets do so.

    Args:
        supervised: the ties to its supervisor; None for a process of its own.
    """

    def __init__(self, buses: Sequence[Served], options: WorkerOptions, supervised: Supervised | None = None) -> None:
        self._buses = buses
        self._options = options
        self._supervised = supervised
        place = Place.alone(options.threads) if supervised is None else supervised.place
        self._place = place
        self._runs = Runs(options.limits, place, self._end_over_time, self._use_up)
        rates = rates_of(buses) if options.rates is None else options.rates
        permits = permits_of(buses) if options.permits is None else options.permits
        self._slots = Slots(
            options.threads, options.coroutines, self._runs, options.observers, options.soft_limit_seconds, rates,
            permits,
        )  # fmt: skip
        self._watch = Watch(self._slots, options.prefetch_of_a_process(), self._say_handled)
        self._intake = Intake(self._slots, self._watch, options, permits)
        self._steering = Steering(
            self._slots, self._runs, self._intake.subscriptions, self._intake.take, lambda: self._watch.prefetch,
            self._expect_the_end,
        )  # fmt: skip
        self._stop_reader, self._stop_writer = os.pipe()
        os.set_blocking(self._stop_writer, False)
        self._ended = threading.Event()
        self._signals = 0  # that ask for a stop
        self._owns_process = False

    def run(self, *, ready: Callable[[], None] = lambda: None) -> None:
        """Consume until stopped; returns when everything taken on is settled.

        A process that is cut off does not return: it exits, with EXIT_CUT_OFF or EXIT_TIME_LIMIT. On another thread
        than the main one it hands back what it has, and leaves the exit to its program.

        Args:
            ready: called once all queues are consumed.

        Raises:
            LightbusError: the start failed; nothing is consumed.
        """
        self._owns_process = threading.current_thread() is threading.main_thread()
        if self._owns_process:
            # The kernel may hand a signal to any thread, and the main one, waiting for work, would then run no Python
            # handler. The byte that the wake-up descriptor gets is written whichever thread it is.
            signal.set_wakeup_fd(self._stop_writer, warn_on_full_buffer=False)
            for number in STOP_SIGNALS:
                signal.signal(number, _leave_to_wakeup)
        control = threading.Thread(target=self._control, name="lightbus-control", daemon=True)
        try:
            for bus in self._buses:
                self._intake.consume(bus)
            self._watch.start()
            control.start()
            if self._supervised is not None:
                self._supervised.ready()
            ready()
            self._slots.run()
        finally:
            self._ended.set()
            self.stop()
            if control.ident is not None:
                control.join()
            if self._owns_process:
                signal.set_wakeup_fd(-1)
            os.close(self._stop_reader)
            writer, self._stop_writer = self._stop_writer, -1
            os.close(writer)
            self._leave(SETTLE_SECONDS)

    def stop(self) -> None:
        """Stop from any thread or signal handler; twice, or when it has ended already, is harmless."""
        with contextlib.suppress(OSError):
            os.write(self._stop_writer, STOP)

    def _say_handled(self, count: int) -> None:
        self._place.handled = count

    def _control(self) -> None:
        """The control thread: waits for a reason to stop, then sees to it that the process ends."""
        deadline = math.inf
        draining = False
        while not self._ended.is_set():
            news = self._heard(deadline)
            if self._ended.is_set():
                return
            if news.at_once or time.monotonic() >= deadline:
                self._cut_off(EXIT_CUT_OFF)
                return
            if news.terminate:
                self._cut_off(EXIT_TIME_LIMIT)
                return
            if news.stop and deadline == math.inf:
                if self._supervised is None and self._signals:
                    logger.info("stopping; a second signal ends it at once")
                deadline = time.monotonic() + self._options.limits.grace_seconds
            if (news.stop or news.used_up) and not draining:
                draining = True
                self._drain()

    def _heard(self, deadline: float) -> _News:
        """Wait for news, until `deadline` at most."""
        ties = self._supervised
        watched: list[int] = [self._stop_reader]
        if ties is not None:
            watched += [ties.life, ties.channel.fileno()]
        left = deadline - time.monotonic()
        if self._options.reports_waiting:
            left = min(left, LOOK_SECONDS)
            self._place.waiting = self._waiting()
        readable, _, _ = select.select(watched, [], [], None if left == math.inf else max(0.0, left))
        # Other signals write there too, a handler's SIGCHLD or SIGALRM.
        told = os.read(self._stop_reader, 4096) if self._stop_reader in readable else b""
        self._signals += sum(byte in STOP_SIGNALS for byte in told)
        # Under a supervisor it is the supervisor that counts: a terminal sends Ctrl-C to both, which is one.
        at_once, used_up = ties is None and self._signals > 1, USED_UP in told
        stop = STOP in told or self._signals > 0
        terminate = False
        if ties is not None and ties.channel.fileno() in readable:
            for word, value in ties.channel.received():
                used_up = used_up or word == "drain"
                at_once = at_once or word == "end"
                match word, value:
                    case "lost", _:
                        tell_lost(value, self._intake.settlers, ties.channel)
                    case "ask", [number, str(question)]:
                        ties.channel.send("answer", [number, self._steering.answer(question)])
                    case "tell", [str(what), dict(about)]:
                        self._steering.tell(what, about)
                    case "terminate", {"ids": list(ids), "signum": int(signum)}:
                        terminate = self._steering.terminate(ids, signum) or terminate
        if ties is not None and ties.life in readable:
            logger.warning("the supervisor is gone; finishing what runs, then ending")
            self._supervised, stop = None, True
        return _News(stop, used_up, at_once, terminate)

    def _waiting(self) -> int:
        """Messages that wait for a slot: those here, or, while all slots are busy, those that the broker has."""
        threads, coroutines = self._slots.loads()
        waiting = threads.waiting + coroutines.waiting
        if waiting or threads.running < self._options.threads:
            return waiting
        try:
            subscriptions = list(self._intake.subscriptions)
            return sum(one.transport.message_count(name) or 0 for one in subscriptions for name in one.names)
        except TransportError:  # it is away, and nothing waits for more processes
            return 0

    def _use_up(self) -> None:
        """The last message that this process may handle begins. On a slot's thread, which must not wait for itself."""
        self._slots.refuse()
        if self._supervised is not None:
            self._supervised.channel.send("leaving", f"it handled {self._options.limits.max_tasks} messages")
        with contextlib.suppress(OSError):
            os.write(self._stop_writer, USED_UP)

    def _drain(self) -> None:
        self._intake.drain()
        self._watch.stop()
        self._slots.stop()

    def _end_over_time(self, run: Run) -> None:
        """A handler is over its hard limit. On the watchdog's thread, since the handler's does not come back."""
        self._expect_the_end()
        invocation = run.invocation
        seconds = invocation.hard_limit_seconds or self._options.limits.time_seconds
        logger.error(
            "hard time limit of %g s is over, the process ends name=%s id=%s", seconds, invocation.name, invocation.id
        )
        self._slots.give_up(run, TimeLimitExceeded(f"it ran for longer than its hard limit of {seconds:g} s"))
        self._cut_off(EXIT_TIME_LIMIT)

    def _expect_the_end(self) -> None:
        """First of all: what follows may hang on a lock that the handler holds, the log's for example."""
        self._place.kill_at = time.monotonic() + OVER_TIME_SECONDS

    def _cut_off(self, exit_code: int) -> None:
        """Hand back what has not begun and what runs, and exit: the threads of the handlers end with the process.

        Inside another program, on a thread that is not its main one, only the first: the program is not ours to end.
        """
        self._drain()
        if cut := self._slots.give_up_all():
            logger.warning("%d handlers were cut off; what they handled goes back, or has failed", cut)
        self._leave(CUT_OFF_SECONDS)
        if self._owns_process:
            os._exit(exit_code)
        logger.error("a handler that was cut off goes on in this program: its thread cannot be ended")

    def _leave(self, timeout_seconds: float) -> None:
        self._intake.leave(timeout_seconds)
        for bus in self._buses:
            bus.close()


class _News(NamedTuple):
    """What a process was told: to end when what runs is finished, that another takes its place, to end now; or that
    a handler was terminated and the process has to end for it."""

    stop: bool
    used_up: bool
    at_once: bool
    terminate: bool = False


def _leave_to_wakeup(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has told the control thread already."""
