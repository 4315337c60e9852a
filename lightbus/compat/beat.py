"""Tasks as what a schedule fires, in Celery's wire format: whoever serves the task, Celery or Lightbus, may run it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timezone, tzinfo
from functools import lru_cache
from sys import intern
from types import MappingProxyType
from typing import Any

from lightbus_scheduler import Entry, Firing, Job, Overlap, ScheduleError

from ..core.errors import ConfigError, LightbusError
from ..core.message import Parcel
from .app import TaskApp
from .beat_policies import entry_policies
from .schedules import PeriodicTask, periodic_tasks
from .states import READY_STATES

logger = logging.getLogger("lightbus.beat")

HELD = "Celery's beat fires it"  #: note of the pause in which Lightbus leaves an entry to Celery's beat

_NOTHING: Mapping[str, Any] = MappingProxyType({})  #: one for all: there may be very many entries without arguments


@dataclass(frozen=True, slots=True)
class TaskTarget:
    """A task with its arguments.

    Attributes:
        options: those of `apply_async`; `expires` in seconds counts from the moment of sending.
        celery_app: where the task may be registered, too.
    """

    app: TaskApp
    task: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]
    celery_app: Any = None

    def parcels(self, firing: Firing) -> Sequence[Parcel]:
        """See `lightbus.beat.Target`."""
        options = {**self._options_of_task(), **self.options, "task_id": firing.message_id}
        # as Celery's beat and django-celery-beat mark what they send
        headers = {"celery_beat_task": True, "periodic_task_name": firing.job.entry.id}
        options["headers"] = {**headers, **(self.options.get("headers") or {})}
        outgoing = self.app.outgoing(self.task, list(self.args), dict(self.kwargs), options)
        self._check_exchange(outgoing.route.exchange)
        return [Parcel(outgoing.wire, outgoing.route, outgoing.delay_seconds)]

    def _options_of_task(self) -> dict[str, Any]:
        """Those that the task's decorator gave it, wherever it is registered."""
        own = self.app.find(self.task)
        if own is not None:
            return {**own._exec_options(), "ignore_result": own.ignores_result()}
        task = None if self.celery_app is None else self.celery_app.tasks.get(self.task)
        return {} if task is None else {**task._get_exec_options(), "ignore_result": task.ignore_result}

    def check_overlap(self, rule: Overlap) -> None:
        """See `lightbus.beat.Target`."""
        if rule == "allow":
            return
        if not self._keeps_result() and self.app.find(self.task) is None:
            raise ScheduleError(
                "overlap", rule, f"allow, for {self.task!r}: nobody could tell when it has ended, as it is no task of "
                "Lightbus here, and no result of it is kept; set a result_backend and ignore_result=False, or move it"
            )  # fmt: skip

    def may_run(self, message_id: str) -> bool:
        """See `lightbus.beat.Target`: while there is no result. A worker of Lightbus tells besides."""
        if not self._keeps_result():
            return True
        try:
            document = self.app.results.fetch(message_id)
        except LightbusError as error:
            logger.warning("whether task %s still runs is not known, the results cannot be read: %s", self.task, error)
            return True
        return document is None or document.status not in READY_STATES

    def cancel(self, message_id: str) -> None:
        """See `lightbus.beat.Target`."""
        self.app.control.revoke(message_id, terminate=True)

    def _keeps_result(self) -> bool:
        ignores = {**self._options_of_task(), **self.options}.get("ignore_result")
        return not (self.app.settings.task_ignore_result if ignores is None else ignores) and self.app.results.keeps

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
    """A target for the task.

    Raises:
        TypeError: the arguments are not those of the task, as far as it is known here.
    """
    own = app.find(task)
    if own is not None and own.typing:
        own.check_arguments(tuple(args), dict(kwargs))
    given, chosen = (dict(some) if some else _NOTHING for some in (kwargs, options))
    return TaskTarget(app, intern(task), tuple(args), given, chosen, celery_app)


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


def jobs_of(
    app: TaskApp, beat_schedule: Mapping[str, Any], source: str, *, celery_app: Any = None, policies: Any = None
) -> list[Job]:
    """The entries of a `beat_schedule`, as it is written for Celery.

    Args:
        policies: value of the setting `lightbus_beat_policies`.

    Raises:
        ConfigError: an entry that cannot be used, by its name, field and value.
    """
    chosen = entry_policies(policies, beat_schedule) if policies else {}
    if not beat_schedule:
        return []
    bare = lru_cache(maxsize=4096)(lambda task: task_target(app, task, (), {}, {}, celery_app=celery_app))

    def target_of(entry: PeriodicTask) -> TaskTarget:
        if not entry.args and not entry.kwargs and not entry.options:
            return bare(entry.task)  # one target for all entries that send it
        return task_target(app, entry.task, entry.args, entry.kwargs, entry.options, celery_app=celery_app)

    return [
        _job(entry, source, target_of, chosen.get(entry.name, _NOTHING))
        for entry in periodic_tasks(beat_schedule, zone_of(app))
    ]


def _job(
    entry: PeriodicTask, source: str, target_of: Callable[[PeriodicTask], TaskTarget], policies: Mapping[str, Any]
) -> Job:
    try:
        target = target_of(entry)
        target.check_overlap(policies.get("overlap", "allow"))
        return Job(Entry(id=entry.name, schedule=entry.schedule, **policies), target, source)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{source} entry {entry.name!r}: {error}") from error
