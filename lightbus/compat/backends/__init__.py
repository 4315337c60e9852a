"""Where results are kept, chosen by `result_backend`: a URL, a name, or a backend class of Celery's.

Redis and memory are Lightbus's own drivers. Here are the places whose layout is Celery's: database tables, Django's
tables and cache, files; and, while Celery is installed, any other of its backends through its own class.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ... import open_result_backend
from ...core.errors import ConfigError

if TYPE_CHECKING:
    from ...result_ports import ResultBackend
    from ..settings import Settings

__all__ = ["open_backend"]

_REDIS = ("redis", "rediss", "redis+socket", "sentinel")
#: Celery's setting to the option of the Redis driver.
_REDIS_OPTIONS = {
    "redis_host": "host",
    "redis_port": "port",
    "redis_db": "db",
    "redis_username": "username",
    "redis_password": "password",
    "redis_max_connections": "max_connections",
    "redis_socket_timeout": "socket_timeout",
    "redis_socket_connect_timeout": "socket_connect_timeout",
    "redis_socket_keepalive": "socket_keepalive",
    "redis_backend_health_check_interval": "health_check_interval",
    "redis_client_name": "client_name",
    "redis_backend_use_ssl": "ssl",
}


def open_backend(settings: Settings) -> ResultBackend:
    """The place that `settings.result_backend` names; it connects on first use.

    Raises:
        ConfigError: there is none of that kind, what it needs is not installed, or one of its settings is wrong.
    """
    named = settings.result_backend
    if isinstance(named, str):
        scheme, found, _ = named.partition("://")
        if scheme in _REDIS:
            url = named if found else f"{named}://"
            return open_result_backend(url, options=redis_options(settings.result_settings))
        kind = scheme.partition("+")[0] if found else named
        opened = _own(kind, named, settings)
        if opened is not None:
            return opened
    if find_spec("celery") is None:
        raise ConfigError(
            f"no result backend of the kind {_kind(named)!r}: known are redis://, rediss://, redis+socket://, "
            "sentinel://, rpc://, db+..., file://, cache+memory://, django-db and django-cache. Any other of Celery's "
            "is used through its own class while Celery is installed: pip install celery"
        )
    from .celery_class import open_celery_backend

    return open_celery_backend(settings)


def redis_options(settings: Mapping[str, object]) -> dict[str, Any]:
    """The driver's options in Celery's settings for result backends."""
    given = settings.get("result_backend_transport_options") or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"result_backend_transport_options must be a dict, got {given!r}")
    found = {name: settings[key] for key, name in _REDIS_OPTIONS.items() if settings.get(key) is not None}
    return {**found, **given}


def _own(kind: str, named: str, settings: Settings) -> ResultBackend | None:
    """One of those in this package, which are loaded on use."""
    if kind in ("db", "database"):
        from .database import open_database

        return open_database(named, settings)
    if kind == "file":
        from .files import open_files

        return open_files(named)
    if named.startswith(("cache+memory://", "memory://")) or (kind == "cache" and _cache_is_memory(settings)):
        return open_result_backend("memory://")
    if kind == "django-db":
        from .django_tables import open_django_tables

        return open_django_tables(settings)
    if kind == "django-cache":
        from .django_cache import open_django_cache

        return open_django_cache(settings)
    return None


def _cache_is_memory(settings: Settings) -> bool:
    return str(settings.result_settings.get("cache_backend") or "").startswith("memory")


def _kind(named: object) -> str:
    """What a backend is called, without the rest of its URL, which may hold a password."""
    return str(named).partition("://")[0]
