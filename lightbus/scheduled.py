"""The function under `@bus.schedule`, seen as a listener: the event that says that it is due, and how it is called."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from datetime import datetime
from typing import Any

from .core.api import Api, Event


def api_of(app: str, name: str) -> type[Api]:
    """The API `<app>.schedule.<name>` with the event `due`, whose only field is the slot in ISO 8601.

    Python forgets a class that nobody holds, so whoever wants it found among the APIs keeps it.
    """

    class due(Event, frozen=True, kw_only=True):
        slot: str

    return types.new_class(
        f"Schedule_{name}", (Api,), {"name": f"{app}.schedule.{name}", "version": "1.0"},
        lambda namespace: namespace.update(due=due, __module__=__name__),
    )  # fmt: skip


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
