"""Finds the app that a command is about: its buses, its Celery app, its tasks and its API contracts.

`-A shop` loads the module `shop`; when that is a package, also those of SUBMODULES in it that are there.
`-A shop.bus:bus` takes one attribute. A Celery app is asked to import its task modules, as its own worker does.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..bus import Bus
from ..config import URL_VARIABLE, embedded_url
from ..core.api import Api, Event, Rpc
from ..core.codec import split_version
from ..core.errors import ConfigError
from .importing import attribute_of, import_module, look_for_modules_in, where_of
from .settings_files import settings_files

if TYPE_CHECKING:
    from ..compat.app import TaskApp
    from ..middleware import Middleware

APP_VARIABLE = "LIGHTBUS_APP"
SUBMODULES = ("bus", "celery", "tasks", "events")


@dataclass
class LoadedApp:
    """What stands in the modules that `-A` names.

    Attributes:
        celery_apps: those of Celery itself; task_apps: those of `lightbus.compat`, of which one is taken, `task_app`.
        apis: the newest contract of each name that the app's modules define or import.
        url: the broker of the buses that name none themselves.
        is_embedded_by_default: nobody named a broker.
        is_django: Django is set up.
    """

    names: tuple[str, ...] = ()
    buses: list[Bus] = field(default_factory=list)
    celery_apps: list[Any] = field(default_factory=list)
    task_apps: list[TaskApp] = field(default_factory=list)
    task_app: TaskApp | None = None
    apis: dict[str, type[Api]] = field(default_factory=dict)
    url: str = ""
    is_embedded_by_default: bool = False
    is_django: bool = False

    def events(self) -> dict[str, type[Event]]:
        """Full name to event class."""
        return {f"{api.api_name}.{name}": kind for api in self.apis.values() for name, kind in api.api_events.items()}

    def calls(self) -> dict[str, Rpc[Any, Any]]:
        """Full name to call."""
        return {rpc.full_name: rpc for api in self.apis.values() for rpc in api.api_calls.values()}

    def bus(self) -> Bus:
        """A bus to send with: the app's first, or one of the command line's own."""
        return self.buses[0] if self.buses else Bus("command-line", url=self.url)

    def close(self) -> None:
        for bus in self.buses:
            bus.close()
        if self.task_app is not None:
            self.task_app.close()


def load(names: tuple[str, ...], url: str | None = None) -> LoadedApp:
    """Load the app.

    Args:
        names: from the command line; empty asks LIGHTBUS_APP, then lightbus.toml and pyproject.toml.
        url: a broker from the command line; wins over LIGHTBUS_URL.

    Raises:
        ConfigError: a module or attribute is not there, or cannot be imported.
    """
    look_for_modules_in(Path.cwd())
    names = names or configured_names()
    app = LoadedApp(names=names)
    _set_up_django(app)  # first, because a module that imports models needs it
    for name in names:
        module_name, _, attribute = name.partition(":")
        module = import_module(module_name)
        _set_up_django(app)  # the package may have named the settings, and what follows may import models
        found = [_attribute(module, attribute)] if attribute else _candidates(module)
        for one in found:
            _take(app, one)
    _discover_in_django(app)
    _load_tasks(app)
    app.apis = {api.api_name: api for api in sorted(_contracts(Api), key=lambda api: split_version(api.api_version))}
    _choose_broker(app, url)
    return app


def required(names: tuple[str, ...], url: str | None = None) -> LoadedApp:
    """As `load`.

    Raises:
        ConfigError: besides: no app is named anywhere.
    """
    app = load(names, url)
    if not app.names:
        raise ConfigError(
            f'no app: say -A MODULE[:ATTRIBUTE], or set {APP_VARIABLE}, or write `app = "..."` in lightbus.toml or '
            "under [tool.lightbus] in pyproject.toml"
        )
    return app


def configured_names() -> tuple[str, ...]:
    if name := os.environ.get(APP_VARIABLE, ""):
        return tuple(part.strip() for part in name.split(",") if part.strip())
    files = settings_files(Path.cwd())
    if files.folder is None:
        return ()
    look_for_modules_in(files.folder)
    return files.texts("app")


def middleware_of(app: LoadedApp) -> tuple[Middleware, ...]:
    """Django's, when the app is one, and then what `middleware` in lightbus.toml or pyproject.toml names.

    Raises:
        ConfigError: a module or attribute is not there, cannot be imported, or is nothing to call.
    """
    files = settings_files(Path.cwd())
    found: list[Middleware] = []
    if app.is_django:
        from ..contrib.django import fresh_connections

        found.append(fresh_connections)
    for name in files.texts("middleware"):
        module_name, _, attribute = name.partition(":")
        value = attribute_of(import_module(module_name), attribute)
        if not callable(value):
            raise ConfigError(f"{files.folder}: middleware {name!r} must be MODULE:FUNCTION, got {value!r:.100}")
        found.append(value)
    return tuple(found)


def adopt(app: LoadedApp, patterns: Sequence[str]) -> tuple[str, ...]:
    """Let the app's worker run tasks that are still written for Celery; returns their names.

    Raises:
        ConfigError: there is no Celery app, or the patterns name no task of it that can be run here.
    """
    if len(app.celery_apps) != 1:
        raise ConfigError(f"--tasks needs a Celery app, and {', '.join(app.names)} has none: say -A MODULE:ATTRIBUTE")
    from ..compat import bridge
    from ..compat.app import default_app

    celery_app = app.celery_apps[0]
    if app.task_app is None:
        app.task_app = default_app()
        app.task_app.configure(bridge.settings_from(celery_app))
    return bridge.adopt(app.task_app, celery_app, patterns)


def _set_up_django(app: LoadedApp) -> None:
    """Set Django up when there are settings for it."""
    if app.is_django or not os.environ.get("DJANGO_SETTINGS_MODULE"):
        return
    try:
        from ..contrib import django

        django.set_up()
    except (Exception, SystemExit) as error:  # the project's settings, its models, Django that is not installed
        raise ConfigError(f"Django cannot be set up: {where_of(error)}") from error
    app.is_django = True


def _discover_in_django(app: LoadedApp) -> None:
    """Take what the modules of Django's installed apps declare, unless the command line names single attributes."""
    _set_up_django(app)  # a module of the app may have named the settings
    if not app.is_django:
        return
    from ..contrib import django

    try:
        modules = django.discover()
    except (Exception, SystemExit) as error:  # the project's own modules
        raise ConfigError(f"a module of Django's installed apps cannot be imported: {where_of(error)}") from error
    if not any(":" in name for name in app.names):
        for module in modules:
            for value in list(vars(module).values()):
                _take(app, value)


