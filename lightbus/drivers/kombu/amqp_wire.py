"""A `Wire` as a py-amqp message and back. Pure but for py-amqp's value class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import amqp

from ...core.message import Wire

_KNOWN = frozenset(
    ("content_type", "content_encoding", "application_headers", "delivery_mode", "priority", "correlation_id",
     "reply_to", "expiration", "message_id")
)  # fmt: skip


def message_of(wire: Wire) -> amqp.Message:
    """The message that py-amqp publishes; properties that are absent stay off the wire."""
    properties: dict[str, Any] = {
        "content_type": wire.content_type,
        "content_encoding": wire.content_encoding,
        "application_headers": dict(wire.headers),
        "delivery_mode": 2 if wire.durable else 1,
    }
    if wire.message_id:
        properties["message_id"] = wire.message_id
    if wire.correlation_id:
        properties["correlation_id"] = wire.correlation_id
    if wire.reply_to:
        properties["reply_to"] = wire.reply_to
    if wire.priority is not None:
        properties["priority"] = wire.priority
    if wire.expiration_seconds is not None:
        properties["expiration"] = str(int(wire.expiration_seconds * 1000))
    return amqp.Message(wire.body, **properties, **wire.extra)


def wire_of(message: amqp.Message) -> Wire:
    """What a received py-amqp message carries."""
    properties: Mapping[str, Any] = message.properties
    body = message.body
    expiration = properties.get("expiration")
    headers = properties.get("application_headers") or {}
    if any(type(key) is not str for key in headers):  # py-amqp leaves a key that is no UTF-8 as bytes
        headers = {key if isinstance(key, str) else key.decode("utf-8", "replace"): headers[key] for key in headers}
    return Wire(
        body=body.encode("utf-8", "surrogateescape") if isinstance(body, str) else bytes(body),
        content_type=properties.get("content_type", ""),
        content_encoding=properties.get("content_encoding", ""),
        headers=headers,
        message_id=properties.get("message_id", ""),
        correlation_id=properties.get("correlation_id", ""),
        reply_to=properties.get("reply_to", ""),
        priority=properties.get("priority"),
        expiration_seconds=int(expiration) / 1000 if expiration and expiration.isdigit() else None,
        durable=properties.get("delivery_mode", 2) == 2,
        extra={key: value for key, value in properties.items() if key not in _KNOWN},
    )
