"""Tasks in `lightbus.testing`: `with harness(tasks()) as t:`, and then `t.assert_called` and `t.simulate`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

from .. import open_result_backend
from ..core.errors import DecodeError
from . import json
from .app import TaskApp, default_app
from .endpoint import TaskEndpoint
from .protocol import decode_task

if TYPE_CHECKING:
    from .. import Middleware
    from ..core.message import Wire
    from ..endpoint import Endpoint
    from ..ports import Transport
    from .task import Task


def tasks(app: TaskApp | None = None) -> TasksUnderTest:
    """The tasks of an app, by default the process's own, to be put under test beside buses."""
    return TasksUnderTest(app or default_app())


class TasksUnderTest:
    """See `tasks`. Under test nothing leaves the process, whatever the settings say: results are kept in memory."""

    def __init__(self, app: TaskApp) -> None:
        self._app = app
        self._now: Callable[[], float] = time.time

    @property
    def name(self) -> str:
        return self._app.bus.name

    @property
    def dead_letter_queue(self) -> str:
        return self._app.bus.dead_letter_queue

    @property
    def middleware(self) -> Sequence[Middleware]:
        return self._app.bus.middleware

    def endpoints(self) -> Sequence[Endpoint]:
        return (TaskEndpoint(self._app, now=self._now),)

    def follow(self, now: Callable[[], float]) -> None:
        """Take the time from `now`, in Unix seconds."""
        self._now = now

    @contextmanager
    def on_transport(self, transport: Transport) -> Iterator[None]:
        """Within the block tasks are sent by `transport`."""
        with self._app.on_transport(transport, open_result_backend("memory://")):
            yield


class TaskReference:
    """What a test names a task by; see `lightbus.testing.references`."""

    def __init__(self, task: Task) -> None:
        self._task = task

    @property
    def name(self) -> str:
        return self._task.name

    def fields(self, args: Sequence[object], kwargs: Mapping[str, object]) -> Mapping[str, object]:
        """The arguments by the names of their parameters, with defaults."""
        bound = self._task._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return {key: value if value is ANY else _as_received(value) for key, value in bound.arguments.items()}

    def read(self, wire: Wire) -> Mapping[str, object] | None:
        """The arguments of a message of this task; None for any other."""
        if wire.headers.get("task") != self._task.name:
            return None
        try:
            message = decode_task(wire, accept=self._task.app.settings.accept_content)
        except DecodeError:
            return None
        return self.fields(message.args, message.kwargs)

    def incoming(
        self, args: Sequence[object], kwargs: Mapping[str, object], message_id: str
    ) -> tuple[Wire, str]:  # fmt: skip
        """The message that a sender makes of these arguments, and the queue that it arrives in."""
        self._task.check_arguments(args, kwargs)
        options: dict[str, Any] = {**self._task._exec_options(), "ignore_result": self._task.ignores_result()}
        outgoing = self._task.app.outgoing(
            self._task.name, args, kwargs, {**options, "task_id": message_id or None}
        )  # fmt: skip
        return outgoing.wire, outgoing.route.routing_key


def _as_received(value: object) -> object:
    """A value as it is after the wire: a tuple has become a list."""
    return json.loads(json.dumps(value))
