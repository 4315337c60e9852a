"""The caller's side of remote control: `app.control` and `app.control.inspect()`, by Celery's names.

Workers of Celery and of Lightbus hear it alike. kombu's pidbox is loaded on first use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ..core.topology import TASK_QUEUE_PREFIX

if TYPE_CHECKING:
    from .app import TaskApp

Reply = Any
Replies = list[dict[str, Reply]]
Callback = Callable[[dict[str, Reply]], None]


class Control:
    """Tells all workers something, or those in `destination`; the signatures are Celery's.

    `**options` of its methods are those of `broadcast`. What is not waited for returns None.
    """

    def __init__(self, app: TaskApp) -> None:
        self._app = app

    def inspect(
        self,
        destination: Sequence[str] | str | None = None,
        timeout: float = 1.0,
        callback: Callback | None = None,
        connection: Any = None,
        app: TaskApp | None = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> Inspect:
        """What workers are at; the arguments are those of `broadcast`."""
        control = self if app is None else app.control
        return Inspect(control, destination, timeout, callback, connection, limit, pattern, matcher)

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Sequence[str] | str | None = None,
        connection: Any = None,
        reply: bool = False,
        timeout: float | None = 1.0,
        limit: int | None = None,
        callback: Callback | None = None,
        channel: Any = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **extra_arguments: Any,
    ) -> Replies | None:
        """Send a command.

        Args:
            destination: names of nodes; None for all.
            connection, channel: of kombu, to use in place of a new one.
            reply: wait for the answers, until none has come for `timeout` seconds (None: for 1) or there are `limit` of
                them: as many as destinations, by default.
            callback: called with each answer as it comes.
            pattern, matcher: only nodes whose names match; `glob` or `pcre`.
            extra_arguments: join `arguments`.

        Returns:
            One mapping of the node's name to its answer for each node, where `reply` is set; else None.

        Raises:
            OperationalError: kombu's: the broker is away.
        """
        from .remote.mailbox import Question, ask

        names = [destination] if isinstance(destination, str) else destination
        if limit is None and names:
            limit = len(names)
        question = Question(
            command, {**(arguments or {}), **extra_arguments}, names, reply=reply,
            timeout_seconds=1.0 if timeout is None else timeout, limit=limit, callback=callback, pattern=pattern,
            matcher=matcher,
        )  # fmt: skip
        return ask(self._app, question, connection, channel)

    def ping(self, destination: Sequence[str] | None = None, timeout: float = 1.0, **options: Any) -> Replies | None:
        """`[{"lightbus@host": {"ok": "pong"}}, ...]`."""
        return self.broadcast("ping", destination=destination, reply=True, timeout=timeout, **options)

    def revoke(
        self, task_id: str | Sequence[str], destination: Sequence[str] | None = None, terminate: bool = False,
        signal: str | int | None = "SIGTERM", **options: Any,
    ) -> Replies | None:  # fmt: skip
        """Have no worker begin the task; with `terminate`, end it where it runs."""
        about = {"task_id": task_id, "terminate": terminate, "signal": signal}
        return self.broadcast("revoke", about, destination, **options)

    def terminate(
        self, task_id: str | Sequence[str], destination: Sequence[str] | None = None,
        signal: str | int | None = "SIGTERM", **options: Any,
    ) -> Replies | None:  # fmt: skip
        """As `revoke` with `terminate`."""
        return self.revoke(task_id, destination, terminate=True, signal=signal, **options)

    def revoke_by_stamped_headers(
        self, headers: Mapping[str, Any], destination: Sequence[str] | None = None, terminate: bool = False,
        signal: str | int | None = "SIGTERM", **options: Any,
    ) -> Replies | None:  # fmt: skip
        """As `revoke`, of all tasks with one of these stamps."""
        about = {"headers": dict(headers), "terminate": terminate, "signal": signal}
        return self.broadcast("revoke_by_stamped_headers", about, destination, **options)

    def rate_limit(
        self, task_name: str, rate_limit: str | float | None, destination: Sequence[str] | None = None, **options: Any
    ) -> Replies | None:
        about = {"task_name": task_name, "rate_limit": rate_limit}
        return self.broadcast("rate_limit", about, destination, **options)

    def time_limit(
        self, task_name: str, soft: float | None = None, hard: float | None = None,
        destination: Sequence[str] | None = None, **options: Any,
    ) -> Replies | None:  # fmt: skip
        about = {"task_name": task_name, "soft": soft, "hard": hard}
        return self.broadcast("time_limit", about, destination, **options)

    def add_consumer(
        self, queue: str, exchange: str | None = None, exchange_type: str = "direct", routing_key: str | None = None,
        options: Mapping[str, Any] | None = None, destination: Sequence[str] | None = None, **others: Any,
    ) -> Replies | None:  # fmt: skip
        about = {"queue": queue, "exchange": exchange, "exchange_type": exchange_type, "routing_key": routing_key}
        return self.broadcast("add_consumer", {**about, **(options or {})}, destination, **others)

    def cancel_consumer(self, queue: str, destination: Sequence[str] | None = None, **options: Any) -> Replies | None:
        return self.broadcast("cancel_consumer", {"queue": queue}, destination, **options)

    def enable_events(self, destination: Sequence[str] | None = None, **options: Any) -> Replies | None:
        return self.broadcast("enable_events", destination=destination, **options)

    def disable_events(self, destination: Sequence[str] | None = None, **options: Any) -> Replies | None:
        return self.broadcast("disable_events", destination=destination, **options)

    def heartbeat(self, destination: Sequence[str] | None = None, **options: Any) -> Replies | None:
        return self.broadcast("heartbeat", destination=destination, **options)

    def pool_grow(self, n: int = 1, destination: Sequence[str] | None = None, **options: Any) -> Replies | None:
        return self.broadcast("pool_grow", {"n": n}, destination, **options)

    def pool_shrink(self, n: int = 1, destination: Sequence[str] | None = None, **options: Any) -> Replies | None:
        return self.broadcast("pool_shrink", {"n": n}, destination, **options)

    def pool_restart(
        self, modules: Sequence[str] | None = None, reload: bool = False, reloader: Any = None,
        destination: Sequence[str] | None = None, **options: Any,
    ) -> Replies | None:  # fmt: skip
        about = {"modules": modules, "reload": reload, "reloader": reloader}
        return self.broadcast("pool_restart", about, destination, **options)

    def autoscale(
        self, max: int, min: int, destination: Sequence[str] | None = None, **options: Any
    ) -> Replies | None:  # fmt: skip
        return self.broadcast("autoscale", {"max": max, "min": min}, destination, **options)

    def shutdown(self, destination: Sequence[str] | None = None, **options: Any) -> Replies | None:
        return self.broadcast("shutdown", {}, destination, **options)

    def election(self, id: str, topic: str, action: Any = None, connection: Any = None) -> None:
        """Have Celery's workers choose one of them; Lightbus's do not vote."""
        self.broadcast("election", {"id": id, "topic": topic, "action": action}, connection=connection)

    def purge(self, connection: Any = None) -> int:
        """Delete the messages that wait in the app's task queues, Celery's and Lightbus's; how many those were.

        Raises:
            TransportError: the broker is away.
        """
        from .queues import TaskQueues
        from .remote.mailbox import open_connection, purge

        names = TaskQueues(self._app, ()).names()
        both = [*names, *(one.removeprefix(TASK_QUEUE_PREFIX) for one in names)]
        with open_connection(self._app) if connection is None else nullcontext(connection) as used:
            return sum(purge(used, name) for name in dict.fromkeys(both))

    discard_all = purge


class Inspect:
    """Asks; each method returns the node's name to its answer, or None when nobody answered in time.

    With one name as text for a destination it is that node's answer alone.
    """

    def __init__(
        self, control: Control, destination: Sequence[str] | str | None, timeout: float, callback: Callback | None,
        connection: Any, limit: int | None, pattern: str | None, matcher: str | None,
    ) -> None:  # fmt: skip
        self._control = control
        self.destination = destination
        self.timeout = timeout
        self.callback = callback
        self.connection = connection
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher

    def _ask(self, command: str, **arguments: Any) -> Reply:
        replies = self._control.broadcast(
            command, arguments, self.destination, reply=True, timeout=self.timeout, limit=self.limit,
            callback=self.callback, connection=self.connection, pattern=self.pattern, matcher=self.matcher,
        )  # fmt: skip
        if not replies:
            return None
        by_node = {name: answer for reply in replies for name, answer in reply.items()}
        if isinstance(self.destination, str):
            return by_node.get(self.destination)
        if self.pattern:
            return {name: answer for name, answer in by_node.items() if _matches(name, self.pattern, self.matcher)}
        return by_node

    def report(self) -> Reply:
        return self._ask("report")

    def clock(self) -> Reply:
        return self._ask("clock")

    def active(self, safe: bool | None = None) -> Reply:
        return self._ask("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Reply:
        return self._ask("scheduled")

    def reserved(self, safe: bool | None = None) -> Reply:
        return self._ask("reserved")

    def stats(self) -> Reply:
        return self._ask("stats")

    def revoked(self) -> Reply:
        return self._ask("revoked")

    def registered(self, *taskinfoitems: str) -> Reply:
        return self._ask("registered", taskinfoitems=taskinfoitems)

    registered_tasks = registered

    def ping(self, destination: Sequence[str] | str | None = None) -> Reply:
        if destination:
            self.destination = destination
        return self._ask("ping")

    def active_queues(self) -> Reply:
        return self._ask("active_queues")

    def query_task(self, *ids: str | Sequence[str]) -> Reply:
        wanted = ids[0] if len(ids) == 1 and isinstance(ids[0], (list, tuple)) else ids
        return self._ask("query_task", ids=wanted)

    def conf(self, with_defaults: bool = False) -> Reply:
        return self._ask("conf", with_defaults=with_defaults)

    def hello(self, from_node: str, revoked: Any = None) -> Reply:
        return self._ask("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Reply:
        return self._ask("memsample")

    def memdump(self, samples: int = 10) -> Reply:
        return self._ask("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Reply:
        return self._ask("objgraph", num=n, max_depth=max_depth, type=type)


def _matches(name: str, pattern: str, matcher: str | None) -> bool:
    return re.match(pattern, name) is not None if matcher == "pcre" else fnmatchcase(name, pattern)
