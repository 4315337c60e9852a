"""What is over its rate waits here, and not in a slot: for a moment in memory, for longer in the broker. What finds no
permit to run waits in the turnstile.

A message that waits in memory counts as one that the process holds, so only half of what it may hold can wait; the rest
goes to the broker with a delay, and comes back to its queue about when its turn is. Others pass meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ..core.errors import ConfigError, TransportError
from ..core.message import Route
from ..core.outcome import Forward, Outcome, Requeue
from ..core.rate import MOST_HELD_SECONDS, Turn
from ..endpoint import Endpoint, Rated
from ..ports import RateStore, Transport
from .holds import Holds
from .permits import Permits
from .rates import Rates
from .turnstile import Turnstile

if TYPE_CHECKING:
    from .work import Work

logger = logging.getLogger("lightbus.worker")


class Gate:
    """Asks for a turn, and for a permit, before a message is handled.

    Args:
        again: called with a message whose turn has come, on a thread of the gate's.
        room: how many messages may wait for their rate at a time.

    Attributes:
        turnstile: asked for permits; it has a queue's consumer hold no more than can run.
    """

    def __init__(self, rates: Rates, permits: Permits, again: Callable[[Work], None], room: Callable[[], int]) -> None:
        self._rates = rates
        self.turnstile = Turnstile(permits, again)
        self._room = room
        self._stores: dict[str, RateStore] = {}
        self._holds = Holds(again)
        self._asking = threading.Lock()

    def add(self, endpoint: Endpoint, transport: Transport) -> None:
        """Before the first message of `endpoint`.

        Raises:
            ConfigError: it has a rate for all workers together, and the broker cannot count it.
        """
        for name in endpoint.rates() if isinstance(endpoint, Rated) else ():
            if self._rates.is_everywhere(name):
                if not (transport.capabilities.rates and isinstance(transport, RateStore)):
                    raise ConfigError(
                        f"{name!r} has a rate for all workers together, which {transport.capabilities.name} cannot "
                        "count; use Redis or the embedded broker, or a rate of each worker (without everywhere=True)"
                    )
                self._stores[name] = transport

    @property
    def is_open(self) -> bool:
        """Nothing has a rate or a limit: no message need ask."""
        return not self._rates.any and self.turnstile.is_open

    def judge(self, work: Work) -> Outcome | bool:
        """True: handle it now, and then `leave`. False: it is cared for. An outcome: it waits elsewhere."""
        verdict = True if work.admitted else self._judge_rate(work)
        return self.turnstile.admits(work) if verdict is True else verdict

    def leave(self, work: Work) -> None:
        """Its handler has ended, or it goes back without one."""
        if not self.turnstile.is_open:
            self.turnstile.leave(work)

    def _judge_rate(self, work: Work) -> Outcome | bool:
        endpoint = work.endpoint
        name = endpoint.rate_name(work.delivery) if isinstance(endpoint, Rated) else None
        if name is None or not (interval := self._rates.interval_seconds(name)):
            return True
        with self._asking:  # held over the question, so that there is still room at its answer
            most = MOST_HELD_SECONDS if self._holds.count < self._room() else 0.0
            try:
                turn = self._turn(name, interval, most)
            except TransportError as error:
                logger.warning("rate of %s could not be asked for, its message goes back: %s", name, error)
                return Requeue()
            if turn.granted:
                if not turn.wait_seconds:
                    return True
                self._holds.put(work, turn.wait_seconds)
                return False
        # Its expiry would run off in the broker: when it is back, its own headers say whether it is too late.
        wire = msgspec.structs.replace(work.delivery.wire, expiration_seconds=None)
        return Forward(Route("", work.delivery.queue), wire, turn.wait_seconds, verdict="throttled")

    def waiting(self) -> list[Work]:
        """What waits here now; for a look. Any thread."""
        return self._holds.waiting() + self.turnstile.waiting()

    def close(self) -> list[Work]:
        """Nothing waits here any more; what did. Any thread."""
        return self._holds.close() + self.turnstile.close()

    def _turn(self, name: str, interval_seconds: float, most_wait_seconds: float) -> Turn:
        store = self._stores.get(name)
        if store is None:
            return self._rates.take(name, most_wait_seconds=most_wait_seconds)
        return store.take_turn(name, interval_seconds, most_wait_seconds=most_wait_seconds)
