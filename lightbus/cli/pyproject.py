"""[tool.lightbus] in pyproject.toml: where the file is, and the texts that stand in it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from ..core.errors import ConfigError


def path_from(folder: Path) -> Path | None:
    """The pyproject.toml of `folder`, or of the nearest folder above that has one."""
    candidates = (place / "pyproject.toml" for place in (folder, *folder.parents))
    return next((path for path in candidates if path.is_file()), None)


def texts(path: Path, key: str) -> tuple[str, ...]:
    """The text or texts under `key`; none when it is absent.

    Raises:
        ConfigError: the file is no TOML, or something else stands there.
    """
    value = _section(path).get(key, ())
    if isinstance(value, str):
        return (value,)
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise ConfigError(f"{path}: {key} under [tool.lightbus] must be a text or a list of texts, got {value!r}")


def tables(path: Path, key: str) -> dict[str, Mapping[str, object]]:
    """The tables under `key`, by name; none when it is absent.

    Raises:
        ConfigError: the file is no TOML, or something else stands there.
    """
    value = _section(path).get(key, {})
    if isinstance(value, dict) and all(isinstance(table, dict) for table in value.values()):
        return value
    raise ConfigError(f"{path}: {key} under [tool.lightbus] must be tables, got {value!r}")


def _section(path: Path) -> Mapping[str, object]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        section = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("lightbus", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: [tool.lightbus] must be a table, got {section!r}")
    return section
