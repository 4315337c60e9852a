"""Which driver serves which broker URL. The drivers themselves, and the libraries they stand on, are loaded on use.

Nothing else in Lightbus names a driver. What a driver has to do is in `lightbus.ports`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ..core.claims import ClaimStore
from ..core.errors import ConfigError
from ..ports import ScheduleStore, Transport
from ..result_ports import ResultBackend

_AMQP = "lightbus.drivers.kombu.amqp:AmqpTransport"
_VIRTUAL = "lightbus.drivers.kombu.virtual:open_virtual"

#: Scheme to `module:factory`; a factory takes the URL and the transport options.
_TRANSPORTS: Mapping[str, str] = MappingProxyType(
    {
        "amqp": _AMQP,
        "amqps": _AMQP,
        "pyamqp": _AMQP,
        "memory": "lightbus.drivers.memory:open_memory",
        "redis": _VIRTUAL,
        "rediss": _VIRTUAL,
        "redis+socket": _VIRTUAL,
        "sentinel": _VIRTUAL,
        "sqlite": _VIRTUAL,
        "sqs": _VIRTUAL,
        "SQS": _VIRTUAL,
        "filesystem": _VIRTUAL,
        "mongodb": _VIRTUAL,
        "sqla": _VIRTUAL,
        "sqlalchemy": _VIRTUAL,
        "zookeeper": _VIRTUAL,
        "etcd": _VIRTUAL,
        "consul": _VIRTUAL,
        "azurestoragequeues": _VIRTUAL,
        "azureservicebus": _VIRTUAL,
        "gcpubsub": _VIRTUAL,
        "confluentkafka": _VIRTUAL,
    }
)

_RESULT_BACKENDS: Mapping[str, str] = MappingProxyType(
    {
        "redis": "lightbus.drivers.redis_results:RedisResults",
        "rediss": "lightbus.drivers.redis_results:RedisResults",
        "redis+socket": "lightbus.drivers.redis_results:RedisResults",
        "sentinel": "lightbus.drivers.redis_results:RedisResults",
        "memory": "lightbus.drivers.memory_results:open_memory_results",
    }
)

_AMQP_SCHEDULE = "lightbus.drivers.kombu.amqp_schedule:AmqpScheduleStore"
_REDIS_SCHEDULE = "lightbus.drivers.kombu.redis_schedule:RedisScheduleStore"

_SCHEDULE_STORES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("amqp", "amqps", "pyamqp"), _AMQP_SCHEDULE),
        **dict.fromkeys(("redis", "rediss", "redis+socket", "sentinel"), _REDIS_SCHEDULE),
        "sqlite": "lightbus.drivers.sqlite.schedule:open_sqlite_schedule",
    }
)

_CLAIM_STORES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("redis", "rediss", "redis+socket", "sentinel"), "lightbus.drivers.redis_claims:RedisClaims"),
        "sqlite": "lightbus.drivers.sqlite_claims:open_sqlite_claims",
        "memory": "lightbus.drivers.sqlite_claims:open_memory_claims",
    }
)

_NO_OPTIONS: Mapping[str, object] = MappingProxyType({})


def open_transport(url: str, *, options: Mapping[str, object] = _NO_OPTIONS) -> Transport:
    """The transport to the broker at `url`; it connects on first use.

    Args:
        url: for example `amqp://user:password@host/vhost`, `redis://host:6379/0`, `sqlite:///path`, `memory://`.
            Each call with `memory://` makes a broker of its own; `MemoryTransport(broker)` shares one.
        options: transport options, the same as Celery's `broker_transport_options`.

    Raises:
        ConfigError: no driver has that scheme, or the library it needs is not installed.
    """
    factory = _load(url, _TRANSPORTS, "broker")
    transport: Transport = factory(url, options)  # type: ignore[assignment]
    return transport


def open_result_backend(url: str, *, options: Mapping[str, object] = _NO_OPTIONS) -> ResultBackend:
    """The store of task results at `url`; it connects on first use.

    Args:
        url: `redis://`, `rediss://`, `redis+socket:///path`, `sentinel://host;sentinel://host` or `memory://`.
        options: for Redis; see `drivers.redis_results`.

    Raises:
        ConfigError: no driver has that scheme, or the library it needs is not installed.
    """
    factory = _load(url, _RESULT_BACKENDS, "result backend")
    backend: ResultBackend = factory(url, options)  # type: ignore[assignment]
    return backend


def open_claim_store(url: str) -> ClaimStore:
    """Where the claims of listeners with `dedupe=` are kept. It connects on first use.

    Args:
        url: `sqlite:///path` (one machine), `redis://` and its kin, or `memory://` (one process).

    Raises:
        ConfigError: no driver has that scheme, or the library it needs is not installed.
    """
    store: ClaimStore = _load(url, _CLAIM_STORES, "store of claims")(url)  # type: ignore[assignment]
    return store


def open_schedule_store(url: str, *, options: Mapping[str, object] = _NO_OPTIONS) -> ScheduleStore:
    """Where the schedule of the broker at `url` is kept: on that broker. It connects on first use.

    Raises:
        ConfigError: that broker cannot keep one, or the library it needs is not installed.
    """
    factory = _load(url, _SCHEDULE_STORES, "schedule's broker")
    store: ScheduleStore = factory(url, options)  # type: ignore[assignment]
    return store


def _load(url: str, table: Mapping[str, str], what: str) -> Callable[..., object]:
    scheme, found, _ = url.partition("://")
    if not found:
        raise ConfigError(f"a {what} URL begins with a scheme and '://', for example 'redis://localhost', got {url!r}")
    # A URL such as sqla+postgresql:// names kombu's transport first.
    target = table.get(scheme) or table.get(scheme.partition("+")[0])
    if target is None:
        import difflib  # only a mistake needs it

        near = difflib.get_close_matches(scheme, table, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(table))}"
        raise ConfigError(f"no {what} has the URL scheme {scheme!r}: {hint}")
    module_name, _, name = target.partition(":")
    try:
        factory: Callable[..., object] = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("lightbus"):
            raise
        raise ConfigError(f"{scheme}:// needs the package {error.name!r}: pip install {error.name}") from error
    return factory
