"""The beat's process: one step after the other until it is asked to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import msgspec

from lightbus_scheduler import Firing, Job, Runner

from ..core.message import Parcel
from ..ports import ScheduleStore
from .calls import Answers
from .ends import Ends, marked
from .targets import Target


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def monotonic(self) -> float:
        return time.monotonic()


class QuickJson:
    """See `lightbus_scheduler.ports.DefinitionText`: some times as quick as the standard library's."""

    def encode(self, definition: Mapping[str, Any]) -> bytes:
        # msgspec's own bytes were cut from a larger block, and keep more of it than they need: 3 MiB for 100,000
        return bytes(memoryview(msgspec.json.encode(definition)))

    def decode(self, text: bytes) -> Mapping[str, Any]:
        plain: Mapping[str, Any] = msgspec.json.decode(text)
        return plain


def parcels_of(firing: Firing) -> Sequence[Parcel]:
    """The messages of a firing, by its target."""
    target: Target = firing.job.target
    if firing.cancels:
        target.cancel(firing.cancels)
    return marked(firing, target.parcels(firing))


def may_run(job: Job, message_id: str) -> bool:
    """Whether what the message of that id fired may still run; see `Runner.may_run`."""
    target: Target = job.target
    return target.may_run(message_id)


def run(
    runner: Runner[Parcel], store: ScheduleStore, ends: Ends, answers: Answers, stop: threading.Event,
    on_step: Callable[[bool], None],
) -> None:  # fmt: skip
    """Run until `stop` is set, then let another process lead.

    Args:
        on_step: told after each step whether this process leads.

    Raises:
        ScheduleStateError: what the store keeps cannot be read.
    """
    try:
        while not stop.is_set():
            if runner.looks_at_ends:
                ends.pass_on(runner.note_ends)
            if not runner.leading:
                answers.forget()
            elif answers.is_used:
                answers.log()
            seconds = runner.step()
            on_step(runner.leading)
            if seconds > 0 and not stop.is_set():
                store.wait(seconds)
    finally:
        runner.stop()
