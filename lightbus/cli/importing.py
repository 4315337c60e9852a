"""Imports what somebody names on a command line, and says in one sentence why that cannot be."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from ..core.errors import ConfigError

_LIGHTBUS = os.path.dirname(os.path.dirname(__file__)) + os.sep


def look_for_modules_in(folder: Path) -> None:
    """Before anywhere else."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def import_module(name: str) -> ModuleType:
    """Raises ConfigError: there is none of that name, or its code fails."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{name!r} is no module name; write it as in an import, for example -A shop.bus")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(
                f"there is no module {name!r}: run the command in the project's folder, or install the project"
            ) from error
        raise ConfigError(f"module {name!r} cannot be imported: {where_of(error)}") from error
    except (Exception, SystemExit) as error:  # whatever the project's own code raises
        raise ConfigError(f"module {name!r} cannot be imported: {where_of(error)}") from error


def where_of(error: BaseException) -> str:
    """The error with the last line of the project's own code that led to it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen", os.path.dirname(importlib.__file__), _LIGHTBUS))
    ]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def attribute_of(module: ModuleType, path: str) -> object:
    """The module itself where `path` is empty.

    Raises:
        ConfigError: it has none.
    """
    value: object = module
    for name in path.split(".") if path else ():
        if not hasattr(value, name):
            raise ConfigError(f"module {module.__name__!r} has no attribute {path!r}")
        value = getattr(value, name)
    return value
