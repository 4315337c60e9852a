"""Relays on threads of their own, for `lightbus outbox relay` and for the processes of a worker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..core.errors import ConfigError
from ..outbox import Relay, RelayOptions, RelayWatcher
from ..ports import Transport

if TYPE_CHECKING:
    from ..bus import Bus

logger = logging.getLogger("lightbus.outbox")

AGAIN_SECONDS = 5.0  #: after a defect
STOP_SECONDS = 15.0  #: for what a relay has under way; the broker is waited for no longer than that


class RelayThread:
    """One relay with a connection of its own."""

    def __init__(self, relay: Relay, transport: Transport) -> None:
        self._relay = relay
        self._transport = transport
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lightbus-relay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Have it end; `join` waits for that."""
        self._stopped.set()
        self._relay.stop()

    def join(self) -> None:
        self._thread.join(STOP_SECONDS)
        self._transport.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._relay.run()
            except Exception:  # nobody else would see it, and the others wait for what this one does
                logger.exception("a relay failed; it begins again in %g s", AGAIN_SECONDS)
                self._stopped.wait(AGAIN_SECONDS)


@contextmanager
def relaying(
    buses: Sequence[Bus], options: RelayOptions, watcher: RelayWatcher | None = None
) -> Iterator[list[RelayThread]]:
    """Relays for all outboxes of `buses` within the block.

    Raises:
        ConfigError: there is none.
    """
    threads: list[RelayThread] = []
    check_outboxes(buses)
    try:
        for bus in buses:
            for store in bus.outboxes():
                transport = bus.open_another_transport()
                threads.append(RelayThread(Relay(store, transport, options, watcher), transport))
        yield threads
    finally:
        for thread in threads:
            thread.stop()
        for thread in threads:
            thread.join()


def check_outboxes(buses: Sequence[Bus]) -> None:
    """Raises ConfigError: there is nothing to relay."""
    if not any(bus.outboxes() for bus in buses):
        raise ConfigError(
            "this app has no outbox: make one beside its bus, with Outbox of lightbus.contrib.outbox.sqlalchemy or "
            "lightbus.contrib.outbox.django; is the module that makes it imported?"
        )
