"""Where handlers pass that may run only so many at a time: each with a permit, which it gives back at its end.

What finds no permit waits here for a moment, since a quick handler frees one soon. Then it goes back to its queue, and
the queue is left to other workers until there is a permit again: so nobody waits behind a long handler whom another
worker could serve, what waits keeps its place in the queue, and no message travels in circles. For that each limited
queue has a consumer of its own (`Valve`).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.concurrency import HOLD_SECONDS, LEASE_SECONDS, Concurrency
from ..core.errors import ConfigError, TransportError
from ..core.topology import Queue
from ..ports import Consumer, PermitStore, Transport
from .permits import Permits

if TYPE_CHECKING:
    from .work import Work

logger = logging.getLogger("lightbus.worker")

#: How often a permit that other processes hold is asked for: while a message waits here, while it waits in its queue,
#: and where the broker is asked.
WAITING_SECONDS, SHUT_SECONDS, ASKING_SECONDS = 0.01, 0.05, 0.1
#: A process that has a permit and opens its queue keeps it so long for the first message.
SPARE_SECONDS = 0.5

Permit = int | str  #: of this worker, or of the broker


class Valve:
    """The consumer of one limited queue: holds no more messages than may run, and none while it is shut."""

    def __init__(self, consumer: Consumer, most: int, prefetch: int) -> None:
        self._consumer = consumer
        self._most = most
        self._prefetch = prefetch
        self._is_shut = False
        self._lock = threading.Lock()

    def set_prefetch(self, count: int) -> None:
        """See `Consumer`."""
        with self._lock:
            self._prefetch = count
            self._apply()

    def shut(self, is_shut: bool) -> None:
        """Take nothing, or go on. Any thread, does not wait."""
        with self._lock:
            self._is_shut = is_shut
            self._apply()

    def cancel(self) -> None:
        """See `Consumer`."""
        self._consumer.cancel()

    def close(self, *, timeout_seconds: float = 10.0) -> None:
        """See `Consumer`."""
        self._consumer.close(timeout_seconds=timeout_seconds)

    def _apply(self) -> None:
        self._consumer.set_prefetch(0 if self._is_shut else min(self._prefetch, self._most))


@dataclass(slots=True)
class _Line:
    """Those that want the permits of one name."""

    name: str
    limit: Concurrency
    store: PermitStore | None
    is_own: bool = False  #: nobody else reads its queue, so what waits need not go back
    waiting: deque[tuple[float, Work]] = field(default_factory=deque)
    valves: list[Valve] = field(default_factory=list)
    is_shut: bool = False
    spare: Permit | None = None
    spare_until: float = 0.0


class Turnstile:
    """See the head of this module.

    Args:
        again: called with a message that has waited and has a permit now, on the turnstile's thread.
    """

    def __init__(self, permits: Permits, again: Callable[[Work], None]) -> None:
        self._permits = permits
        self._again = again
        self._lines: dict[str, _Line] = {}  # by queue
        self._held: dict[int, tuple[_Line, Permit]] = {}  # by the identity of the delivery
        self._returned: list[tuple[_Line, Permit]] = []  # to the broker, which only the thread talks to: no slot waits
        self._kept_at = 0.0
        self._changed = threading.Condition()
        self._has_news = False
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, queue: Queue, name: str, transport: Transport) -> None:
        """Let the messages of `queue` pass by the permits of `name`.

        Raises:
            ConfigError: it is a limit of all workers together, and the broker cannot count it.
        """
        limit, store = self._permits.limits[name], None
        if limit.everywhere:
            if not (transport.capabilities.permits and isinstance(transport, PermitStore)):
                raise ConfigError(
                    f"{name!r} has a concurrency for all workers together, which {transport.capabilities.name} cannot "
                    "count; use Redis or the embedded broker, or a concurrency of each worker (without everywhere=True)"
                )
            store = transport
        self._lines[queue.name] = _Line(name, limit, store, is_own=queue.exclusive)

    def valve(self, queue: str, consumer: Consumer, prefetch: int) -> Consumer:
        """The consumer of a queue that was added, to be used in place of `consumer`."""
        line = self._lines[queue]
        valve = Valve(consumer, line.limit.most, prefetch)
        line.valves.append(valve)
        return valve

    def most(self, queue: str, prefetch: int) -> int:
        """The prefetch to consume `queue` with."""
        return min(prefetch, self._lines[queue].limit.most)

    @property
    def is_open(self) -> bool:
        """Nothing has a limit: no message need ask."""
        return not self._lines

    def admits(self, work: Work) -> bool:
        """Whether it may be handled now. Otherwise it waits here, or went back."""
        line = self._lines.get(work.delivery.queue)
        if line is None:
            return True
        key = id(work.delivery)
        with self._changed:
            if key in self._held:
                return True  # it has waited here
            if not line.waiting and (permit := self._at_hand(line)) is not None:
                self._held[key] = (line, permit)
                return True
            if self._closed or line.is_shut:
                work.delivery.release()
            else:
                line.waiting.append((time.monotonic(), work))
                self._tell()
        return False

    def leave(self, work: Work) -> None:
        """Its handler has ended, or is not called: its permit is free. Any thread, does not wait for the broker."""
        if not self._held:
            return
        with self._changed:
            held = self._held.pop(id(work.delivery), None)
            if held is not None:
                self._give_back(*held)
                self._tell()

    def waiting(self) -> list[Work]:
        """What waits here now; for a look. Any thread."""
        with self._changed:
            return [work for line in self._lines.values() for _, work in line.waiting]

    def close(self) -> list[Work]:
        """Nothing waits here any more; what did. What runs keeps its permits. Any thread."""
        with self._changed:
            self._closed = True
            found = [work for line in self._lines.values() for _, work in line.waiting]
            for line in self._lines.values():
                line.waiting.clear()
                self._give_spare_back(line)
            self._tell()
        return found

    def finish(self) -> None:
        """Give back all that is held: the process ends, and others need not wait for the end of its leases."""
        with self._changed:
            for held in self._held.values():
                self._give_back(*held)
            self._held.clear()
        self._free_returned()

    # -- under the lock ----------------------------------------------------------------------------------------------

    def _at_hand(self, line: _Line) -> Permit | None:
        if line.spare is not None:
            permit, line.spare = line.spare, None
            return permit
        return self._permits.take(line.name) if line.store is None else None

    def _give_back(self, line: _Line, permit: Permit) -> None:
        if isinstance(permit, int):
            self._permits.free(permit)
        else:
            self._returned.append((line, permit))

    def _give_spare_back(self, line: _Line) -> None:
        if line.spare is not None:
            self._give_back(line, line.spare)
            line.spare = None

    def _tell(self) -> None:
        self._has_news = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lightbus-turnstile", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _set_shut(self, line: _Line, is_shut: bool) -> None:
        line.is_shut = is_shut
        for valve in line.valves:
            valve.shut(is_shut)

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._free_returned()
            self._keep_leases()
            pauses = [self._look(line) for line in list(self._lines.values())]
            with self._changed:
                if not self._has_news:
                    self._changed.wait(min((pause for pause in pauses if pause is not None), default=None))
                self._has_news = False

    def _look(self, line: _Line) -> float | None:
        """Let those in who may pass, and say after which time to look again; None when a change will tell."""
        while self._wants(line) and (permit := self._take(line)) is not None:
            self._use(line, permit)
        now = time.monotonic()
        with self._changed:
            if line.spare is not None:
                if now < line.spare_until:
                    return line.spare_until - now
                self._give_spare_back(line)
                self._has_news = True
            if line.waiting and not line.is_own and now - line.waiting[0][0] >= HOLD_SECONDS:
                self._set_shut(line, True)  # first that, or what goes back would come here again
                while line.waiting:
                    line.waiting.popleft()[1].delivery.release()
            if line.waiting:
                return WAITING_SECONDS if line.store is None else ASKING_SECONDS
            if line.is_shut and not self._closed:
                return SHUT_SECONDS if line.store is None else ASKING_SECONDS
            runs = line.store is not None and any(one is line for one, _ in self._held.values())
            return LEASE_SECONDS / 5 if runs else None

    def _wants(self, line: _Line) -> bool:
        with self._changed:
            return bool(line.waiting) or (line.is_shut and not self._closed)

    def _take(self, line: _Line) -> Permit | None:
        if line.store is None:
            return self._permits.take(line.name)
        holder = uuid.uuid4().hex
        try:
            got = line.store.hold_permit(line.name, holder, line.limit.most, lease_seconds=LEASE_SECONDS)
        except TransportError as error:
            logger.warning("a permit of %s could not be asked for: %s", line.name, error)
            return None
        return holder if got else None

    def _use(self, line: _Line, permit: Permit) -> None:
        with self._changed:
            if line.waiting:
                _, work = line.waiting.popleft()
                self._held[id(work.delivery)] = (line, permit)
                self._again(work)
            elif line.is_shut and not self._closed:
                line.spare, line.spare_until = permit, time.monotonic() + SPARE_SECONDS
                self._set_shut(line, False)
            else:
                self._give_back(line, permit)

    def _free_returned(self) -> None:
        with self._changed:
            returned, self._returned = self._returned, []
        for line, permit in returned:
            assert line.store is not None
            try:
                line.store.free_permit(line.name, str(permit))
            except TransportError as error:
                logger.warning("a permit of %s is free only after its lease: %s", line.name, error)

    def _keep_leases(self) -> None:
        now = time.monotonic()
        if now - self._kept_at < LEASE_SECONDS / 5:
            return
        self._kept_at = now
        with self._changed:
            held = list(self._held.values())
        for line, permit in held:
            if line.store is None:
                continue
            try:
                kept = line.store.hold_permit(line.name, str(permit), line.limit.most, lease_seconds=LEASE_SECONDS)
            except TransportError as error:
                logger.warning("a permit of %s could not be kept: %s", line.name, error)
                continue
            if not kept:
                logger.warning("a permit of %s was given to another worker while its handler runs", line.name)
