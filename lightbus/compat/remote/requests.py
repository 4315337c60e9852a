"""A task's message as monitors see it: the fields that Celery's `inspect active` and its kin have."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...ports import Delivery

LONGEST = 2000  #: characters of arguments; longer ones are told by their short form


def described(delivery: Delivery, hostname: str) -> dict[str, object]:
    """Of a message that a process holds; in JSON's types. Reads the body without decoding the task."""
    wire = delivery.wire
    headers = wire.headers
    args: Any = headers.get("argsrepr")
    kwargs: Any = headers.get("kwargsrepr")
    with contextlib.suppress(ValueError, TypeError, KeyError):
        body = json.loads(wire.body)  # one that is compressed or of another kind is told by the headers alone
        found = body[:2] if isinstance(body, list) else [body["args"], body["kwargs"]]
        if len(json.dumps(found)) <= LONGEST:
            args, kwargs = found
    return {
        "id": str(headers.get("id") or wire.correlation_id),
        "name": str(headers.get("shadow") or headers.get("task")),
        "args": args,
        "kwargs": kwargs,
        "argsrepr": headers.get("argsrepr"),
        "kwargsrepr": headers.get("kwargsrepr"),
        "type": str(headers.get("task")),
        "hostname": hostname,
        "time_start": None,
        "acknowledged": False,
        "delivery_info": {
            "exchange": "",
            "routing_key": delivery.queue,
            "priority": wire.priority or 0,
            "redelivered": delivery.redelivered,
        },
        "stamps": stamps_of(headers),
    }


def stamps_of(headers: Any) -> dict[str, Any]:
    """Header to stamp of a message."""
    stamps = headers.get("stamps")
    names = headers.get("stamped_headers")
    if not isinstance(stamps, dict) or not isinstance(names, (list, tuple)):
        return {}
    return {name: stamps[name] for name in names if name in stamps}
