"""What is written into an outbox: events of a bus, and tasks of `lightbus.compat`, encoded when they are written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ... import Event
from ...core.message import Parcel
from ...core.outbox import Entry, entry_of


class Sendable(Protocol):
    """A task, as `lightbus.compat.task` makes one."""

    name: Any

    def parcel(self, args: Any = None, kwargs: Any = None) -> Parcel:
        """The message of a call with these arguments. Connects to nothing."""


def entry_of_event(event: Event, parcel: Parcel) -> Entry:
    """The entry of `event`, which `bus.parcel_of` made a parcel of.

    Raises:
        Unwritable: a header has no JSON form.
    """
    spec = type(event).spec
    return entry_of(parcel, kind="event", name="" if spec is None else spec.name, now=time.time())


def entry_of_task(task: Sendable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Entry:
    """Raises TypeError, ValueError: the arguments do not fit the function, or have no JSON form."""
    return entry_of(task.parcel(args, kwargs), kind="task", name=str(task.name), now=time.time())
