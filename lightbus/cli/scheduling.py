"""The entries of an app's schedule, wherever they stand: `@bus.schedule`, Celery's `beat_schedule`, lightbus.toml."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lightbus_scheduler import Job, Progress, ScheduleError
from lightbus_scheduler.plain import ENTRY_KEYS, Plain, entry_from, refuse_unknown

from ..beat import Answers, Ends, EventTarget, Target, call_target
from ..core.errors import BadArguments, ConfigError
from ..drivers import open_schedule_store, open_transport
from ..ports import ScheduleStore, Transport
from .apps import LoadedApp
from .settings_files import settings_files
from .shared import without_password

if TYPE_CHECKING:
    from ..compat.app import TaskApp

_OF_CELERY = "beat_schedule"  #: source of the entries that Celery's beat reads too
_TASK_ARGUMENTS = frozenset({"args", "kwargs", "options"})
_TASK_KEYS = _TASK_ARGUMENTS | {"task"}
_EVENT_KEYS = frozenset({"event", "fields"})
_CALL_KEYS = frozenset({"call", "arguments", "timeout_seconds"})
_KNOWN = ENTRY_KEYS | _TASK_KEYS | _EVENT_KEYS | _CALL_KEYS
_WHAT = ("task", "event", "call")


@dataclass
class AppSchedule:
    """What an app schedules, and how a stored entry is read with its tasks and events."""

    app: LoadedApp
    asked_url: str | None = None  #: from the command line
    jobs: list[Job] = field(default_factory=list)

    @classmethod
    def of(cls, app: LoadedApp, url: str | None) -> AppSchedule:
        """Raises ConfigError: an entry that cannot be used, by its name, field and value."""
        found = cls(app, url)
        for bus in app.buses:
            found._add(bus.scheduled())
        found._add(found._of_celery())
        found._add(found._of_settings())
        return found

    @property
    def url(self) -> str:
        """The broker on which the schedule is kept, and all that it fires is sent.

        Raises:
            ConfigError: entries are sent on different ones.
        """
        urls: dict[str, str] = {job.target.url(): job.entry.id for job in self.jobs}
        if len(urls) > 1:
            (first, one), (second, other), *_ = urls.items()
            raise ConfigError(
                f"entry {one!r} is sent on {without_password(first)} and {other!r} on {without_password(second)}: "
                "a beat serves one broker, so start one for each, with the -A that belongs to it"
            )
        if urls:
            return next(iter(urls))
        return self.task_app.bus.url if self.app.celery_apps else self.app.bus().url

    def store(self) -> ScheduleStore:
        """Where the schedule is kept; raises ConfigError as `url` does, or when that broker cannot keep one."""
        return open_schedule_store(self.url, options=self._options())

    @cached_property
    def ends(self) -> Ends:
        """What workers tell on that broker."""
        return Ends(lambda: self._transport)

    @cached_property
    def answers(self) -> Answers:
        """Those to the calls that are sent on that broker."""
        return Answers(lambda: self._transport)

    @cached_property
    def _transport(self) -> Transport:
        return open_transport(self.url, options=self._options())

    def _options(self) -> dict[str, object]:
        if self.app.task_app is not None and self.app.task_app.bus.url == self.url:
            return dict(self.app.task_app.settings.broker_transport_options)
        return {}

    @cached_property
    def task_app(self) -> TaskApp:
        """The app that sends tasks: Lightbus's own, with Celery's settings where there is a Celery app."""
        if self.app.task_app is None:
            from ..compat.app import default_app

            self.app.task_app = default_app()
            if self.app.celery_apps:
                from ..compat.bridge import settings_from

                self.app.task_app.configure(settings_from(self.app.celery_apps[0]))
        task_app: TaskApp = self.app.task_app
        if self.asked_url and task_app.settings.broker_url != self.asked_url:  # --url wins, as in other commands
            task_app.configure(dataclasses.replace(task_app.settings, broker_url=self.asked_url))
        task_app.bus.use_default_url(self.app.url)
        return task_app

    def seeds(self) -> dict[str, Progress]:
        """For entries that the store does not know yet: those are left to Celery's beat until it lets go of them."""
        if self._celery_app is None or "lightbus.compat.bridge" not in sys.modules:
            return {}
        from ..compat import bridge
        from ..compat.beat import HELD

        if bridge.moved_entries(self._celery_app) is None:
            return {}
        held = Progress(decided=datetime.now(timezone.utc), paused=HELD)
        return {job.entry.id: held for job in self.jobs if job.source == _OF_CELERY}

    def job_of(self, definition: Plain) -> Job:
        """The job that a mapping tells: an entry's keys, and `task`, `event` or `call`, with their arguments.

        Raises:
            ScheduleError: it cannot be used.
        """
        refuse_unknown(definition, _KNOWN, "an entry")
        entry = entry_from(definition)
        target = self._target(definition)
        target.check_overlap(entry.overlap)
        return Job(entry, target, "stored", definition)

    def _target(self, plain: Plain) -> Target:
        told = [what for what in plain if what in _WHAT and plain[what] is not None]
        if len(told) != 1:
            raise ScheduleError("what to fire", " and ".join(told) or "nothing", f"one of {', '.join(_WHAT)}")
        if told == ["call"]:
            return self._call(plain)
        if told == ["task"]:
            if plain.keys().isdisjoint(_TASK_ARGUMENTS):
                return self._bare_task(_text(plain, "task"))
            args, kwargs, options = plain.get("args") or [], plain.get("kwargs") or {}, plain.get("options") or {}
            for key, value, kind, allowed in (
                ("args", args, list, "a list"), ("kwargs", kwargs, Mapping, "a table"),
                ("options", options, Mapping, "a table"),
            ):  # fmt: skip
                if not isinstance(value, kind):
                    raise ScheduleError(key, repr(value), allowed)
            return self._task(_text(plain, "task"), args, kwargs, options)
        kinds, name = self.app.events(), _text(plain, "event")
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1)
            raise ScheduleError("event", name, f"did you mean {near[0]!r}?" if near else ", ".join(sorted(kinds)))
        bus = self.app.bus()
        try:
            event = msgspec.convert(plain.get("fields") or {}, kinds[name])
        except msgspec.ValidationError as error:
            raise ScheduleError(f"fields of {name}", str(plain.get("fields")), str(error)) from error
        return EventTarget(bus, event)

    def _task(self, task: str, args: list[Any], kwargs: Plain, options: Plain) -> Target:
        try:
            return self._make_task(self.task_app, task, args, kwargs, options, celery_app=self._celery_app)
        except TypeError as error:
            raise ScheduleError("arguments", str(error), f"those of task {task!r}") from error

    @cached_property
    def _make_task(self) -> Callable[..., Target]:
        from ..compat.beat import task_target  # at each of 100,000 entries it would cost a second

        return task_target

    @cached_property
    def _bare_task(self) -> Callable[[str], Target]:
        """A task without arguments: one target for all entries that fire it."""
        return functools.lru_cache(maxsize=4096)(lambda task: self._task(task, [], {}, {}))

    def _call(self, plain: Plain) -> Target:
        calls, name = self.app.calls(), _text(plain, "call")
        if name not in calls:
            near = difflib.get_close_matches(name, calls, n=1)
            raise ScheduleError("call", name, f"did you mean {near[0]!r}?" if near else ", ".join(sorted(calls)))
        timeout = plain.get("timeout_seconds")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout <= 0):
            raise ScheduleError("timeout_seconds", repr(timeout), "a number of seconds above 0")
        arguments = plain.get("arguments") or {}
        if not isinstance(arguments, Mapping):
            raise ScheduleError("arguments", repr(arguments), "a table")
        try:
            return call_target(self.app.bus(), calls[name], arguments, timeout, self.answers)
        except BadArguments as error:
            raise ScheduleError(f"arguments of {name}", str(dict(arguments)), str(error)) from error

    @property
    def _celery_app(self) -> Any:
        return self.app.celery_apps[0] if self.app.celery_apps else None

    def _of_celery(self) -> list[Job]:
        app: Any = self._celery_app or self.app.task_app
        if app is None or not hasattr(app, "conf"):  # a `TaskApp` that is no `lightbus.compat.Celery` schedules nothing
            return []
        from ..compat.beat import jobs_of
        from ..compat.beat_policies import SETTING as POLICY_SETTING

        app.finalize()  # as Celery's beat does: `add_periodic_task` in on_after_finalize
        entries, policies = app.conf.beat_schedule or {}, app.conf.get(POLICY_SETTING)
        if entries or policies:
            return jobs_of(self.task_app, entries, _OF_CELERY, celery_app=self._celery_app, policies=policies)
        return []

    def _of_settings(self) -> list[Job]:
        jobs: list[Job] = []
        for name, (plain, table) in settings_files(Path.cwd()).entries("schedule").items():
            try:
                job = self.job_of({**plain, "id": name})
            except ValueError as error:
                raise ConfigError(f"{table.path}: {table.called(f'schedule.{name}')}: {error}") from error
            jobs.append(Job(job.entry, job.target, table.path.name))
        return jobs

    def _add(self, jobs: Any) -> None:
        known = {job.entry.id: job for job in self.jobs}
        for job in jobs:
            if job.entry.id in known:
                raise ConfigError(
                    f"the schedule entry {job.entry.id!r} stands in {known[job.entry.id].source} and in {job.source}: "
                    "give one of them another name"
                )
            known[job.entry.id] = job
            self.jobs.append(job)


def _text(plain: Plain, key: str) -> str:
    value = plain[key]
    if not isinstance(value, str):
        raise ScheduleError(key, repr(value), "a text")
    return value
