"""`lightbus worker` under remote control: the control node of a worker that serves tasks, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..worker.attendant import Attended, Program

if TYPE_CHECKING:
    from ..bus import Bus
    from ..worker import Rates
    from .apps import LoadedApp
    from .celery_flags import CeleryFlags


@dataclass(frozen=True, slots=True)
class Remote:
    """What a supervisor needs of it.

    Attributes:
        attendant: None where remote control is switched off.
        before_exec: keeps revokes for the code that is loaded anew.
    """

    attendant: Program | None
    before_exec: Callable[[], None]


def remote_control(app: LoadedApp, buses: Sequence[Bus], rates: Rates, flags: CeleryFlags) -> Remote | None:
    """None where no tasks are served. Reads the revokes that the state file keeps.

    Raises:
        ConfigError: that file is something else.
    """
    task_app = app.task_app
    if task_app is None:
        return None
    from ..compat.endpoint import TaskEndpoint

    served = [one for bus in buses for one in bus.endpoints() if isinstance(one, TaskEndpoint)]
    if not served:
        return None
    from ..compat.remote import statedb
    from ..compat.remote.mailbox import can_be_controlled

    path = _state_file(flags.statedb, task_app.settings.state_db)
    if path is not None:
        statedb.load(path, task_app.revokes)
    if not (task_app.settings.remote_control and can_be_controlled(task_app)):
        return Remote(None, task_app.revokes.keep_over_exec)
    told: Any = app.celery_apps[0] if app.celery_apps else task_app

    def conf(with_defaults: bool) -> dict[str, Any]:
        found = dict(told.conf.table(with_defaults=with_defaults)) if hasattr(told, "conf") else {}
        # As a Celery worker says it: the modules that were named, and those of all tasks.
        modules = {type(task).__module__ for task in {**task_app.adopted, **task_app.tasks}.values()}
        return {**found, "include": sorted({*found.get("include", ()), *modules})}

    def load() -> Callable[[Attended], None]:
        from ..compat.remote.node import run_node  # in its process: the others need no pidbox
        from ..compat.remote.panel import ControlNode

        node = ControlNode(
            task_app, served[0].hostname, conf, rates, heartbeat_seconds=flags.heartbeat_seconds,
            mingles=flags.mingles, state_db=path, celery_app=app.celery_apps[0] if app.celery_apps else None,
        )  # fmt: skip
        return partial(run_node, node)

    return Remote(Program(load, keeps=(rates.fileno(),)), task_app.revokes.keep_over_exec)


def _state_file(given: str, setting: str | None) -> Path | None:
    if given:
        return Path(given)
    return Path(setting + ".lightbus") if setting else None  # Celery's worker has the name itself
