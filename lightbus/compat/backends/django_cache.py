"""Results in Django's cache, as the backend `django-cache` of django-celery-results has them: dicts, which the cache
itself makes storable. That package need not be installed.
"""

from __future__ import annotations

from typing import Any

from ...core.errors import BrokerUnreachable, ConfigError
from ..results import exception_triple
from ..serializers import Codec
from ..settings import Settings
from .keyvalue import KeyValueResults

try:
    from django.core.cache import InvalidCacheBackendError, caches
except ModuleNotFoundError as error:
    raise ConfigError("results in Django's cache need Django: pip install django") from error


def open_django_cache(settings: Settings) -> KeyValueResults:
    """In the cache that the setting `cache_backend` names, or Django's default one.

    Raises:
        ConfigError: Django has no cache of that name.
    """
    name = str(settings.result_settings.get("cache_backend") or "default")
    try:
        caches[name]
    except InvalidCacheBackendError as error:
        raise ConfigError(f"cache_backend = {name!r} is not in Django's CACHES: {error}") from error
    return KeyValueResults(DjangoCacheStore(name, settings.result_codec))


class DjangoCacheStore:
    """See `keyvalue.Store`. Thread-safe, as Django gives each thread a client of its own.

    Args:
        codec: by which documents come and go; the cache does not see it.
    """

    def __init__(self, name: str, codec: Codec) -> None:
        self._name = name
        self._codec = codec

    def get(self, key: str) -> bytes | None:
        try:
            found: Any = caches[self._name].get(key)
        except Exception as error:  # each kind of cache has its own errors
            raise BrokerUnreachable(f"Django's cache {self._name!r} cannot be read: {error!r}") from error
        if found is None:
            return None
        if isinstance(found.get("result"), BaseException):  # Celery keeps the exception itself
            found = {**found, "result": exception_triple(found["result"])}
        return self._codec.dumps(found)

    def set(self, key: str, value: bytes, expires_seconds: float | None) -> None:
        try:
            caches[self._name].set(key, self._codec.loads(value), expires_seconds)
        except Exception as error:  # as above
            raise BrokerUnreachable(f"Django's cache {self._name!r} cannot be written: {error!r}") from error

    def delete(self, key: str) -> None:
        caches[self._name].delete(key)
