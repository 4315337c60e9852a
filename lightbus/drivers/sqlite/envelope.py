"""How a kombu message is written into the broker file and read back.

The body is kept apart as bytes, so that a big or binary one costs no encoding; everything else is one JSON text.
"""

from __future__ import annotations

import json
from typing import Any

from kombu.message import Message
from kombu.utils.json import JSONEncoder, object_hook

from .store import Envelope, Leased

MAX_PRIORITY = 255


def to_envelope(message: dict[str, Any], exchange: str, routing_key: str, delay_seconds: float | None) -> Envelope:
    """The row for a message as `Channel.prepare_message` made it.

    Raises:
        ValueError: the property `expiration` is no number of milliseconds, or `priority` no number.
        TypeError: a header or property has a type that JSON cannot carry, even with kombu's additions.
    """
    properties = message["properties"]
    content = [
        message["content-type"],
        message["content-encoding"],
        message["headers"],
        {name: value for name, value in properties.items() if name != "delivery_info"},
        exchange,
        routing_key,
    ]
    body = message["body"]
    expiration = properties.get("expiration")
    return Envelope(
        content=json.dumps(content, cls=JSONEncoder),
        body=body.encode() if isinstance(body, str) else bytes(body or b""),
        priority=min(MAX_PRIORITY, max(0, int(properties.get("priority") or 0))),
        lifetime_seconds=None if expiration is None else int(expiration) / 1000,
        delay_seconds=delay_seconds or 0.0,
    )


def to_message(
    leased: Leased,
    channel: object,
    delivery_tag: int,
    consumer_tag: str | None = None,
    made_as: type[Message] = Message,
) -> Message:
    """The kombu message for a leased row."""
    kind, encoding, headers, properties, exchange, routing_key = json.loads(leased.content, object_hook=_revive)
    delivery_info = {
        "consumer_tag": consumer_tag,
        "delivery_tag": delivery_tag,
        "redelivered": leased.deliveries > 1,
        "delivery_count": leased.deliveries - 1,
        "exchange": exchange,
        "routing_key": routing_key,
        "queue": leased.queue,
    }
    return made_as(
        body=leased.body,
        channel=channel,
        delivery_tag=delivery_tag,
        content_type=kind,
        content_encoding=encoding,
        headers=headers,
        properties=properties,
        delivery_info=delivery_info,
    )


def _revive(value: dict[str, Any]) -> Any:
    """Undo kombu's additions to JSON. A header that only looks like one stays the dict that it is."""
    if value.keys() == {"__type__", "__value__"}:
        try:
            return object_hook(value)
        except (ValueError, TypeError, AttributeError, ArithmeticError):
            return value
    return value
