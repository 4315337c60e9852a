"""What a process answers to remote control, and what it carries out: its side of the words `ask`, `tell`, `terminate`.

Called on the control thread, so nothing here waits for a handler or a broker; what must, goes to a thread of its own.
"""

from __future__ import annotations

import inspect
import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import LightbusError, Terminated
from ..core.topology import Queue
from ..endpoint import Endpoint, Steerable
from ..ports import Consumer, Delivery, Transport
from .runs import Run, Runs
from .slots import Slots

logger = logging.getLogger("lightbus.worker")

MOST_BYTES = 48_000  #: of one answer: it travels in one datagram


@dataclass(slots=True)
class Subscription:
    """Queues of one endpoint that are consumed together."""

    transport: Transport
    endpoint: Endpoint
    queues: list[Queue]
    on_delivery: Callable[[Delivery], None]
    consumer: Consumer

    @property
    def names(self) -> list[str]:
        return [queue.name for queue in self.queues]


class Steering:
    """The steerable part of a process.

    Args:
        subscriptions: changed here when queues are added or left.
        on_consumer: told of each new consumer.
        prefetch: how many messages the process may hold now.
        about_to_end: called before a handler is given up for which the process then has to end.
    """

    def __init__(
        self, slots: Slots, runs: Runs, subscriptions: list[Subscription], on_consumer: Callable[[Consumer], None],
        prefetch: Callable[[], int], about_to_end: Callable[[], None],
    ) -> None:  # fmt: skip
        self._slots = slots
        self._runs = runs
        self._subscriptions = subscriptions
        self._on_consumer = on_consumer
        self._prefetch = prefetch
        self._about_to_end = about_to_end
        self._changing = threading.Lock()

    def answer(self, what: str) -> object:
        """In JSON's types; None for a question that is not known."""
        match what:
            case "active":
                now, wall = time.monotonic(), time.time()
                return _fitting(self._describe_run(run, wall - now) for run in self._runs.running())
            case "reserved":
                return _fitting(_describe(work.endpoint, work.delivery) for work in self._slots.waiting())
            case "queues":
                steerable = [one for one in list(self._subscriptions) if isinstance(one.endpoint, Steerable)]
                return [name for one in steerable for name in one.names]
            case "counts":
                return {"total": self._runs.totals(), "prefetch": self._prefetch()}
        return None

    def tell(self, word: str, value: Mapping[str, object]) -> None:
        """Carry out a change that all processes are told of."""
        match word:
            case "add_queue" | "leave_queue":
                action = self._add_queue if word == "add_queue" else self._leave_queue
                threading.Thread(
                    target=action, args=(str(value["queue"]),), name="lightbus-queues", daemon=True
                ).start()
            case _:
                for endpoint in {id(one.endpoint): one.endpoint for one in self._subscriptions}.values():
                    if isinstance(endpoint, Steerable):
                        endpoint.change(word, value)

    def terminate(self, ids: Collection[str], signum: int) -> bool:
        """End the runs of these tasks; True when the process has to end for it.

        A coroutine is cancelled. A plain handler ends only with its process, so it goes on where others have threads.
        """
        must_end = False
        for run in self._runs.running():
            if run.invocation.kind != "task" or run.invocation.id not in ids:
                continue
            if inspect.iscoroutinefunction(run.invocation.function):
                self._slots.cancel(run, Terminated(signum))
            elif self._slots.loads()[0].places > 1:
                logger.warning(
                    "a handler on one of several threads cannot be terminated, it goes on name=%s id=%s",
                    run.invocation.name, run.invocation.id,
                )  # fmt: skip
            elif self._runs.finish(run):
                self._about_to_end()
                logger.warning("terminated, the process ends name=%s id=%s", run.invocation.name, run.invocation.id)
                self._slots.give_up(run, Terminated(signum))
                must_end = True
        return must_end

    def _describe_run(self, run: Run, wall_offset: float) -> dict[str, object]:
        about = _describe(run.work.endpoint, run.work.delivery)
        return {**about, "acknowledged": run.invocation.ack_early, "time_start": run.started + wall_offset}

    def _add_queue(self, name: str) -> None:
        with self._changing:
            if any(name in one.names for one in self._subscriptions):
                return
            for one in list({id(one.endpoint): one for one in self._subscriptions}.values()):
                topology = one.endpoint.add_queue(name) if isinstance(one.endpoint, Steerable) else None
                if topology is None:
                    continue
                try:
                    one.transport.declare(topology)
                    queues = [queue for queue in topology.queues if queue.name == name]
                    consumer = one.transport.consume(queues, one.on_delivery, prefetch=self._prefetch())
                except LightbusError as error:
                    logger.error("queue %r could not be added: %s", name, error)
                    return
                self._on_consumer(consumer)
                self._subscriptions.append(Subscription(one.transport, one.endpoint, queues, one.on_delivery, consumer))
                logger.info("queue %r is consumed too", name)
                return

    def _leave_queue(self, name: str) -> None:
        with self._changing:
            for one in self._subscriptions:
                if name not in one.names:
                    continue
                one.consumer.cancel()  # what it holds is settled through it all the same
                one.queues = [queue for queue in one.queues if queue.name != name]
                try:
                    if one.queues:
                        one.consumer = one.transport.consume(one.queues, one.on_delivery, prefetch=self._prefetch())
                        self._on_consumer(one.consumer)
                except LightbusError as error:
                    logger.error("after leaving queue %r the others could not be consumed: %s", name, error)
                logger.info("queue %r is not consumed any longer", name)
                return


def _describe(endpoint: Endpoint, delivery: Delivery) -> dict[str, Any]:
    if isinstance(endpoint, Steerable):
        return endpoint.describe(delivery)
    return {"id": delivery.wire.message_id, "name": endpoint.kind, "queue": delivery.queue}


def _fitting(items: Iterable[dict[str, object]]) -> Sequence[dict[str, object]]:
    """As many as travel at once."""
    found: list[dict[str, object]] = []
    size = 0
    for item in items:
        size += len(json.dumps(item, default=repr))
        if size > MOST_BYTES:
            logger.info("not all that this process holds fits into an answer; it names %d", len(found))
            break
        found.append(item)
    return found