def _attribute(module: ModuleType, path: str) -> object:
    value = attribute_of(module, path)
    if not (isinstance(value, Bus) or _is_celery_app(value) or _is_task_app(value)):
        raise ConfigError(f"{module.__name__}:{path} is a {type(value).__name__}; it must be a Bus or a Celery app")
    return value


def _candidates(module: ModuleType) -> list[object]:
    modules = [module]
    if hasattr(module, "__path__"):
        for name in SUBMODULES:
            full = f"{module.__name__}.{name}"
            if importlib.util.find_spec(full) is not None:
                modules.append(import_module(full))
    return [value for one in modules for value in list(vars(one).values())]


def _take(app: LoadedApp, value: object) -> None:
    if isinstance(value, Bus):
        if value not in app.buses:
            app.buses.append(value)
    elif _is_celery_app(value) and value not in app.celery_apps:
        app.celery_apps.append(value)
    elif _is_task_app(value) and value not in app.task_apps:
        app.task_apps.append(value)  # type: ignore[arg-type]  # just asked


def _contracts(base: type[Api]) -> Iterator[type[Api]]:
    """The API contracts that are loaded; their implementations are not contracts."""
    for api in base.__subclasses__():
        if "api_name" in vars(api):
            yield api


def _is_celery_app(value: object) -> bool:
    """Without importing Celery: an app can only be there when it is loaded already."""
    celery = sys.modules.get("celery.app.base")
    return celery is not None and isinstance(value, celery.Celery)


