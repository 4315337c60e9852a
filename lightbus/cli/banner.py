"""What a worker says of itself when it starts: its brokers, what it serves there, and how many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..endpoint import asked_for, shared_queues
from ..listeners import EventEndpoint
from ..serving import CallEndpoint
from ..version import VERSION
from .apps import LoadedApp
from .shared import without_password

if TYPE_CHECKING:
    from ..bus import Bus
    from ..endpoint import Endpoint
    from ..ports import Capabilities
    from ..worker import WorkerOptions


def banner(app: LoadedApp, buses: Sequence[Bus], options: WorkerOptions) -> list[str]:
    """Its lines."""
    lines = [f"lightbus {VERSION} worker for {', '.join(app.names)}"]
    for bus in buses:
        lines.append(f"{bus.name} on {without_password(bus.url)}")
        lines.append(f"  {_in_words(bus.transport.capabilities)}")
        lines += [
            f"  {name}: {_what(endpoint)}"
            for endpoint in bus.endpoints()
            for name in sorted(set(shared_queues(endpoint)) & set(asked_for(endpoint, options.queues)))
        ]
    if app.task_app is not None and app.task_app.tasks:
        lines.append(f"tasks: {', '.join(sorted(app.task_app.tasks))}")
    if app.task_app is not None and app.task_app.adopted:
        lines.append(f"adopted from Celery: {', '.join(sorted(app.task_app.adopted))}")
    prefetch = options.prefetch or "adaptive"
    lines.append(f"{options.processes} processes, {options.threads} threads each, prefetch {prefetch}")
    return lines


def _what(endpoint: Endpoint) -> str:
    match endpoint:
        case EventEndpoint():
            return "listener"
        case CallEndpoint():
            return "calls"
    return "tasks"


def _in_words(capabilities: Capabilities) -> str:
    words = [
        "publishes are confirmed" if capabilities.confirms else "publishes are not confirmed",
        "messages survive a restart" if capabilities.persistent else "messages do not survive a restart",
        f"those of a killed process are back within {capabilities.redelivery_seconds:g} s",
    ]
    return f"{capabilities.name}: {', '.join(words)}"
