"""The options of `apply_async` and `send_task` to a message: what each option means on the wire. Pure but for its ids.

Options of kombu that only steer a publish (`retry`, `retry_policy`, `confirm_timeout`, `producer`, `connection`, ...)
have no effect: Lightbus always publishes with confirm, on its own connection, and heals that itself. `router` would
send the message elsewhere and is refused.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from ..core.message import Route
from .compression import compression_name
from .fields import moment
from .protocol import TaskMessage
from .results import safe_repr
from .serializers import JSON, content_type_of
from .signatures import as_signature_dicts

_WITHOUT_EFFECT = frozenset(
    {
        "retry", "retry_policy", "mandatory", "immediate", "timeout", "confirm_timeout", "declare", "exchange_type",
        "add_to_parent", "route_name", "result_cls", "task_type", "queue", "expiration", "producer", "publisher",
        "connection", "compression",
    }
)  # fmt: skip
_REFUSED = ("router",)


@dataclass(frozen=True, kw_only=True)
class Sending:
    """A message, and what the one who publishes it has to know besides.

    Attributes:
        queue: the Celery queue that the options ask for; `""` leaves it to the routes.
        route: exchange and routing key that the options ask for in place of a queue.
        delay_seconds: until its `eta`; 0 when there is none, or it is past.
    """

    message: TaskMessage
    queue: str = ""
    route: Route | None = None
    delay_seconds: float = 0.0


def prepare(
    name: str,
    args: Any,
    kwargs: Any,
    options: Mapping[str, Any],
    *,
    task_id: str,
    now: float,
    zone: tzinfo | None,
) -> Sending:
    """The message for a call with Celery's `options`.

    Args:
        task_id: used when the options name none.
        now: Unix seconds.
        zone: of moments without an offset, and of those computed here.

    Raises:
        TypeError: an argument has the wrong type, or an option cannot be honoured.
        ValueError: an unknown serializer or compression is asked for, or a moment cannot be read.
    """
    _check(name, args, kwargs, options)
    rest = {key: value for key, value in options.items() if key not in _REFUSED}
    positional, named = tuple(args or ()), dict(kwargs or {})
    message_id = str(rest.pop("task_id", None) or task_id)
    countdown, at = rest.pop("countdown", None), rest.pop("eta", None)
    eta = _moment_text(countdown or at, now=now, zone=zone)
    expires = _moment_text(rest.pop("expires", None), now=now, zone=zone)
    queue = rest.pop("queue", None)
    route = _route(rest.pop("exchange", None), rest.pop("routing_key", None))
    stamped = rest.pop("stamped_headers", None)
    stamps = {key: rest.pop(key, None) for key in stamped or ()}
    argsrepr, kwargsrepr = rest.pop("argsrepr", None), rest.pop("kwargsrepr", None)
    message = TaskMessage(
        task=name,
        id=message_id,
        args=positional,
        kwargs=named,
        retries=int(rest.pop("retries", None) or 0),
        eta=eta,
        expires=expires,
        timelimit=(rest.pop("time_limit", None), rest.pop("soft_time_limit", None)),
        root_id=rest.pop("root_id", None) or message_id,
        parent_id=rest.pop("parent_id", None),
        group=rest.pop("group_id", None),
        group_index=rest.pop("group_index", None),
        shadow=rest.pop("shadow", None),
        origin=rest.pop("origin", None) or f"gen{os.getpid()}@{socket.gethostname()}",
        argsrepr=safe_repr(positional) if argsrepr is None else argsrepr,
        kwargsrepr=safe_repr(named) if kwargsrepr is None else kwargsrepr,
        ignore_result=rest.pop("ignore_result", None),
        replaced_task_nesting=int(rest.pop("replaced_task_nesting", None) or 0),
        stamped_headers=None if stamped is None else tuple(stamped),
        stamps=stamps,
        callbacks=as_signature_dicts(rest.pop("link", None), "link"),
        errbacks=as_signature_dicts(rest.pop("link_error", None), "link_error"),
        chain=as_signature_dicts(rest.pop("chain", None), "chain"),
        chord=(as_signature_dicts(rest.pop("chord", None), "chord") or (None,))[0],
        headers=dict(rest.pop("headers", None) or {}),
        reply_to=rest.pop("reply_to", None) or "",
        correlation_id=message_id,
        priority=rest.pop("priority", None),
        expiration_seconds=max(0.0, moment(expires, zone) - now) if expires else None,
        durable=rest.pop("delivery_mode", None) not in (1, "transient"),
        compression=compression_name(rest.get("compression")),
        serializer=_serializer(rest.pop("serializer", None)),
        properties={key: value for key, value in rest.items() if key not in _WITHOUT_EFFECT},
    )
    delay = max(0.0, moment(eta, zone) - now) if eta else 0.0
    return Sending(message=message, queue=_name(queue), route=None if queue else route, delay_seconds=delay)


def _check(name: str, args: Any, kwargs: Any, options: Mapping[str, Any]) -> None:
    for key in _REFUSED:
        if options.get(key):
            raise TypeError(
                f"the option {key!r} has no meaning here: tasks are routed by queue, on the app's own broker"
            )
    if not isinstance(args or (), (list, tuple)):
        raise TypeError(f"args of task {name!r} must be a list or tuple, got {args!r:.100}")
    if not isinstance(kwargs or {}, Mapping):
        raise TypeError(f"kwargs of task {name!r} must be a mapping, got {kwargs!r:.100}")


def _serializer(name: object) -> str:
    """As in `TaskMessage.serializer`; raises ValueError when it is none."""
    if name is None or name == JSON:
        return ""
    content_type_of(str(name))
    return str(name)


def _moment_text(value: object, *, now: float, zone: tzinfo | None) -> str | None:
    """ISO 8601 of a moment given as text, as datetime, or in seconds from now."""
    match value:
        case None | "":
            return None
        case str():
            moment(value, zone)
            return value
        case datetime():
            return value.isoformat()
        case bool():
            pass
        case int() | float():
            return datetime.fromtimestamp(now + value, zone).astimezone(zone).isoformat()
    raise TypeError(f"a moment must be seconds from now, a datetime or ISO 8601 text, got {value!r:.100}")


def _route(exchange: object, routing_key: object) -> Route | None:
    return Route(_name(exchange), _name(routing_key)) if exchange or routing_key else None


def _name(value: object) -> str:
    """A queue's or exchange's name; kombu's objects have it as an attribute."""
    return "" if value is None else value if isinstance(value, str) else str(getattr(value, "name", value))
