"""Answers what is asked about a worker, from beside the supervisor: also while all handlers are busy."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..core.description import Description
from ..core.errors import AccessRefused, LightbusError, TopologyMismatch
from ..describing import Answerer, Load
from ..ports import Transport
from .companions import Companion, Run
from .snapshot import Snapshot

logger = logging.getLogger("lightbus.worker")

LOOK_SECONDS = 0.5
ENDING_SECONDS = 2.0  #: what the thread of a worker without a supervisor gets to take its queues away
FIRST_PAUSE_SECONDS = 1.0  #: before a broker that could not be reached is tried again; doubled each time
LONGEST_PAUSE_SECONDS = 30.0

#: What the worker is: one description per app, with the way to that app's broker.
DescribeAll = Callable[[], Sequence[tuple[Transport, Description]]]


def answers(describe_all: DescribeAll, snapshot: Snapshot) -> Companion:
    """Answers from when the worker is ready until it stops.

    Args:
        describe_all: called in the process beside the supervisor.
    """

    def load_now() -> Load:
        health, _ = snapshot.read()
        return Load(processes=health.processes, slots=health.slots, busy=health.busy)

    def load() -> Run:
        apps = describe_all()
        return lambda until: answer_until(lambda: until.wait(LOOK_SECONDS), apps, load_now)

    return Companion(does="answers what is asked about this worker", load=load, ends_with_stop=True)


@contextmanager
def answered_here(describe_all: DescribeAll, load: Callable[[], Load]) -> Iterator[None]:
    """Answer from a thread of this process inside the block: where a worker has no supervisor."""
    stop = threading.Event()
    thread = threading.Thread(
        target=lambda: answer_until(lambda: stop.wait(LOOK_SECONDS), describe_all(), load), name="lightbus-answers",
        daemon=True,
    )  # fmt: skip
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(ENDING_SECONDS)


def answer_until(
    is_over: Callable[[], bool], apps: Sequence[tuple[Transport, Description]], load: Callable[[], Load]
) -> None:
    """Answer for each of `apps` until `is_over`, which takes a moment to say so.

    A broker that is away is tried again; one that refuses the queue, and so the question, is said once.
    """
    waiting = [Answerer(transport, description, load) for transport, description in apps]
    answering: list[Answerer] = []
    pause, due = FIRST_PAUSE_SECONDS, 0.0
    while True:
        if waiting and time.monotonic() >= due:
            answering += (begun := [one for one in waiting if _begins(one)])
            waiting = [one for one in waiting if one not in begun and not one.is_refused]
            due = time.monotonic() + pause
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        if is_over():
            break
    for one in answering:
        one.close()


def _begins(answerer: Answerer) -> bool:
    try:
        answerer.start()
    except (AccessRefused, TopologyMismatch) as error:  # RabbitMQ's 403 for an exchange or a queue is the second
        answerer.is_refused = True
        logger.warning("nobody can ask this worker what it serves, and all else goes on: %s", error)
    except LightbusError as error:
        logger.info("this worker cannot be asked what it serves, for now: %s", error)
    else:
        return True
    return False
