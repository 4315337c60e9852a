"""Celery's `task_routes`: which queue a task's name routes to. Pure.

Understood are a mapping, a sequence of `(pattern, options)` pairs, and a sequence of either; patterns are names, globs
and compiled regular expressions. A router that is a function or an import path is Celery's own business: the bridge
asks Celery for its answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import translate

from ..core.errors import ConfigError


def queue_from_routes(routes: object) -> Callable[[str, Mapping[str, object]], str]:
    """The function that answers "which queue?" for a name and its options; `""` where the routes say nothing.

    The option `queue` wins over every route. The first route that matches is taken; an exact name wins over a pattern
    of the same mapping, as in Celery.

    Raises:
        ConfigError: the routes have a form that is not understood.
    """
    tables = [_Table(one) for one in _split(routes)]

    def queue_of(name: str, options: Mapping[str, object]) -> str:
        asked = options.get("queue")
        if asked:
            return asked if isinstance(asked, str) else str(getattr(asked, "name", asked))
        for table in tables:
            queue = table.queue_of(name)
            if queue is not None:
                return queue
        return ""

    return queue_of


class _Table:
    """One mapping of names and patterns to queues."""

    def __init__(self, pairs: list[tuple[object, object]]) -> None:
        self._exact: dict[str, str] = {}
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        for pattern, options in pairs:
            queue = _queue_name(pattern, options)
            if isinstance(pattern, re.Pattern):
                self._patterns.append((pattern, queue))
            elif isinstance(pattern, str) and "*" in pattern:
                self._patterns.append((re.compile(translate(pattern)), queue))
            elif isinstance(pattern, str):
                self._exact[pattern] = queue
            else:
                raise ConfigError(f"task_routes: {pattern!r} is no name, glob or compiled pattern")

    def queue_of(self, name: str) -> str | None:
        if name in self._exact:
            return self._exact[name]
        return next((queue for pattern, queue in self._patterns if pattern.match(name)), None)


def _split(routes: object) -> Iterator[list[tuple[object, object]]]:
    if routes is None or isinstance(routes, str) or callable(routes):
        if routes is None:
            return
        raise ConfigError(
            f"task_routes: the router {routes!r} is code; pass Settings(queue_of=...) or install the bridge, which asks"
            " the Celery app"
        )
    if isinstance(routes, Mapping):
        yield list(routes.items())
        return
    if not isinstance(routes, (list, tuple)):
        raise ConfigError(f"task_routes must be a mapping or a sequence, got {routes!r}")
    if len(routes) == 2 and isinstance(routes[0], (str, re.Pattern)) and isinstance(routes[1], (str, Mapping)):
        yield [(routes[0], routes[1])]
        return
    for one in routes:
        yield from _split(one)


def _queue_name(pattern: object, options: object) -> str:
    """Celery allows `"queue"` and `{"queue": ...}`; a queue may be an object with a name."""
    queue = options.get("queue") if isinstance(options, Mapping) else options
    if queue is None:
        return ""  # a route that sets only a priority or the like: the default queue
    return queue if isinstance(queue, str) else str(getattr(queue, "name", queue))
