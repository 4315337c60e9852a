"""Tasks as what a schedule fires, in Celery's wire format: whoever serves the task, Celery or Lightbus, may run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timezone, tzinfo
from typing import Any

from lightbus_scheduler import Entry, Firing, Job

from ..core.errors import ConfigError
from ..core.message import Parcel
from .app import TaskApp
from .schedules import PeriodicTask, periodic_tasks

HELD = "Celery's beat fires it"  #: note of the pause in which Lightbus leaves an entry to Celery's beat


@dataclass(frozen=True)
class TaskTarget:
    """A task with its arguments.

    Attributes:
        defaults: options of the task itself, which those of the entry go before.
        options: those of `apply_async`; `expires` in seconds counts from the moment of sending.
    """

    app: TaskApp
    task: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def parcels(self, firing: Firing) -> Sequence[Parcel]:
        """See `lightbus.beat.Target`."""
        options = {**self.defaults, **self.options, "task_id": firing.message_id}
        # as Celery's beat and django-celery-beat mark what they send
        headers = {"celery_beat_task": True, "periodic_task_name": firing.job.entry.id}
        options["headers"] = {**headers, **(self.options.get("headers") or {})}
        outgoing = self.app.outgoing(self.task, list(self.args), dict(self.kwargs), options)
        self._check_exchange(outgoing.route.exchange)
        return [Parcel(outgoing.wire, outgoing.route, outgoing.delay_seconds)]

    def _check_exchange(self, exchange: str) -> None:
        """RabbitMQ closes the channel on a message for an exchange that is not there, with all that is due on it."""
        known = {queue.exchange or queue.name for queue in self.app.settings.celery_queues}
        if exchange and exchange not in known:
            raise ValueError(f"the option exchange={exchange!r} names none of task_queues")

    def url(self) -> str:
        """See `lightbus.beat.Target`."""
        return self.app.bus.url

    def describe(self) -> str:
        """See `lightbus.beat.Target`."""
        return f"task {self.task}"


def task_target(
    app: TaskApp,
    task: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    celery_app: Any = None,
) -> TaskTarget:
    """A target for the task, with the options that its decorator gave it, wherever it is registered."""
    defaults: dict[str, Any] = {}
    own = app.find(task)
    celery_task = None if celery_app is None else celery_app.tasks.get(task)
    if own is not None:
        defaults = {**own._exec_options(), "ignore_result": own.ignores_result()}
        if own.typing:
            own.check_arguments(tuple(args), dict(kwargs))
    elif celery_task is not None:
        defaults = {**celery_task._get_exec_options(), "ignore_result": celery_task.ignore_result}
    return TaskTarget(app, task, tuple(args), dict(kwargs), dict(options), defaults)


def zone_of(app: TaskApp) -> tzinfo:
    """The zone in which the app's crontabs are read.

    Raises:
        ConfigError: it is the machine's own zone, whose name nobody has said.
    """
    zone = app.settings.zone
    if zone is None:
        raise ConfigError(
            "enable_utc is off and no timezone is set, so that schedules would follow whatever zone a machine has: set "
            "the setting `timezone`, for example to 'Europe/Lisbon'"
        )
    return zone if zone is not None else timezone.utc


def jobs_of(app: TaskApp, beat_schedule: Mapping[str, Any], source: str, *, celery_app: Any = None) -> list[Job]:
    """The entries of a `beat_schedule`, as it is written for Celery.

    Raises:
        ConfigError: an entry that cannot be used, by its name, field and value.
    """
    if not beat_schedule:
        return []
    return [_job(app, entry, source, celery_app) for entry in periodic_tasks(beat_schedule, zone_of(app))]


def _job(app: TaskApp, entry: PeriodicTask, source: str, celery_app: Any) -> Job:
    try:
        target = task_target(app, entry.task, entry.args, entry.kwargs, entry.options, celery_app=celery_app)
        return Job(Entry(id=entry.name, schedule=entry.schedule), target, source)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{source} entry {entry.name!r}: {error}") from error
