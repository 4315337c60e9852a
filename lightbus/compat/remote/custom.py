"""Commands of a project's own: those that its modules have registered with Celery's `Panel`, by `@control_command` and
`@inspect_command`, answered by a Lightbus worker too.

They get Celery's `state`: of it what a Lightbus worker has, and of the rest an error that says so. Celery is not
imported for it; a project that registers commands has done so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from .panel import Command, Panel, Reply

_CELERYS = "celery.worker.control"
_OFFERED = "state.app, state.hostname and state.tset"


class State:
    """What a command of the project's gets as `state`.

    Attributes:
        app: the Celery app, or the app of `lightbus.compat` where the project has no other.
        hostname: the node's name.
        tset: `set`, as in Celery.
    """

    tset = set

    def __init__(self, panel: Panel, command: str) -> None:
        self.app: Any = panel.node.celery_app or panel.app
        self.hostname = panel.node.hostname
        self._command = command

    def __getattr__(self, name: str) -> Any:
        # Only ever an error: the usual one would not say that a Celery worker has it.
        raise AttributeError(
            f"the command {self._command!r} asks for state.{name}, which is of Celery's own worker; a Lightbus worker "
            f"offers {_OFFERED}"
        )


def custom_commands() -> dict[str, Command]:
    """By name and alias; none where nobody has loaded Celery's commands. One of a builtin's name goes before it."""
    celerys = sys.modules.get(_CELERYS)
    if celerys is None:
        return {}
    registered: dict[str, Callable[..., Any]] = celerys.Panel.data
    return {name: partial(_run, name, run) for name, run in registered.items() if run.__module__ != _CELERYS}


def _run(name: str, run: Callable[..., Any], panel: Panel, **arguments: Any) -> Reply:
    return run(State(panel, name), **arguments)
