"""`lightbus worker --http`: the metrics of a worker, and the port where they are served with its health."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..bus import Bus
    from ..contrib.metrics import SharedMetrics
    from ..outbox import RelayWatcher
    from ..report import Observer
    from ..worker import Sign
    from .apps import LoadedApp

logger = logging.getLogger("lightbus.worker")


class Monitoring:
    """Made before the app is loaded, because prometheus_client has to be told first how processes count together."""

    def __init__(self, address: str) -> None:
        from ..worker.http import HttpPort  # here, since the server's modules take a while to load

        self._shared: SharedMetrics | None = None
        if importlib.util.find_spec("prometheus_client") is not None:
            from ..contrib.metrics import SharedMetrics

            self._shared = SharedMetrics()
        shared = self._shared
        if shared is None:
            self.port = HttpPort(address, None)
            return
        try:
            self.port = HttpPort(address, shared.page, if_orphaned=shared.remove)
        except BaseException:
            shared.remove()
            raise

    def observers_of(self, app: LoadedApp, buses: Sequence[Bus]) -> tuple[Observer, ...]:
        """What the worker's processes tell of each message; and from now on what they publish is counted."""
        if self._shared is None:
            return ()
        from ..contrib.metrics import instrument

        targets = [*buses] if app.task_app is None else [*buses, app.task_app]
        return (instrument(*targets).observe,)

    def relay_watcher(self) -> RelayWatcher | None:
        """What the relays of outboxes tell. Before any process is forked."""
        if self._shared is None:
            return None
        from ..contrib.metrics import RelayMeter

        return RelayMeter()

    def say_port(self) -> None:
        """Where it is to be had, in the log."""
        logger.info("health and metrics are served on port %d", self.port.number)

    def begun(self) -> Sign:
        """For a program without a supervisor: serves from now on, and wants to be told of the program's health."""
        from ..worker.companions import Companions
        from ..worker.snapshot import Snapshot

        snapshot = Snapshot()
        companions = Companions([self.port.served(snapshot)], snapshot)
        self.say_port()
        companions.begin()
        return companions

    def close(self) -> None:
        self.port.close()
        if self._shared is not None:
            self._shared.remove()


@contextmanager
def monitored(address: str | None) -> Iterator[Monitoring | None]:
    """The monitoring, closed after the block; None where none is asked for."""
    if address is None:
        yield None
        return
    monitoring = Monitoring(address)
    try:
        yield monitoring
    finally:
        monitoring.close()
