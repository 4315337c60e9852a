"""Lightbus's own wire format: CloudEvents 1.0 in binary mode, flat `cloudEvents_*` headers, one JSON object.

Pure. Values of headers are text and integers only: RabbitMQ's conversion to AMQP 1.0 drops nested ones. The format is
a documented contract (docs/reference/wire.md) with golden messages in `tests/golden/`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .errors import DecodeError
from .message import MAX_BODY_BYTES, MAX_COUNT, MAX_NAME_LENGTH, CallMessage, EventMessage, Origin, ReplyMessage, Wire
from .outcome import ATTEMPT_HEADER, printable
from .times import iso_utc, unix_seconds
from .topology import is_reply_queue

KIND = "lightbus_kind"
VERSION = "lightbus_version"
DEADLINE = "lightbus_deadline"
EXPIRES = "cloudEvents_expirytime"
PROBLEM_TYPE = "application/problem+json"
JSON_TYPE = "application/json"

_TRACE_HEADERS = ("traceparent", "tracestate")


def kind_of(wire: Wire) -> str:
    """`event`, `call`, `result` or `error`; `""` for a message that is not Lightbus's own."""
    kind = wire.headers.get(KIND, "")
    return kind if isinstance(kind, str) else ""


def encode_event(message: EventMessage) -> Wire:
    """An event as a broker carries it."""
    headers = _origin_headers(message.origin, message.name, message.version, "event")
    if message.attempt > 1:
        headers[ATTEMPT_HEADER] = message.attempt
    if message.expires_at is not None:
        headers[EXPIRES] = iso_utc(message.expires_at)
    return Wire(
        body=message.payload, headers=headers, message_id=message.origin.id,
        correlation_id=message.origin.correlation_id or message.origin.id,
    )  # fmt: skip


def encode_call(message: CallMessage, *, now: float) -> Wire:
    """A call as a broker carries it; its expiry is what is left until the deadline at `now`."""
    headers = _origin_headers(message.origin, message.name, message.version, "call")
    headers[DEADLINE] = iso_utc(message.deadline)
    return Wire(
        body=message.payload, headers=headers, message_id=message.origin.id, correlation_id=message.origin.id,
        reply_to=message.reply_to, durable=False, expiration_seconds=max(0.001, message.deadline - now),
    )  # fmt: skip


def encode_reply(message: ReplyMessage) -> Wire:
    """An answer as a broker carries it."""
    return Wire(
        body=message.payload,
        content_type=PROBLEM_TYPE if message.failed else JSON_TYPE,
        headers={KIND: "error" if message.failed else "result"},
        correlation_id=message.call_id,
        durable=False,
    )


def decode_event(wire: Wire) -> EventMessage:
    """Raises DecodeError: the headers are not those of an event."""
    name, version = _decode_name(wire)
    attempt = wire.headers.get(ATTEMPT_HEADER, 1)
    if type(attempt) is not int or not 1 <= attempt <= MAX_COUNT:
        raise DecodeError(f"header {ATTEMPT_HEADER!r} must be an integer from 1 to {MAX_COUNT}, got {attempt!r:.100}")
    return EventMessage(
        origin=_decode_origin(wire), name=name, version=version, payload=_json_body(wire), attempt=attempt,
        expires_at=_decode_moment(wire, EXPIRES) if EXPIRES in wire.headers else None,
    )  # fmt: skip


def decode_call(wire: Wire) -> CallMessage:
    """Raises DecodeError: the headers are not those of a call."""
    name, version = _decode_name(wire)
    if not wire.reply_to:
        raise DecodeError(f"the call {name!r} has no reply_to property: nobody could get its answer")
    if not is_reply_queue(wire.reply_to):
        raise DecodeError(
            f"the call {name!r} wants its answer in {wire.reply_to!r:.100}, which is no queue for answers:"
            " name it 'lightbus.reply.<app>.<token>'"
        )
    return CallMessage(
        origin=_decode_origin(wire), name=name, version=version, payload=_json_body(wire),
        reply_to=wire.reply_to, deadline=_decode_moment(wire, DEADLINE),
    )  # fmt: skip


