"""`Celery`: the application object of a Celery project, on Lightbus.

It is a `TaskApp` whose settings are read from the project's configuration when they are first needed. What Celery does
lazily to tasks (their base class, annotations) happens here to tasks that exist already.
"""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from ..core.errors import ConfigError
from . import loading
from .annotations import annotate
from .app import TaskApp, default_app, set_default_app
from .appsignals import AppSignal
from .canvas import Signature
from .conf import Configuration
from .decorators import HOOKS, compat_base, register_class_task
from .groupresult import GroupResult
from .log import AppLog
from .request import current_task as running_task
from .resultset import ResultSet
from .settings import Settings
from .task import Task

#: Names, or patterns as in a shell, of tasks that Celery workers on the same broker still serve.
CELERY_TASKS_SETTING = "lightbus_celery_tasks"
#: What Celery builds of parts that Lightbus does not have. None leaves them alone.
_PARTS = ("loader", "amqp", "events", "log", "control", "fixups", "tasks")


class Celery(TaskApp):
    """A Celery project's app; `from lightbus.compat import Celery` in place of `from celery import Celery`.

    Args:
        main: replaces the module name `__main__` in the names of tasks.
        broker, backend, include: the settings `broker_url`, `result_backend` and `include`.
        set_as_current: make it the process's own app, whose tasks `shared_task` declares.
        config_source: as `config_from_object`, with `namespace`.
        changes: settings.
        task_cls: base class of all tasks, or its path.
        autofinalize, strict_typing: taken; tasks are registered when they are declared.
        **options: further settings by name.

    Raises:
        ConfigError: a class for a part is given that only Celery has: `loader`, `amqp`, `events`, `log`, `control`.
    """

    task_cls: Any = None

    def __init__(
        self,
        main: str | None = None,
        *,
        broker: str | None = None,
        backend: str | None = None,
        include: Iterable[str] | None = None,
        set_as_current: bool = True,
        config_source: Any = None,
        namespace: str | None = None,
        changes: Mapping[str, Any] | None = None,
        task_cls: Any = None,
        autofinalize: bool = True,
        strict_typing: bool = True,
        config_source_silent: bool = False,
        **options: Any,
    ) -> None:
        if parts := [name for name in _PARTS if options.pop(name, None) is not None]:
            raise ConfigError(f"Celery({', '.join(parts)}=...): Lightbus has no such part. See docs/migration/app.md")
        super().__init__(main=main)
        self.set_as_current = set_as_current
        self.strict_typing = strict_typing
        self.autofinalize = autofinalize
        self.finalized = False
        self.log = AppLog()
        self.on_configure: Any = getattr(self, "on_configure", None) or AppSignal("app.on_configure")
        self.on_after_configure = AppSignal("app.on_after_configure")
        self.on_after_finalize = AppSignal("app.on_after_finalize")
        self._config_source = config_source
        self._config_silent = config_source_silent
        self._namespace = namespace
        self._to_discover: list[tuple[Any, str | None]] = []
        self._periodic: dict[str, dict[str, Any]] = {}
        self._left_to_celery: tuple[str, ...] = ()
        self._task_class: type[Task] | None = None
        self._given_task_class = task_cls or type(self).task_cls
        self.conf = Configuration(self._read_configuration, self._configured, self._reconfigure, namespace)
        given = {"broker_url": broker, "result_backend": backend, "include": include, **(changes or {}), **options}
        for name, value in given.items():
            if value is not None:
                self.conf[name] = value
        self._reconfigure()
        if set_as_current:
            self.set_current()
        self.on_init()

    def on_init(self) -> None:
        """Called at the end of `__init__`; for subclasses."""

    # -- configuration ----------------------------------------------------------------------------------------------

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Read the configuration from a module, an object or a mapping, or what a path names, at the first use.

        Args:
            silent: a path that leads nowhere is an empty configuration.
            force: read it now.
            namespace: take names that begin with it, such as "CELERY" for `CELERY_BROKER_URL`.
        """
        self._config_source, self._config_silent = obj, silent
        self._namespace = namespace or self._namespace
        self.conf.read_again(namespace)
        self._reconfigure()
        if force:
            _ = self.settings

    def config_from_envvar(self, variable_name: str, silent: bool = False, force: bool = False) -> bool:
        """As `config_from_object`, with the path in an environment variable; False when it has none.

        Raises:
            ConfigError: it has none, and `silent` is false.
        """
        path = os.environ.get(variable_name, "")
        if not path and not silent:
            raise ConfigError(f"the environment variable {variable_name!r} is to name the configuration, and is empty")
        if path:
            self.config_from_object(path, silent=silent, force=force)
        return bool(path)

    def add_defaults(self, values: Any) -> None:
        """Take these settings where nothing else is given; a mapping, or a function that returns one."""
        self.conf.add_defaults(values() if callable(values) else values)

    def _reconfigure(self) -> None:
        self.configure_later(self._read_settings)

    def _read_configuration(self) -> Mapping[str, Any]:
        """What the configuration object holds; called by `conf`, once."""
        if isinstance(self.on_configure, AppSignal):
            self.on_configure.send(sender=self)
        else:
            self.on_configure()  # a subclass has a method of that name
        source = self._config_source
        return {} if source is None else loading.read_object(source, silent=self._config_silent)

    def _configured(self) -> None:
        """Called by `conf` once it has read the configuration object."""
        self.conf.beat_schedule.update(self._periodic)
        self.on_after_configure.send(sender=self, source=self.conf)

    def _read_settings(self) -> Settings:
        """The settings, from `conf`; called when they are needed and `conf` has changed."""
        left = self.conf.get(CELERY_TASKS_SETTING) or ()
        self._left_to_celery = (left,) if isinstance(left, str) else tuple(left)
        settings = replace(Settings.from_mapping(self.conf.given()), celery_serves_others=bool(left))
        if settings.annotations:
            for task in self.tasks.values():
                annotate(task, settings.annotations)
        return settings

    def serves(self, name: str) -> bool:
        """Whether Lightbus serves the task: all, but for those that the setting `lightbus_celery_tasks` names."""
        _ = self.settings
        return name in self.tasks or not any(fnmatch.fnmatchcase(name, one) for one in self._left_to_celery)

    # -- tasks ------------------------------------------------------------------------------------------------------

    @property
    def Task(self) -> Any:
        """The base class of this app's tasks. Setting it gives those that name no `base` the new one."""
        if self._task_class is None:
            self._task_class = self._bound_class(self._given_task_class or _usual_class())
        return self._task_class

    @Task.setter
    def Task(self, kind: Any) -> None:
        self._task_class = self._bound_class(kind)
        for task in self.tasks.values():
            self._follow(task)

    def base_class(self) -> Any:
        return self.Task

    def registered(self, task: Any) -> None:
        if not hasattr(self, "conf"):  # taken over before this app is built
            return
        self._follow(task)
        if not self.strict_typing and "typing" not in vars(type(task)):
            task.typing = False
        if self._settings_source is None and self._settings.annotations:
            annotate(task, self._settings.annotations)

    def register_task(self, task: Any, **options: Any) -> Any:
        """Register an instance of a task class, or the class, and return the instance."""
        return register_class_task(lambda: self, task, options)

    def _bound_class(self, kind: Any) -> Any:
        kind = compat_base(str(self.main), loading.import_path(kind) if isinstance(kind, str) else kind)
        if vars(kind).get("_bound_to") is self:
            return kind
        name, module = kind.__name__, kind.__module__
        return type(name, (kind,), {"__module__": module, "_get_app": staticmethod(lambda: self), "_bound_to": self})

    def _follow(self, task: Any) -> None:
        """Give a task that named no base the app's own one."""
        if task.follows_app and type(task).__bases__ != (self.Task,):
            type(task).__bases__ = (self.Task,)
            task._hooks = any(getattr(type(task), name) is not getattr(Task, name) for name in HOOKS)

    # -- modules ----------------------------------------------------------------------------------------------------

    def autodiscover_tasks(
        self, packages: Any = None, related_name: str | None = "tasks", force: bool = False
    ) -> list[Any] | None:
        """Have a worker import `related_name` of each package; without packages, of Django's installed apps.

        Args:
            packages: names, or a function that returns them.
            force: now, and not when a worker starts. The modules are returned.
        """
        if force:
            return self._discover(packages, related_name)
        self._to_discover.append((packages, related_name))
        return None

    def import_default_modules(self) -> None:
        """Import the modules that a worker needs: those discovered, and the settings `imports` and `include`."""
        for packages, related_name in self._to_discover:
            self._discover(packages, related_name)
        for setting in ("imports", "include"):
            names = self.conf[setting]
            loading.import_modules((names,) if isinstance(names, str) else names or ())
        self.finalize()

    def finalize(self, auto: bool = False) -> None:
        """Read the configuration, and tell `on_after_finalize`, once."""
        if not self.finalized:
            self.finalized = True
            _ = self.settings
            self.on_after_finalize.send(sender=self)

    def _discover(self, packages: Any, related_name: str | None) -> list[Any]:
        if packages is None:
            from .django import installed_packages, is_django

            names: Iterable[str] = installed_packages() if is_django() else ()
        else:
            names = packages() if callable(packages) else packages
        return list(loading.related_modules(names, related_name))

    def add_periodic_task(
        self, schedule: Any, sig: Any, args: Any = (), kwargs: Any = None, name: str | None = None, **options: Any
    ) -> str:
        """Put a task into `conf.beat_schedule`, for a scheduler to send; returns the entry's key.

        Args:
            schedule: seconds, a timedelta or a schedule.
            sig: a signature or a task.
        """
        if isinstance(sig, Signature):
            sig = sig.clone(args, kwargs)
        else:
            sig = self.signature(sig.name, args, kwargs or {})
        key = name or repr(sig)
        entry = {
            "schedule": schedule, "task": sig.task, "args": sig.args, "kwargs": sig.kwargs,
            "options": {**sig.options, **options},
        }  # fmt: skip
        self._periodic[key] = entry
        if self.conf.is_read:
            self.conf.beat_schedule[key] = entry
        return key

    # -- what else projects ask an app for --------------------------------------------------------------------------

    def set_current(self) -> None:
        """Make it the process's own app."""
        set_default_app(self)

    set_default = set_current

    def now(self) -> datetime:
        """The time in the app's time zone."""
        return datetime.now(self.settings.zone).astimezone(self.settings.zone)

    @property
    def timezone(self) -> Any:
        """The app's time zone."""
        return self.settings.zone

    @property
    def current_task(self) -> Any:
        """The task that runs here, or None."""
        return running_task()

    @property
    def current_worker_task(self) -> Any:
        """The same."""
        return running_task()

    @property
    def GroupResult(self) -> Any:
        """The class of results of a group, for this app."""
        return partial(GroupResult, app=self)

    @property
    def ResultSet(self) -> Any:
        """The class of several results, for this app."""
        return partial(ResultSet, app=self)

    @property
    def backend(self) -> Any:
        """Where results are kept; see `lightbus.compat.resultstore`. It is not an object of Celery's."""
        return self.results

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """A kombu connection to the broker, for use of your own; Lightbus has its own."""
        from .connections import open_connection

        return open_connection(self.conf, url or self.conf.broker_read_url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """The same."""
        return self.connection_for_read(url or self.conf.broker_write_url, **options)

    def connection(self, hostname: str | None = None, **options: Any) -> Any:
        """The same, under its older name."""
        return self.connection_for_write(hostname, **options)

    broker_connection = connection

    def connection_or_acquire(self, connection: Any = None, pool: bool = True, **_: Any) -> Any:
        """`connection`, or a new one; a context manager."""
        return connection or self.connection_for_write()

    def worker_main(self, argv: list[str] | None = None) -> None:
        """Celery's programmatic start.

        Raises:
            ConfigError: always; it says which command to run.
        """
        raise ConfigError(f"run the command instead: lightbus worker -A {self._module_name()}")

    start = worker_main

    def _module_name(self) -> str:
        for name, module in list(sys.modules.items()):
            if any(value is self for value in vars(module).values()):
                return name
        return self.main or "MODULE"

    def __enter__(self) -> Celery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        keys = {
            "main": self.main,
            "changes": dict(self.conf.changes),
            "config_source": self._config_source,
            "config_source_silent": self._config_silent,
            "namespace": self._namespace,
            "task_cls": self._given_task_class,
            "set_as_current": False,
        }
        return _unpickled, (type(self), keys)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.main or '__main__'} at {id(self):#x}>"


def _unpickled(kind: Callable[..., Celery], keys: Mapping[str, Any]) -> Celery:
    return kind(**keys)


def _usual_class() -> type[Task]:
    from .django import DjangoTask, is_django

    return DjangoTask if is_django() else Task


class CurrentApp:
    """The process's own app: its attributes are that app's, as those of Celery's `current_app`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(default_app(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(default_app(), name, value)

    def __repr__(self) -> str:
        return repr(default_app())


current_app = CurrentApp()
