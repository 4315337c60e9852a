"""Which of an app's queues a worker serves, and on which buses they are."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import ConfigError
from ..core.topology import TASK_QUEUE_PREFIX
from .apps import LoadedApp

if TYPE_CHECKING:
    from ..bus import Bus

logger = logging.getLogger("lightbus.worker")


@dataclass(frozen=True, slots=True)
class Selection:
    """What to serve: of all queues those `wanted`, or all, but none `excluded`; tasks under the name `hostname`."""

    wanted: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    hostname: str = ""


def prepared(app: LoadedApp, selection: Selection) -> tuple[list[Bus], frozenset[str]]:
    """The buses to serve, and the queues of them to serve; empty for all.

    Raises:
        ConfigError: there is nothing to serve, or a named queue is not the app's.
    """
    buses = _served(app, selection)
    if not selection.excluded:
        return buses, frozenset(selection.wanted)
    known = {name for bus in buses for endpoint in bus.endpoints() for name in endpoint.queues()}
    excluded = {name if name in known else f"{TASK_QUEUE_PREFIX}{name}" for name in selection.excluded}
    if missing := excluded - known:
        names = ", ".join(sorted(name.removeprefix(TASK_QUEUE_PREFIX) for name in missing))
        raise ConfigError(f"no queue {names} in this app that could be excluded; it has {', '.join(sorted(known))}")
    left = frozenset(selection.wanted or known) - excluded
    if not left:
        raise ConfigError("every queue is excluded; nothing is left to serve")
    return buses, left


def _served(app: LoadedApp, selection: Selection) -> list[Bus]:
    """The buses to serve, the tasks' own one among them.

    Raises:
        ConfigError: there is nothing to serve, or a wanted queue is not the app's.
    """
    buses, wanted = list(app.buses), selection.wanted
    others = {name for bus in buses for endpoint in bus.endpoints() for name in endpoint.queues()}
    literal = [name for name in wanted if name not in others]
    if app.task_app is not None and (literal or not wanted):
        from ..compat.endpoint import TaskEndpoint

        usual = TaskEndpoint(app.task_app).queues()
        others |= {*usual, *(name.removeprefix("lightbus.") for name in usual)}
        for name in (name for name in literal if name not in others):
            import difflib  # only what may be a mistake needs it

            if near := difflib.get_close_matches(name, others, n=1):
                logger.warning(
                    "the app has no queue %r, did you mean %r? It is served as a queue of Celery", name, *near
                )
        app.task_app.bus.add_endpoint(TaskEndpoint(app.task_app, queues=literal, hostname=selection.hostname))
        app.task_app.task_events.switch.on = app.task_app.settings.send_task_events
        buses.append(app.task_app.bus)
    buses = [bus for bus in buses if bus.endpoints()]
    if not buses:
        raise ConfigError(
            f"{', '.join(app.names)} has nothing to serve: no listener (bus.on), no API (bus.serve), no task "
            "(lightbus.compat.task); is the module that declares them imported?"
        )
    known = {name for bus in buses for endpoint in bus.endpoints() for name in endpoint.queues()}
    if missing := set(wanted) - known:
        raise ConfigError(f"no queue {', '.join(sorted(missing))} in this app; it has {', '.join(sorted(known))}")
    return buses