def decode_reply(wire: Wire) -> ReplyMessage:
    """Raises DecodeError: the headers are not those of an answer."""
    kind = kind_of(wire)
    if kind not in ("result", "error"):
        raise DecodeError(
            f"header {KIND!r} of an answer must be 'result' or 'error', got {wire.headers.get(KIND)!r:.100}"
        )
    return ReplyMessage(call_id=wire.correlation_id, payload=wire.body, failed=kind == "error")


def reply_to_wire(wire: Wire, call: CallMessage) -> Wire:
    """`wire` (an encoded answer) addressed to the caller, with the caller's trace."""
    return msgspec.structs.replace(wire, headers={**wire.headers, **call.origin.trace})


def split_version(version: str) -> tuple[int, int]:
    """`"1.3"` to `(1, 3)`. Raises ValueError otherwise."""
    major, dot, minor = version.partition(".")
    if not dot or not major.isdigit() or not minor.isdigit():
        raise ValueError(f"a version is major.minor, for example '1.0', got {version!r}")
    return int(major), int(minor)


def _origin_headers(origin: Origin, name: str, version: str, kind: str) -> dict[str, object]:
    headers: dict[str, object] = {
        "cloudEvents_specversion": "1.0",
        "cloudEvents_id": origin.id,
        "cloudEvents_source": "/" + origin.source,
        "cloudEvents_type": f"{name}.v{version.partition('.')[0]}",
        "cloudEvents_time": iso_utc(origin.sent_at),
        KIND: kind,
        VERSION: version,
    }
    if origin.correlation_id:
        headers["cloudEvents_correlationid"] = origin.correlation_id
    if origin.causation_id:
        headers["cloudEvents_causationid"] = origin.causation_id
    headers.update(origin.trace)
    return headers


def _decode_name(wire: Wire) -> tuple[str, str]:
    full = _text(wire.headers, "cloudEvents_type")
    version = _text(wire.headers, VERSION)
    try:
        major, _ = split_version(version)
    except ValueError as error:
        raise DecodeError(f"header {VERSION!r}: {error}") from error
    suffix = f".v{major}"
    if not full.endswith(suffix):
        raise DecodeError(
            f"header 'cloudEvents_type' is {full!r:.100}; with version {version!r:.100} it must end in {suffix!r}"
        )
    return full[: -len(suffix)], version


def _decode_origin(wire: Wire) -> Origin:
    headers = wire.headers
    if _text(headers, "cloudEvents_specversion") != "1.0":
        raise DecodeError(
            f"unknown CloudEvents version {headers['cloudEvents_specversion']!r:.100}; this side reads '1.0'"
        )
    return Origin(
        id=_text(headers, "cloudEvents_id"),
        source=_text(headers, "cloudEvents_source").lstrip("/"),
        sent_at=_decode_moment(wire, "cloudEvents_time"),
        correlation_id=_text(headers, "cloudEvents_correlationid", ""),
        causation_id=_text(headers, "cloudEvents_causationid", ""),
        trace={key: _text(headers, key) for key in _TRACE_HEADERS if key in headers},
    )


def _decode_moment(wire: Wire, key: str) -> float:
    text = _text(wire.headers, key)
    try:
        return unix_seconds(text)
    except (ValueError, OverflowError) as error:
        raise DecodeError(f"header {key!r} must be an RFC 3339 moment, got {text!r:.100}") from error


def _text(headers: Mapping[str, object], key: str, default: str | None = None) -> str:
    value = headers.get(key, default)
    if not isinstance(value, str):
        problem = "is missing" if value is None else f"must be text, got {value!r:.100}"
        raise DecodeError(f"header {key!r} {problem}")
    if not value.isascii() and printable(value) != value:
        raise DecodeError(f"header {key!r} holds halves of characters: {value!r:.100}")
    if len(value) > MAX_NAME_LENGTH:
        raise DecodeError(f"header {key!r} has {len(value)} characters; {MAX_NAME_LENGTH} are read: {value!r:.100}")
    return value


def _json_body(wire: Wire) -> bytes:
    if wire.content_type.partition(";")[0].strip().lower() != JSON_TYPE:
        raise DecodeError(f"content type {wire.content_type!r:.100} is not known; events and calls carry {JSON_TYPE!r}")
    if len(wire.body) > MAX_BODY_BYTES:
        raise DecodeError(f"the body has {len(wire.body)} bytes; at most {MAX_BODY_BYTES} are read")
    return wire.body
