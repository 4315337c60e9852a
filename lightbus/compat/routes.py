"""Celery's `task_routes`: which queue a task's name routes to.

Understood are a mapping, a sequence of `(pattern, options)` pairs, a router that is code (a function, an object with
`route_for_task`, or the path of one), and a sequence of these; patterns are names, globs and compiled regular
expressions. A router that is code is called with no arguments of the task, because routes decide here by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import translate

from ..core.errors import ConfigError
from .loading import import_path


def queue_from_routes(routes: object) -> Callable[[str, Mapping[str, object]], str]:
    """The function that answers "which queue?" for a name and its options; `""` where the routes say nothing.

    The option `queue` wins over every route. The first route that matches is taken; an exact name wins over a pattern
    of the same mapping, as in Celery.

    Raises:
        ConfigError: the routes have a form that is not understood.
    """
    tables = [_Code(one) if callable(one) else _Table(one) for one in _split(routes)]

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


class _Code:
    """A router that is code: it gives a queue, options with one, or None."""

    def __init__(self, router: Callable[..., object]) -> None:
        self._router = router

    def queue_of(self, name: str) -> str | None:
        answer = self._router(name, (), {}, {}, task=None)
        return None if answer is None else _queue_name(name, answer) or None


def _split(routes: object) -> Iterator[list[tuple[object, object]] | Callable[..., object]]:
    if routes is None:
        return
    if isinstance(routes, str):
        try:
            routes = import_path(routes)
        except ImportError as error:
            raise ConfigError(f"task_routes: the router {routes!r} cannot be imported: {error}") from error
        routes = routes() if isinstance(routes, type) else routes
    if not isinstance(routes, Mapping) and (hasattr(routes, "route_for_task") or callable(routes)):
        yield _router_of(routes)
        return
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


def _router_of(router: object) -> Callable[..., object]:
    if not hasattr(router, "route_for_task"):
        return router  # type: ignore[return-value]  # the caller has looked
    older = router.route_for_task
    return lambda name, args, kwargs, options, task=None: older(name, args, kwargs)


def _queue_name(pattern: object, options: object) -> str:
    """Celery allows `"queue"` and `{"queue": ...}`; a queue may be an object with a name."""
    queue = options.get("queue") if isinstance(options, Mapping) else options
    if queue is None:
        return ""  # a route that sets only a priority or the like: the default queue
    return queue if isinstance(queue, str) else str(getattr(queue, "name", queue))