def _is_task_app(value: object) -> bool:
    """Without importing `lightbus.compat`, which not every project uses."""
    compat = sys.modules.get("lightbus.compat.app")
    return compat is not None and isinstance(value, compat.TaskApp)


def _take_task_app(app: LoadedApp) -> None:
    """Take the app of `lightbus.compat` that was found, and have it import its task modules as a worker does."""
    if len(app.task_apps) > 1:
        names = ", ".join(repr(one) for one in app.task_apps)
        raise ConfigError(f"{len(app.task_apps)} task apps ({names}): say which one, with -A module:attribute")
    from ..compat import Celery
    from ..compat.app import set_default_app

    app.task_app = app.task_apps[0]
    set_default_app(app.task_app)  # the tasks of `shared_task` are its own, also where it was not the last one made
    if isinstance(app.task_app, Celery):
        try:
            app.task_app.import_default_modules()
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:  # the project's own modules
            raise ConfigError(f"a task module of {app.task_app!r} cannot be imported: {where_of(error)}") from error


def _load_tasks(app: LoadedApp) -> None:
    if len(app.celery_apps) > 1:
        names = ", ".join(repr(one.main) for one in app.celery_apps)
        raise ConfigError(f"{len(app.celery_apps)} Celery apps ({names}): say which one, with -A module:attribute")
    for celery_app in app.celery_apps:
        try:
            celery_app.loader.import_default_modules()  # as its own worker does; registers the tasks that moved
        except (Exception, SystemExit) as error:  # the project's own modules
            raise ConfigError(f"a task module of the Celery app cannot be imported: {where_of(error)}") from error
        _connect_tasks(app, celery_app)
    if app.task_apps and not app.celery_apps:
        _take_task_app(app)
    if app.task_app is None and "lightbus.compat.app" in sys.modules:
        from ..compat.app import default_app

        if default_app().tasks:
            app.task_app = default_app()


def _connect_tasks(app: LoadedApp, celery_app: Any) -> None:
    """Give `lightbus.compat` the settings of the Celery app, when its tasks are to move."""
    bridge = sys.modules.get("lightbus.compat.bridge")
    moves = bridge is not None and bridge.is_installed(celery_app)
    compat = sys.modules.get("lightbus.compat.app")
    if moves or (compat is not None and compat.default_app().tasks):
        from ..compat.app import default_app
        from ..compat.bridge import settings_from

        app.task_app = default_app()
        app.task_app.configure(settings_from(celery_app))


def read_settings(app: LoadedApp, celery_app: Any) -> None:
    """Read the configuration of the Celery app once more, because somebody has changed it.

    Raises:
        ConfigError: a setting has a value that cannot work.
    """
    from ..compat.bridge import settings_from

    if app.task_app is not None:
        app.task_app.configure(settings_from(celery_app))


def _choose_broker(app: LoadedApp, url: str | None) -> None:
    named = url or os.environ.get(URL_VARIABLE, "")
    options: Mapping[str, object] = {}
    if not named and app.celery_apps:
        conf = app.celery_apps[0].conf
        # As the bridge reads it: of a Celery app that names no broker it is Celery's default.
        named = conf.broker_write_url or app.celery_apps[0].connection_for_write().as_uri(include_password=True)
        options = conf.broker_transport_options or {}
        if conf.broker_use_ssl:
            options = {**options, "ssl": conf.broker_use_ssl}
    if not named and app.task_app is not None:
        named, options = app.task_app.settings.broker_url or "", app.task_app.settings.broker_transport_options
    own = [bus.url for bus in app.buses if bus.has_url]
    app.url = named or (own[0] if own else embedded_url())
    app.is_embedded_by_default = not named and not own
    for bus in app.buses:
        bus.use_default_url(app.url, options=options)
