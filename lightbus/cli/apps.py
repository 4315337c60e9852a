"""Finds the app that a command is about: its buses, its Celery app, its tasks and its API contracts.

`-A shop` loads the module `shop`; when that is a package, also `shop.bus`, `shop.celery` and `shop.tasks`, as far as
they are there. `-A shop.bus:bus` takes one attribute.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..bus import Bus
from ..config import URL_VARIABLE, embedded_url, resolve_url
from ..core.api import Api, Event, Rpc
from ..core.errors import ConfigError

if TYPE_CHECKING:
    from ..compat.app import TaskApp

APP_VARIABLE = "LIGHTBUS_APP"
SUBMODULES = ("bus", "celery", "tasks", "events")


@dataclass
class LoadedApp:
    """What stands in the modules that `-A` names.

    Attributes:
        url: the broker of the buses that name none themselves.
        is_embedded_by_default: nobody named a broker.
    """

    names: tuple[str, ...] = ()
    buses: list[Bus] = field(default_factory=list)
    celery_apps: list[Any] = field(default_factory=list)
    task_app: TaskApp | None = None
    apis: dict[str, type[Api]] = field(default_factory=dict)
    url: str = ""
    is_embedded_by_default: bool = False

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
        names: from the command line; empty asks LIGHTBUS_APP, then pyproject.toml.
        url: a broker from the command line; wins over LIGHTBUS_URL.

    Raises:
        ConfigError: a module or attribute is not there, or cannot be imported.
    """
    sys.path[:0] = [] if os.getcwd() in sys.path else [os.getcwd()]
    names = names or _configured_names()
    app = LoadedApp(names=names)
    for name in names:
        module_name, _, attribute = name.partition(":")
        module = _import(module_name)
        found = [_attribute(module, attribute)] if attribute else _candidates(module)
        for one in found:
            _take(app, one)
        for one in _candidates(module):
            if isinstance(one, type):
                _take(app, one)
    _connect_tasks(app)
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
            f'no app: say -A MODULE[:ATTRIBUTE], or set {APP_VARIABLE}, or write `app = "..."` under [tool.lightbus] '
            "in pyproject.toml"
        )
    return app


def _configured_names() -> tuple[str, ...]:
    if name := os.environ.get(APP_VARIABLE, ""):
        return tuple(part.strip() for part in name.split(",") if part.strip())
    folder = Path.cwd()
    for path in (place / "pyproject.toml" for place in (folder, *folder.parents)):
        if path.is_file():
            return _names_in(path)
    return ()


def _names_in(path: Path) -> tuple[str, ...]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        section = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("lightbus", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    value = section.get("app", ())
    if isinstance(value, str):
        return (value,)
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ConfigError(f"{path}: app under [tool.lightbus] must be a text or a list of texts, got {value!r}")


def _import(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{name!r} is no module name; write it as in an import, for example -A shop.bus")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(
                f"there is no module {name!r}: run the command in the project's folder, or install the project"
            ) from error
        raise ConfigError(f"module {name!r} cannot be imported: {_where(error)}") from error
    except Exception as error:  # whatever the project's own code raises
        raise ConfigError(f"module {name!r} cannot be imported: {_where(error)}") from error


def _where(error: Exception) -> str:
    """The error with the last line of the project's own code that led to it."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _attribute(module: ModuleType, path: str) -> object:
    value: object = module
    for name in path.split("."):
        if not hasattr(value, name):
            raise ConfigError(f"module {module.__name__!r} has no attribute {path!r}")
        value = getattr(value, name)
    if not (isinstance(value, Bus) or _is_celery_app(value)):
        raise ConfigError(f"{module.__name__}:{path} is a {type(value).__name__}; it must be a Bus or a Celery app")
    return value


def _candidates(module: ModuleType) -> list[object]:
    modules = [module]
    if hasattr(module, "__path__"):
        for name in SUBMODULES:
            full = f"{module.__name__}.{name}"
            if importlib.util.find_spec(full) is not None:
                modules.append(_import(full))
    return [value for one in modules for value in list(vars(one).values())]


def _take(app: LoadedApp, value: object) -> None:
    if isinstance(value, Bus):
        if value not in app.buses:
            app.buses.append(value)
        for api in value.apis():
            app.apis[api.__qualname__ + api.api_version] = api
    elif isinstance(value, type):
        if issubclass(value, Api) and value.api_name and "api_name" in vars(value):
            app.apis[value.__qualname__ + value.api_version] = value
    elif _is_celery_app(value) and value not in app.celery_apps:
        app.celery_apps.append(value)


def _is_celery_app(value: object) -> bool:
    """Without importing Celery: an app can only be there when it is loaded already."""
    celery = sys.modules.get("celery.app.base")
    return celery is not None and isinstance(value, celery.Celery)


def _connect_tasks(app: LoadedApp) -> None:
    if app.celery_apps:
        from ..compat.app import default_app
        from ..compat.bridge import settings_from

        if len(app.celery_apps) > 1:
            names = ", ".join(repr(one.main) for one in app.celery_apps)
            raise ConfigError(f"{len(app.celery_apps)} Celery apps ({names}): say which one, with -A module:attribute")
        celery_app = app.celery_apps[0]
        celery_app.loader.import_default_modules()  # as its own worker does; registers the tasks that moved
        app.task_app = default_app()
        app.task_app.configure(settings_from(celery_app))
    elif "lightbus.compat.app" in sys.modules:
        from ..compat.app import default_app

        if default_app().tasks:
            app.task_app = default_app()


def _choose_broker(app: LoadedApp, url: str | None) -> None:
    named = url or os.environ.get(URL_VARIABLE, "")
    if not named and app.task_app is not None:
        named = app.task_app.settings.broker_url or ""
    own = [bus for bus in app.buses if bus.has_url]
    if not named and own:
        named = own[0].url
    app.is_embedded_by_default = not named
    app.url = resolve_url(named) if named else embedded_url()
    for bus in app.buses:
        bus.use_default_url(app.url)
