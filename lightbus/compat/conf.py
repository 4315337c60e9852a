"""`app.conf`: a Celery project's configuration by name, read when it is first asked for.

A value is looked for among what the app was given or told (`Celery(broker=...)`, `app.conf.x = ...`), then in what
`config_from_object` names, then among Celery's defaults; under its new name, its old one, and with the namespace in
front. Names that are not Celery's are kept and can be read back.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from ..core.errors import ConfigError
from . import settingnames

_VARIABLES = {
    "broker_url": "CELERY_BROKER_URL",
    "broker_read_url": "CELERY_BROKER_READ_URL",
    "broker_write_url": "CELERY_BROKER_WRITE_URL",
    "result_backend": "CELERY_RESULT_BACKEND",
}
_HIDDEN = ("API", "TOKEN", "KEY", "SECRET", "PASS", "PROFANITIES_LIST", "SIGNATURE", "DATABASE")


class Configuration(MutableMapping[str, Any]):
    """Settings as attributes and as items. Celery's own `conf` has dynamic attributes, so this one has too.

    Args:
        read: gives what the project's configuration object holds; asked once, at the first reading.
        loaded: called after that.
        changed: called after a value was set.
        namespace: what stands in front of each name in that object, such as "CELERY".
    """

    def __init__(
        self,
        read: Callable[[], Mapping[str, Any]],
        loaded: Callable[[], None],
        changed: Callable[[], None],
        namespace: str | None = None,
    ) -> None:
        vars(self).update(
            _read=read,
            _loaded=loaded,
            _changed=changed,
            _namespace=namespace,
            _changes={},
            _source=None,
            _added={},
            _defaults={one.name: copy.deepcopy(one.default) for one in settingnames.SETTINGS},
        )

    @property
    def is_read(self) -> bool:
        """Whether the configuration object has been read."""
        return self._source is not None

    @property
    def changes(self) -> dict[str, Any]:
        """What was set in code, and not in the configuration object."""
        found: dict[str, Any] = self._changes
        return found

    def read_again(self, namespace: str | None) -> None:
        """Read the configuration object when a value is next asked for."""
        vars(self).update(_source=None, _namespace=namespace or self._namespace)

    def given(self) -> dict[str, Any]:
        """Every setting of Celery's that is given somewhere, by its new name.

        Raises:
            ConfigError: old and new names are mixed.
        """
        source = self._finalize()
        found = {}
        for one in settingnames.SETTINGS:
            for mapping in (self._changes, source, self._added):
                name = next((name for name in self._spellings(one.name) if name in mapping), None)
                if name is not None:
                    found[one.name] = mapping[name]
                    break
        if found.get("timezone") is None and source.get("TIME_ZONE"):
            found["timezone"] = source["TIME_ZONE"]  # Django's
        for name, variable in _VARIABLES.items():
            if os.environ.get(variable):
                found[name] = os.environ[variable]
        return found

    def __getitem__(self, name: str) -> Any:
        source = self._finalize()
        names = self._spellings(name)
        for mapping in (self._changes, source, self._added, self._defaults):
            for spelling in names:
                if spelling in mapping:
                    return mapping[spelling]
        raise KeyError(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._changes[settingnames.OLD_TO_NEW.get(name, name)] = value
        self._changed()

    def __delitem__(self, name: str) -> None:
        del self._changes[settingnames.OLD_TO_NEW.get(name, name)]
        self._changed()

    def __contains__(self, name: object) -> bool:
        mappings = (self._changes, self._source or {}, self._added, self._defaults)
        return any(spelling in mapping for mapping in mappings for spelling in self._spellings(str(name)))

    def __iter__(self) -> Iterator[str]:
        source = self._finalize()
        return iter(dict.fromkeys([*self._changes, *source, *self._added, *self._defaults]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if variable := os.environ.get(_VARIABLES.get(name, ""), ""):
            return variable
        try:
            value = self[name]
        except KeyError:
            raise AttributeError(f"the configuration has no setting {name!r}") from None
        if value is None and name == "timezone":
            return self.get("TIME_ZONE")
        if value is None and name in ("task_default_exchange", "task_default_routing_key"):
            return self["task_default_queue"]
        if value is None and name in ("broker_read_url", "broker_write_url"):
            return self.broker_url
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def first(self, *names: str) -> Any:
        """The first of these settings that is not None."""
        return next((value for name in names if (value := self.get(name)) is not None), None)

    def value_set_for(self, name: str) -> bool:
        """Whether the setting is given somewhere, and not just Celery's default."""
        source = self._finalize()
        return any(spelling in mapping for mapping in (self._changes, source) for spelling in self._spellings(name))

    def add_defaults(self, values: Mapping[str, Any]) -> None:
        """Take `values` where nothing else is given."""
        self._added.update(values)
        self._changed()

    def without_defaults(self) -> dict[str, Any]:
        """What is given somewhere."""
        return {**self._finalize(), **self._changes}

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Settings by name; with `censored`, those that look like secrets are masked."""
        found = dict(self) if with_defaults else self.without_defaults()
        if not censored:
            return found
        return {
            key: "********" if value and any(part in key.upper() for part in _HIDDEN) else _without_password(key, value)
            for key, value in found.items()
            if not key.startswith("_")
        }

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """`table` as text, a line for each setting."""
        return "\n".join(f"{key}: {value!r}" for key, value in self.table(with_defaults, censored).items())

    def __repr__(self) -> str:
        return f"<Configuration {self.table() if self.is_read else 'not read yet'}>"

    def _spellings(self, name: str) -> tuple[str, ...]:
        known = settingnames.BY_NAME.get(name)
        names = [name, settingnames.OLD_TO_NEW.get(name, name), known.old_name if known else name]
        if self._namespace:
            prefix = self._namespace.rstrip("_") + "_"
            whole = name if name.startswith(prefix) else prefix + name
            names.insert(0, whole.upper() if prefix.isupper() else whole)
        return tuple(dict.fromkeys(names))

    def _finalize(self) -> Mapping[str, Any]:
        if self._source is None:
            vars(self)["_source"] = {}  # whoever is told of the reading may ask for settings
            try:
                source = dict(self._read())
                if not self._namespace:
                    check_not_mixed(source)
            except BaseException:
                vars(self)["_source"] = None
                raise
            vars(self)["_source"] = source
            self._loaded()
        found: Mapping[str, Any] = self._source
        return found


def check_not_mixed(source: Mapping[str, Any]) -> None:
    """Raise ConfigError when Celery's old names and new names stand side by side, as Celery does.

    One setting under both names is no mixture.
    """
    new = {name for name in source if name in settingnames.BY_NAME}
    old = {name for name in source if name in settingnames.OLD_TO_NEW}
    fewer = old if len(new) >= len(old) else new
    wanted = {
        name: settingnames.OLD_TO_NEW[name] if fewer is old else settingnames.BY_NAME[name].old_name for name in fewer
    }
    wrong = sorted(name for name, instead in wanted.items() if instead not in source)
    if new and wrong:
        renames = ", ".join(f"{name} -> {wanted[name]}" for name in wrong)
        raise ConfigError(f"the configuration mixes old and new names of Celery's settings; rename {renames}")


def _without_password(key: str, value: Any) -> Any:
    if not isinstance(value, str) or "://" not in value or "@" not in value:
        return value
    scheme, _, rest = value.partition("://")
    credentials, _, host = rest.rpartition("@")
    return f"{scheme}://{credentials.partition(':')[0]}:********@{host}" if ":" in credentials else value
