"""The beat's process: one step after the other until it is asked to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from lightbus_scheduler import Firing, Runner

from ..core.message import Parcel
from ..ports import ScheduleStore
from .targets import Target


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def monotonic(self) -> float:
        return time.monotonic()


def parcels_of(firing: Firing) -> Sequence[Parcel]:
    """The messages of a firing, by its target."""
    target: Target = firing.job.target
    return target.parcels(firing)


def run(runner: Runner[Parcel], store: ScheduleStore, stop: threading.Event, on_step: Callable[[bool], None]) -> None:
    """Run until `stop` is set, then let another process lead.

    Args:
        on_step: told after each step whether this process leads.

    Raises:
        ScheduleStateError: what the store keeps cannot be read.
    """
    try:
        while not stop.is_set():
            seconds = runner.step()
            on_step(runner.leading)
            if seconds > 0 and not stop.is_set():
                store.wait(seconds)
    finally:
        runner.stop()
