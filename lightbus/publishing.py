"""Who looks on when a message is published: a hook is told before, may put a trace context on it, and is told the end.

Publishing is not wrapped, so that the way to the broker stays short: a hook returns a function, which is called when
the broker has taken charge of the message, or when a call has its answer. Without hooks none of this happens.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Publication:
    """A message that is about to be published.

    Attributes:
        kind: `event`, `call` or `task`.
        exchange: `""` for the default one; `routing_key` then names a queue.
        trace: W3C `traceparent` and `tracestate` that go with it; a hook may change them.
    """

    kind: str
    name: str
    id: str
    exchange: str
    routing_key: str
    trace: dict[str, str] = field(default_factory=dict)


#: Called before the publish; what it returns is called once at the end with the error, or None. From any thread.
PublishHook = Callable[[Publication], Callable[[BaseException | None], None]]


class PublishHooks:
    """The hooks of one app. False when there are none."""

    def __init__(self) -> None:
        self._hooks: tuple[PublishHook, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def add(self, *hooks: PublishHook) -> None:
        self._hooks += hooks

    def begin(self, publication: Publication) -> Callable[[Future[Any]], None]:
        """Tell all of them; the function to call with the future when it is done."""
        ends = [hook(publication) for hook in self._hooks]

        def end(done: Future[Any]) -> None:
            error = CancelledError() if done.cancelled() else done.exception()
            for finish in reversed(ends):
                finish(error)

        return end
