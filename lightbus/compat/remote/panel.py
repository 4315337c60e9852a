"""What the commands of remote control work on, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import kombu

from .facts import Worker

if TYPE_CHECKING:
    from ...core.rate import Rate
    from ..app import TaskApp
    from ..task import Task

Reply = Any
#: Gets the panel, and the command's arguments by keyword; its answer in JSON's types.
Command = Callable[..., Reply]


class Rates(Protocol):
    """What is used of `lightbus.worker.Rates`."""

    def set(self, name: str, rate: Rate | None) -> None: ...


@dataclass(frozen=True)
class ControlNode:
    """What a worker's control node is made of.

    Attributes:
        conf: the configuration by Celery's names; with or without defaults.
        rates: of the worker's tasks, shared by its processes; made before the node was forked.
        heartbeat_seconds: between two events of the worker's life; None sends none.
        mingles: exchanges revokes with the other nodes at its start.
        state_db: where revokes are kept over a restart.
        celery_app: the project's, for its own commands; None where it has none.
    """

    app: TaskApp
    hostname: str
    conf: Callable[[bool], Mapping[str, Any]]
    rates: Rates
    heartbeat_seconds: float | None = 2.0
    mingles: bool = True
    state_db: Path | None = None
    celery_app: Any = None


@dataclass(frozen=True)
class Panel:
    """The state of a node that serves commands.

    Attributes:
        beat: sends a heartbeat now.
        started: Unix seconds.
    """

    node: ControlNode
    worker: Worker
    connection: kombu.Connection
    beat: Callable[[], None]
    started: float

    @property
    def app(self) -> TaskApp:
        return self.node.app

    def tick(self) -> int:
        """The next number of the worker's logical clock."""
        return self.app.task_events.switch.tick()

    def task(self, name: object) -> Task | None:
        """The task that the worker runs under that name."""
        return self.app.tasks.get(str(name)) or self.app.adopted.get(str(name))

    def held(self, state: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """The task messages that the worker's processes hold, `active` or `reserved`, with the pid of each."""
        for pid, requests in self.worker.ask(state):
            yield from ((pid, one) for one in requests or () if "stamps" in one)


def listed(ids: Any) -> list[str]:
    """One id, several, or none."""
    found = ids if isinstance(ids, (list, tuple, set)) else [ids] if ids else []
    return list(dict.fromkeys(str(one) for one in found))


def is_true(value: Any) -> bool:
    """From JSON, or from a command line that sends texts."""
    return value.lower() in ("true", "yes", "1", "on") if isinstance(value, str) else bool(value)
