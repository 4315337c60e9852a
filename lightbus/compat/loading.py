"""What a Celery app loads by name: its configuration object, and the modules that declare its tasks."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from ..core.errors import ConfigError


def read_object(source: Any, *, silent: bool = False) -> dict[str, Any]:
    """The settings in a configuration object: a mapping, a module, an instance or class, or the path of one.

    Raises:
        ConfigError: the path leads nowhere; with `silent` that is an empty configuration.
    """
    if isinstance(source, str):
        try:
            source = import_path(source)
        except ImportError as error:
            if silent:
                return {}
            raise ConfigError(f"the configuration {source!r} cannot be imported: {error}") from error
    if isinstance(source, Mapping):
        return dict(source)
    found: dict[str, Any] = {}
    for name in dir(source):
        if not name.startswith("__"):
            value = getattr(source, name, None)
            if not isinstance(value, ModuleType):
                found[name] = value
    return found


def import_path(path: str) -> Any:
    """What `package.module`, `package.module:attribute` or `package.module.attribute` names.

    Raises:
        ImportError: nothing; what the modules themselves raise passes.
    """
    _look_in_working_directory()
    module_name, _, attribute = path.partition(":")
    if not attribute:
        try:
            return importlib.import_module(path)
        except ModuleNotFoundError as error:
            module_name, _, attribute = path.rpartition(".")
            if not module_name or not _is_about(error, path):
                raise
    value: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError as error:
            raise ImportError(f"{module_name!r} has no attribute {attribute!r}") from error
    return value


def import_modules(names: Iterable[str]) -> None:
    """Import task modules; what they raise is raised."""
    _look_in_working_directory()
    for name in names:
        importlib.import_module(name)


def related_modules(packages: Iterable[str], related_name: str | None) -> list[ModuleType]:
    """Import `related_name` of each package that has it; without one the package itself.

    A package that is no module stands for the one above it, as a Django app config does (`shop.apps.ShopConfig`).

    Raises:
        ImportError: there is no such package. What the modules themselves raise passes.
    """
    _look_in_working_directory()
    found = (_related_module(package, related_name) for package in packages)
    return [module for module in found if module is not None]


def _related_module(package: str, related_name: str | None) -> ModuleType | None:
    try:
        module = importlib.import_module(package)
        if not related_name:
            return module
    except ModuleNotFoundError:
        package = package.rpartition(".")[0]
        if not package:
            raise
    name = f"{package}.{related_name}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise  # a module that it imports is missing


def _is_about(error: ModuleNotFoundError, path: str) -> bool:
    return error.name is not None and (path == error.name or path.startswith(error.name + "."))


def _look_in_working_directory() -> None:
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
