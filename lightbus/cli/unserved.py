"""Scheduled tasks that nobody is known to serve: misspelt, or of a module that is not imported."""

from __future__ import annotations

import difflib
import logging
from typing import TYPE_CHECKING

from lightbus_scheduler import EntryError, Job, ScheduleError

from ..core.errors import ConfigError
from .scheduling import AppSchedule

if TYPE_CHECKING:
    from ..compat.beat import TaskTarget

logger = logging.getLogger("lightbus.beat")

#: Options that name the place of a task: whoever gives one knows who serves it.
_PLACES = frozenset({"queue", "exchange", "routing_key"})


def unserved(job: Job, schedule: AppSchedule) -> EntryError | None:
    """What is wrong with an entry whose task this app does not have and that is sent to no place of its own."""
    from ..compat.beat import TaskTarget  # most schedules of events have no task

    target = job.target
    if not isinstance(target, TaskTarget) or _is_known(target):
        return None
    known = {*schedule.task_app.tasks, *(() if target.celery_app is None else target.celery_app.tasks)}
    near = difflib.get_close_matches(target.task, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    allowed = (
        f"one of this app ({hint}is its module imported?); or, for a task of another app, one with the option `queue`, "
        "or with a route"
    )
    return EntryError(job.entry.id, ScheduleError("task", target.task, allowed))


def refuse_unserved(schedule: AppSchedule) -> None:
    """Raises ConfigError: of the entries of code and files, one has a task that nobody serves."""
    for job in schedule.jobs:
        if (error := unserved(job, schedule)) is not None:
            raise ConfigError(f"{job.source}: {error}; --allow-unknown-tasks sends it all the same") from error


def warn_of_unserved(schedule: AppSchedule) -> None:
    """Say of each such entry that it is sent all the same."""
    for job in schedule.jobs:
        if (error := unserved(job, schedule)) is not None:
            logger.warning("%s: %s. It is sent all the same", job.source, error)


def _is_known(target: TaskTarget) -> bool:
    if target.app.find(target.task) is not None or not _PLACES.isdisjoint(target.options):
        return True
    if target.celery_app is not None and target.task in target.celery_app.tasks:
        return True
    settings = target.app.settings
    return settings.route(target.task, target.options) != settings.default_queue
