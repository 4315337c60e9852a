"""Lightbus: events, RPC, tasks and schedules for several Python applications on one broker.

The names here are the public ones. Importing them loads no broker library; that happens on first use.
"""

from .bus import Bus
from .core.api import Api, Event, rpc
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
    LightbusError,
    MessageError,
    NotConfirmed,
    NotServed,
    Rejected,
    RemoteError,
    TransportError,
    Unroutable,
)
from .core.retry import RetryPolicy
from .drivers import open_result_backend, open_transport
from .endpoint import Invocation, current_delivery
from .version import VERSION

__version__ = VERSION

__all__ = [
    "AccessRefused",
    "Api",
    "ApiError",
    "BadArguments",
    "BrokerUnreachable",
    "Bus",
    "CallError",
    "CallTimeout",
    "ConfigError",
    "ConnectionLost",
    "DeclarationError",
    "Event",
    "Expired",
    "Invocation",
    "LightbusError",
    "MessageError",
    "NotConfirmed",
    "NotServed",
    "Rejected",
    "RemoteError",
    "RetryPolicy",
    "TransportError",
    "Unroutable",
    "current_delivery",
    "open_result_backend",
    "open_transport",
    "rpc",
]
