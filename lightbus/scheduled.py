"""The function under `@bus.schedule`, seen as a listener: the event that says that it is due, and how it is called."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from datetime import datetime
from typing import Any

from .core.api import Api, Event


def due_event(app: str, name: str) -> type[Any]:
    """The event class `<app>.schedule.<name>.due`, with the slot in ISO 8601 as its only field."""

    class due(Event, frozen=True, kw_only=True):
        slot: str

    types.new_class(
        f"Schedule_{name}", (Api,), {"name": f"{app}.schedule.{name}", "version": "1.0"},
        lambda namespace: namespace.update(due=due, __module__=__name__),
    )  # fmt: skip
    return due


def listening(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """`function` as a listener: called with the slot if it takes one, else without arguments."""
    takes_slot = bool(inspect.signature(function).parameters)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def listen_async(event: Any) -> None:
            await function(*([datetime.fromisoformat(event.slot)] if takes_slot else []))

        return listen_async

    @functools.wraps(function)
    def listen(event: Any) -> None:
        function(*([datetime.fromisoformat(event.slot)] if takes_slot else []))

    return listen
