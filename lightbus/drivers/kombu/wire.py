"""A `Wire` as the envelope that kombu's virtual transports store, and back. Pure.

The envelope is a JSON object: `body` (base64), `content-type`, `content-encoding`, `headers`, `properties`. Celery
producers write it and Celery workers read it, so nothing here may differ from what kombu writes.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from ...core.message import Wire

#: Content type of a message that is not an envelope at all: its bytes are handed over as they are, to be parked.
GARBAGE_TYPE = "application/octet-stream"

#: Properties that `Wire` has fields for, and those that kombu fills in anew at each publish.
_OWN = frozenset(
    ("delivery_mode", "priority", "correlation_id", "reply_to", "expiration", "message_id", "headers",
     "delivery_info", "delivery_tag", "body_encoding", "content_type", "content_encoding")
)  # fmt: skip


def properties_of(wire: Wire) -> dict[str, Any]:
    """The AMQP properties of `wire`; those that are absent stay off the wire."""
    properties: dict[str, Any] = {"delivery_mode": 2 if wire.durable else 1, **wire.extra}
    if wire.message_id:
        properties["message_id"] = wire.message_id
    if wire.correlation_id:
        properties["correlation_id"] = wire.correlation_id
    if wire.reply_to:
        properties["reply_to"] = wire.reply_to
    if wire.priority is not None:
        properties["priority"] = wire.priority
    if wire.expiration_seconds is not None:
        properties["expiration"] = str(max(0, round(wire.expiration_seconds * 1000)))  # AMQP: milliseconds, as text
    return properties


def wire_of(
    body: bytes,
    properties: Mapping[str, Any],
    headers: Mapping[str, object],
    content_type: str | None,
    content_encoding: str | None,
) -> Wire:
    """What a received message carries."""
    priority = properties.get("priority")
    return Wire(
        body=body,
        content_type=_text(content_type),
        content_encoding=_text(content_encoding),
        headers=headers,
        message_id=_text(properties.get("message_id")),
        correlation_id=_text(properties.get("correlation_id")),
        reply_to=_text(properties.get("reply_to")),
        priority=priority if type(priority) is int else None,
        expiration_seconds=_seconds(properties.get("expiration")),
        durable=properties.get("delivery_mode", 2) == 2,
        extra={key: value for key, value in properties.items() if key not in _OWN},
    )


def envelope_of(wire: Wire, exchange: str, routing_key: str, tag: str) -> dict[str, Any]:
    """The envelope of `wire`; `tag` has to differ from message to message."""
    return {
        "body": base64.b64encode(wire.body).decode("ascii"),
        "content-encoding": wire.content_encoding,
        "content-type": wire.content_type,
        "headers": dict(wire.headers),
        "properties": {
            **properties_of(wire),
            "delivery_info": {"exchange": exchange, "routing_key": routing_key},
            "body_encoding": "base64",
            "delivery_tag": tag,
        },
    }


def open_envelope(raw: bytes) -> tuple[Wire, bool]:
    """The message in stored bytes, and whether it was handed out before.

    Bytes that are no envelope become a message of type `GARBAGE_TYPE` with those bytes as its body.
    """
    try:
        envelope, wire = _read(raw)
    except ValueError:
        return Wire(body=raw, content_type=GARBAGE_TYPE, content_encoding="binary"), False
    return wire, bool((envelope["properties"].get("delivery_info") or {}).get("redelivered"))


def mark_redelivered(raw: bytes) -> bytes:
    """The stored bytes with the flag that kombu and Celery look for; bytes that are no envelope stay as they are."""
    try:
        envelope, _ = _read(raw)
    except ValueError:
        return raw
    properties = envelope["properties"]
    properties["delivery_info"] = {**(properties.get("delivery_info") or {}), "redelivered": True}
    return json.dumps(envelope).encode()


def _read(raw: bytes) -> tuple[dict[str, Any], Wire]:
    """Raises ValueError: it is no envelope."""
    try:
        envelope = _json(raw)
        properties = envelope["properties"]
        info = properties.get("delivery_info") or {}
        headers = envelope.get("headers") or {}
        if not isinstance(info, dict) or not isinstance(headers, dict):
            raise ValueError("delivery_info and headers of an envelope are objects")
        body = _body(envelope.get("body"), properties.get("body_encoding"))
        return envelope, wire_of(
            body, properties, headers, envelope.get("content-type"), envelope.get("content-encoding")
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"this is no envelope: {error}") from error


def _json(raw: bytes) -> Any:
    """A third of the time of `json.loads`, which reads what is left: NaN, half a surrogate pair, another encoding."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError):
        return json.loads(raw)


def _body(stored: object, encoding: str | None) -> bytes:
    if stored is None:
        return b""
    if not isinstance(stored, str):
        raise ValueError("the body of an envelope is text")
    if encoding == "base64":
        try:
            return base64.b64decode(stored, validate=True)
        except binascii.Error as error:
            raise ValueError("the body of the envelope is not base64") from error
    return stored.encode("utf-8", "surrogateescape")


def _text(value: object) -> str:
    """Other producers write what they like; here a property is text."""
    return "" if value is None else str(value)


def _seconds(expiration: object) -> float | None:
    try:
        return None if expiration in (None, "") else int(str(expiration)) / 1000
    except (ValueError, OverflowError):
        return None  # not a number: a message is not lost for a wrong expiry
