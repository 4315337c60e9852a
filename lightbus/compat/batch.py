"""Several task messages at once: published one after the other, waited for together.

Waiting for each confirm before the next message would make a group of a thousand a thousand round trips long.
"""

from __future__ import annotations

from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .resultstore import wait_for
from .task import Task

if TYPE_CHECKING:
    from .app import TaskApp


class Batch:
    """Leaving its block waits until the broker has taken charge of all messages, unless the block raised."""

    def __init__(self, app: TaskApp) -> None:
        self._app = app
        self._published: list[Future[None]] = []

    def send(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Send one task; see `Task.apply_async`. A task with an `apply_async` of its own sends itself."""
        app = self._app
        task = app.tasks.get(name)
        if task is not None and type(task).apply_async is not Task.apply_async:
            return task.apply_async(args, kwargs, **options)
        merged = options if task is None else task.merged_options(args, kwargs, options)
        outgoing = app.outgoing(name, args, kwargs, merged)
        published = app.transport.publish(outgoing.wire, outgoing.route, delay_seconds=outgoing.delay_seconds)
        if outgoing.on_published is not None:
            published.add_done_callback(outgoing.on_published)
        self._published.append(published)
        return app.result_of(outgoing)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            for published in self._published:
                wait_for(published, self._app.settings.publish_timeout_seconds)
