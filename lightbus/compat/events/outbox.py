"""Publishes events from a thread of its own: in batches, bounded, without waiting for the broker."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...core.errors import LightbusError
from ...core.message import Wire
from ...core.topology import Exchange
from ...ports import Announces, Transport
from ..serializers import encode

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000  #: events; those that come while so many wait are dropped
BATCH = 100  #: events in one message, at most
GATHER_SECONDS = 0.1  #: how long the first of a batch waits for others


@dataclass(frozen=True, slots=True)
class Post:
    """Where events go, and in which form."""

    exchange: str
    serializer: str


@dataclass(frozen=True, slots=True)
class Letter:
    """One event, as an object of plain values.

    Attributes:
        alone: published as one message under `routing_key`; else in a list with its neighbours under `task.multi`.
    """

    event: dict[str, Any]
    hostname: str
    routing_key: str
    alone: bool


class Outbox:
    """One per process; a forked child begins with an empty one.

    Args:
        transport, post: asked at each batch, since the program may have opened or set another one.
    """

    def __init__(self, transport: Callable[[], Transport], post: Callable[[], Post]) -> None:
        self._transport = transport
        self._post = post
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._waiting: deque[Letter] = deque()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._complained = False

    def put(self, letter: Letter) -> None:
        """Any thread; does not wait."""
        if self._pid != os.getpid():
            self._reset()
        if len(self._waiting) >= MOST_WAITING:
            self._complain("too many of them wait")
            return
        self._waiting.append(letter)
        if self._thread is None:
            self._start()
        if not self._news.is_set():
            self._news.set()

    def close(self, timeout_seconds: float) -> None:
        """Publish what waits, within the timeout. Later letters open it again."""
        thread = self._thread if self._pid == os.getpid() else None
        if thread is None:
            return
        self._closing.set()
        self._news.set()
        thread.join(timeout_seconds)
        self._reset()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._publish_all, args=(self._waiting, self._news, self._closing), name="lightbus-events",
                    daemon=True,
                )  # fmt: skip
                self._thread.start()

    def _publish_all(self, waiting: deque[Letter], news: threading.Event, closing: threading.Event) -> None:
        while not closing.is_set():
            news.wait()
            closing.wait(GATHER_SECONDS)
            news.clear()
            while waiting:
                self._publish_batch(waiting)

    def _publish_batch(self, waiting: deque[Letter]) -> None:
        """The first that waits, and those behind it that go into the same message."""
        first = waiting.popleft()
        events = [first.event]
        while not first.alone and waiting and len(events) < BATCH:
            following = waiting[0]
            if following.alone or following.hostname != first.hostname:
                break
            events.append(waiting.popleft().event)
        routing_key = first.routing_key if first.alone else "task.multi"
        try:
            post = self._post()
            encoded = encode(first.event if first.alone else events, post.serializer)
            wire = Wire(
                body=encoded.body, content_type=encoded.content_type, content_encoding=encoded.content_encoding,
                headers={"hostname": first.hostname}, priority=0, durable=False,
            )  # fmt: skip
            transport = self._transport()
            if not isinstance(transport, Announces):
                raise TypeError(f"{transport.capabilities.name} has no messages for whoever listens")
            transport.announce(wire, Exchange(post.exchange, "topic"), routing_key)
        except (LightbusError, ValueError, TypeError, OSError) as error:
            self._complain(error)
        else:
            self._complained = False

    def _complain(self, why: object) -> None:
        """Once, until it works again."""
        if not self._complained:
            self._complained = True
            logger.warning("events are lost, tasks are not: %s", why)
