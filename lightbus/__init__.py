"""Lightbus: events, RPC, tasks and schedules for several Python applications on one broker.

The names in `__all__` are the public ones. Each is loaded when it is first used (PEP 562), from the module that stands
beside it below: loading them all takes longer than `lightbus --help` may. No broker library is loaded by any of them.
"""

from typing import TYPE_CHECKING

from .version import VERSION

if TYPE_CHECKING:
    from .bus import Bus
    from .core.anyevent import AnyEvent
    from .core.api import Api, Event, rpc
    from .core.batch import Batch
    from .core.concurrency import Concurrency
    from .core.errors import (
        AccessRefused,
        ApiError,
        BadArguments,
        BrokerUnreachable,
        CallError,
        CallTimeout,
        ConfigError,
        ConnectionLost,
        DeclarationError,
        Expired,
        HandlerStopped,
        LightbusError,
        MessageError,
        NotConfirmed,
        NotServed,
        Rejected,
        RemoteError,
        SoftTimeLimitExceeded,
        TimeLimitExceeded,
        TransportError,
        Unroutable,
        Unwritable,
        WorkerLost,
    )
    from .core.ordering import Ordered
    from .core.rate import Rate
    from .core.retry import RetryPolicy
    from .dedupe import Dedupe
    from .drivers import open_result_backend, open_schedule_store, open_transport
    from .endpoint import Invocation, current_delivery
    from .middleware import Middleware

__version__ = VERSION

__all__ = [
    "AccessRefused",
    "AnyEvent",
    "Api",
    "ApiError",
    "BadArguments",
    "Batch",
    "BrokerUnreachable",
    "Bus",
    "CallError",
    "CallTimeout",
    "Concurrency",
    "ConfigError",
    "ConnectionLost",
    "DeclarationError",
    "Dedupe",
    "Event",
    "Expired",
    "HandlerStopped",
    "Invocation",
    "LightbusError",
    "MessageError",
    "Middleware",
    "NotConfirmed",
    "NotServed",
    "Ordered",
    "Rate",
    "Rejected",
    "RemoteError",
    "RetryPolicy",
    "SoftTimeLimitExceeded",
    "TimeLimitExceeded",
    "TransportError",
    "Unroutable",
    "Unwritable",
    "WorkerLost",
    "current_delivery",
    "open_result_backend",
    "open_schedule_store",
    "open_transport",
    "rpc",
]

#: Where the public names that are no errors stand; the errors all stand in `core.errors`.
_HOMES = {
    "AnyEvent": "core.anyevent",
    "Api": "core.api",
    "Batch": "core.batch",
    "Bus": "bus",
    "Concurrency": "core.concurrency",
    "Dedupe": "dedupe",
    "Event": "core.api",
    "Invocation": "endpoint",
    "Middleware": "middleware",
    "Ordered": "core.ordering",
    "Rate": "core.rate",
    "RetryPolicy": "core.retry",
    "current_delivery": "endpoint",
    "open_result_backend": "drivers",
    "open_schedule_store": "drivers",
    "open_transport": "drivers",
    "rpc": "core.api",
}


def __getattr__(name: str) -> object:
    """Load a public name; any other is the AttributeError that it is in every module."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f".{_HOMES.get(name, 'core.errors')}", __name__), name)
    globals()[name] = value  # so that this function is asked once per name
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
