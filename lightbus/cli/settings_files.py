"""lightbus.toml, and [tool.lightbus] in pyproject.toml: where the files are, and what stands in which of them.

Both may stand in one folder. Each setting, and each entry of a table, stands in one of them: none wins over the other.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError

#: File to the table of it that is read; the whole file without one.
FILES: Mapping[str, tuple[str, ...]] = {"lightbus.toml": (), "pyproject.toml": ("tool", "lightbus")}
SETTINGS = ("app", "middleware", "schedule")


@dataclass(frozen=True)
class Table:
    """What one file says.

    Attributes:
        path: of the file.
        prefix: of the names of its tables: `tool.lightbus.`, or nothing.
        values: by setting.
    """

    path: Path
    prefix: str
    values: Mapping[str, Any]

    def called(self, name: str) -> str:
        """A table of the file, as it is written there."""
        return f"[{self.prefix}{name}]"


@dataclass(frozen=True)
class SettingsFiles:
    """The files of one folder, and the folder itself; None when there is none."""

    folder: Path | None
    tables: tuple[Table, ...]

    def texts(self, key: str) -> tuple[str, ...]:
        """The text or texts under `key`; none when it is absent.

        Raises:
            ConfigError: something else stands there, or both files have it.
        """
        table = self._only(key)
        if table is None:
            return ()
        value = table.values[key]
        if isinstance(value, str):
            return (value,)
        if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
            return tuple(value)
        raise ConfigError(f"{table.path}: {key} must be a text or a list of texts, got {value!r}")

    def entries(self, key: str) -> dict[str, tuple[Mapping[str, Any], Table]]:
        """The tables under `key` by name, each with where it stands; none when it is absent.

        Raises:
            ConfigError: something else stands there, or both files have one of that name.
        """
        found: dict[str, tuple[Mapping[str, Any], Table]] = {}
        for table in self.tables:
            value = table.values.get(key, {})
            if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
                raise ConfigError(f"{table.path}: {table.called(key)} must hold tables, got {value!r:.200}")
            for name, one in value.items():
                if name in found:
                    raise _twice(f"{key}.{name}", found[name][1], table)
                found[name] = (one, table)
        return found

    def origins(self) -> dict[str, Path]:
        """Each setting that is told, `schedule.NAME` for the entries of tables, and its file.

        Raises:
            ConfigError: as the others.
        """
        singles: dict[str, Path] = {}
        for key in ("app", "middleware"):
            if self.texts(key) and (table := self._only(key)) is not None:
                singles[key] = table.path
        return singles | {f"schedule.{name}": table.path for name, (_, table) in self.entries("schedule").items()}

    def _only(self, key: str) -> Table | None:
        having = [table for table in self.tables if key in table.values]
        if len(having) > 1:
            raise _twice(key, *having)
        return having[0] if having else None


def settings_files(folder: Path) -> SettingsFiles:
    """What stands in `folder`, or in the nearest folder above that has a lightbus.toml or a pyproject.toml.

    Raises:
        ConfigError: a file is no TOML, or has a setting that is not known.
    """
    for place in (folder, *folder.parents):
        paths = [path for name in FILES if (path := place / name).is_file()]
        if paths:
            return SettingsFiles(place, tuple(_read(path) for path in paths))
    return SettingsFiles(None, ())


def _read(path: Path) -> Table:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        values: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    names = FILES[path.name]
    for name in names:
        values = values.get(name, {}) if isinstance(values, dict) else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: [{'.'.join(names)}] must be a table, got {values!r}")
    for key in values:
        if key not in SETTINGS:
            import difflib  # only a mistake needs it

            near = difflib.get_close_matches(key, SETTINGS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(SETTINGS)}"
            if path.name == "lightbus.toml" and key == "tool":
                hint = "here the tables have no prefix: write [schedule.NAME] for [tool.lightbus.schedule.NAME]"
            raise ConfigError(f"{path}: there is no setting {key!r}: {hint}")
    return Table(path, "".join(f"{name}." for name in names), values)


def _twice(what: str, one: Table, other: Table) -> ConfigError:
    return ConfigError(f"{what!r} stands in {one.path} and in {other.path}: remove it from one of them")
