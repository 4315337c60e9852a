"""One child process of a worker: consumes the queues of its buses' endpoints and drains when told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Protocol

from ..core.errors import ConfigError
from ..core.topology import Queue
from ..endpoint import Endpoint
from ..middleware import Middleware
from ..ports import Consumer, Delivery, Transport
from .options import WorkerOptions
from .settle import Settler
from .slots import Slots, Work
from .watch import Watch

logger = logging.getLogger("lightbus.worker")

SETTLE_SECONDS = 10.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOP = b"\xff"  #: no signal has that number
_STOP_BYTES = {*STOP, *STOP_SIGNALS}


class Served(Protocol):
    """What a worker needs of an app: `lightbus.Bus` is one."""

    @property
    def transport(self) -> Transport: ...

    @property
    def dead_letter_queue(self) -> str: ...

    @property
    def middleware(self) -> Sequence[Middleware]: ...

    def endpoints(self) -> Sequence[Endpoint]: ...

    def close(self) -> None: ...


class Process:
    """Runs in the calling thread until a signal, `stop()` or the supervisor's end stops it.

    Signals are handled only when that is the main thread, the only one that Python lets do so.
    """

    def __init__(self, buses: Sequence[Served], options: WorkerOptions) -> None:
        self._buses = buses
        self._options = options
        self._slots = Slots(options.threads, options.coroutines, options.observers)
        self._watch = Watch(self._slots, options.prefetch)
        self._consumers: list[Consumer] = []
        self._settlers: list[Settler] = []
        self._stop_reader, self._stop_writer = os.pipe()
        os.set_blocking(self._stop_writer, False)

    def run(self, *, supervisor_pipe: int | None = None, ready: Callable[[], None] = lambda: None) -> None:
        """Consume until stopped; returns when everything taken on is settled.

        Args:
            supervisor_pipe: read end of a pipe that only the supervisor can write to: its end is the supervisor's.
            ready: called once all queues are consumed.

        Raises:
            LightbusError: the start failed; nothing is consumed.
        """
        if threading.current_thread() is threading.main_thread():
            # The kernel may hand a signal to any thread, and the main one, waiting for work, would then run no Python
            # handler. The byte that the wake-up descriptor gets is written whichever thread it is.
            signal.set_wakeup_fd(self._stop_writer, warn_on_full_buffer=False)
            for number in STOP_SIGNALS:
                signal.signal(number, _leave_to_wakeup)
        try:
            for bus in self._buses:
                self._consume(bus)
            self._watch.start()
            ready()
            watch = threading.Thread(target=self._stop_when_told, args=(supervisor_pipe,), name="lightbus-control")
            watch.start()
            self._slots.run()
            watch.join()
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.set_wakeup_fd(-1)
            os.close(self._stop_reader)
            writer, self._stop_writer = self._stop_writer, -1
            os.close(writer)
            for settler in self._settlers:
                settler.drain(SETTLE_SECONDS)
            for consumer in self._consumers:
                consumer.close()
            for bus in self._buses:
                bus.close()

    def stop(self) -> None:
        """Stop from any thread or signal handler; twice, or when it has ended already, is harmless."""
        with contextlib.suppress(OSError):
            os.write(self._stop_writer, STOP)

    def _consume(self, bus: Served) -> None:
        settler = Settler(bus.transport, bus.dead_letter_queue)
        middleware = (*self._options.middleware, *bus.middleware)
        bus.transport.declare(settler.topology())
        self._settlers.append(settler)
        for endpoint in bus.endpoints():
            topology = endpoint.topology()
            bus.transport.declare(topology)
            wanted = self._options.queues
            queues = [queue for queue in _queues_of(endpoint, topology.queues) if not wanted or queue.name in wanted]
            if queues:
                on_delivery = self._put_into_slots(endpoint, settler, middleware)
                consumer = bus.transport.consume(queues, on_delivery, prefetch=self._watch.prefetch)
                self._consumers.append(consumer)
                self._watch.add(consumer)

    def _put_into_slots(
        self, endpoint: Endpoint, settler: Settler, middleware: tuple[Middleware, ...]
    ) -> Callable[[Delivery], None]:
        def put(delivery: Delivery) -> None:
            self._slots.put(Work(delivery, endpoint, settler, middleware))

        return put

    def _stop_when_told(self, supervisor_pipe: int | None) -> None:
        watched = [self._stop_reader] + ([supervisor_pipe] if supervisor_pipe is not None else [])
        told = b""
        while not set(told) & _STOP_BYTES:  # other signals write there too, a handler's SIGCHLD or SIGALRM
            readable, _, _ = select.select(watched, [], [])
            if supervisor_pipe in readable:
                logger.warning("the supervisor is gone; finishing what runs, then ending")
                break
            told = os.read(self._stop_reader, 4096)
        for consumer in self._consumers:
            consumer.cancel()
        self._watch.stop()
        self._slots.stop()


def _leave_to_wakeup(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has told the control thread already."""


def _queues_of(endpoint: Endpoint, declared: Sequence[Queue]) -> list[Queue]:
    by_name = {queue.name: queue for queue in declared}
    missing = [name for name in endpoint.queues() if name not in by_name]
    if missing:
        raise ConfigError(f"{type(endpoint).__name__} serves queues that it does not declare: {', '.join(missing)}")
    return [by_name[name] for name in endpoint.queues()]
