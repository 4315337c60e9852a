"""Whole deliveries out of the bytes that RabbitMQ sends: frames, properties and header tables of AMQP 0.9.1. Pure.

Only the usual form is read here: the method, the header and the body as three frames in a row, properties that end
where their frame ends, header values of the types that clients write. For everything else `read_delivery` answers
None, and py-amqp reads those frames as it always did; so there is one judge of what is odd, and it is not this file.
That makes a delivery five times as cheap (docs/adr/0012-whole-deliveries-from-the-buffer.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from struct import error as StructError
from typing import NamedTuple

from ...core.message import Wire

METHOD, HEADER, BODY = 1, 2, 3
FRAME_END = 0xCE
BASIC_DELIVER = 60 << 16 | 60
#: A frame is type, channel and size, then its payload, then the frame end.
FRAME_HEAD_BYTES = 7
FRAME_BYTES = FRAME_HEAD_BYTES + 1

#: Frames up to this size are waited for, so that they are read from the buffer; larger ones are py-amqp's.
SMALL_FRAME_BYTES = 32 * 1024

_frame = Struct(">BHI").unpack_from
_method = Struct(">BHIIB").unpack_from  # a frame's head, class and method, length of the consumer tag
_delivery = Struct(">QB").unpack_from  # delivery tag, redelivered
_header = Struct(">BHIHHQH").unpack_from  # a frame's head, class, weight, size of the body, flags of the properties
_HEADER_BYTES = 21
_u32 = Struct(">I").unpack_from
_i32 = Struct(">i").unpack_from
_i64 = Struct(">q").unpack_from
_u64 = Struct(">Q").unpack_from
_double = Struct(">d").unpack_from

CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE, PRIORITY, CORRELATION_ID, REPLY_TO, EXPIRATION = (
    1 << bit for bit in range(15, 7, -1)
)
MESSAGE_ID = 1 << 7
#: Properties that `Wire.extra` holds, in the order of the wire; all are short texts but the timestamp.
TIMESTAMP = 1 << 6
EXTRA_TEXTS = ((1 << 5, "type"), (1 << 4, "user_id"), (1 << 3, "app_id"))
EXTRA = TIMESTAMP | 1 << 5 | 1 << 4 | 1 << 3
#: cluster_id is gone from the standard, the next bit has no meaning, and the last one says that more flags follow.
UNUSUAL = 0b111

_NOTHING: Mapping[str, object] = {}


class Arrival(NamedTuple):
    """A delivery, and where in the buffer its last frame ends."""

    consumer_tag: bytes
    delivery_tag: int
    redelivered: bool
    wire: Wire
    end: int


def read_delivery(buffer: bytes, at: int) -> Arrival | None:
    """The delivery whose frames begin at `at`; None when they are not all there, or not of the usual form."""
    try:
        kind, channel, size, method, tag_bytes = _method(buffer, at)
        header = at + FRAME_BYTES + size
        if kind != METHOD or method != BASIC_DELIVER or buffer[header - 1] != FRAME_END:
            return None
        tag_end = at + FRAME_HEAD_BYTES + 5 + tag_bytes
        delivery_tag, redelivered = _delivery(buffer, tag_end)
        kind, other, size, _, _, body_bytes, flags = _header(buffer, header)
        body = header + FRAME_BYTES + size
        if kind != HEADER or other != channel or buffer[body - 1] != FRAME_END or flags & UNUSUAL:
            return None
        end = body
        if body_bytes:
            kind, other, size = _frame(buffer, body)
            end = body + FRAME_BYTES + size
            if kind != BODY or other != channel or size != body_bytes or buffer[end - 1] != FRAME_END:
                return None
        wire = _wire(buffer, header + _HEADER_BYTES, body - 1, flags, buffer[body + FRAME_HEAD_BYTES : end - 1])
        return Arrival(buffer[tag_end - tag_bytes : tag_end], delivery_tag, redelivered & 1 == 1, wire, end)
    except (IndexError, StructError, ValueError, RecursionError):  # cut off; text that is no UTF-8; a table too deep
        return None


def waits_for_more(buffer: bytes, at: int) -> bool:
    """Whether what begins at `at` is a small frame, or a delivery of small frames, that has not come in whole."""
    try:
        kind, _, size = _frame(buffer, at)
        following = at + FRAME_BYTES + size
        if following > len(buffer):
            return bool(size <= SMALL_FRAME_BYTES)
        if kind != METHOD or size < 4 or _u32(buffer, at + FRAME_HEAD_BYTES)[0] != BASIC_DELIVER:
            return False
        kind, _, size, _, _, body_bytes, _ = _header(buffer, following)
        body = following + FRAME_BYTES + size
        if kind != HEADER or body <= len(buffer):
            missing = body + FRAME_BYTES + body_bytes - len(buffer) if kind == HEADER and body_bytes else 0
            return bool(missing > 0 and body_bytes <= SMALL_FRAME_BYTES)
        return bool(size <= SMALL_FRAME_BYTES)
    except StructError:  # not even the head of a frame
        return True


def _wire(buffer: bytes, at: int, end: int, flags: int, body: bytes) -> Wire:
    """The message with the properties from `at` to `end`.

    Raises:
        ValueError, IndexError, struct.error: they are not of the usual form.
    """
    content_type = content_encoding = correlation_id = reply_to = expiration = message_id = ""
    headers: Mapping[str, object] = {}
    delivery_mode, priority = 2, None
    extra = _NOTHING
    if flags & CONTENT_TYPE:
        content_type, at = _short_text(buffer, at)
    if flags & CONTENT_ENCODING:
        content_encoding, at = _short_text(buffer, at)
    if flags & HEADERS:
        start = at + 4
        at = start + _u32(buffer, at)[0]
        headers = _table(buffer, start, at)
    if flags & DELIVERY_MODE:
        delivery_mode = buffer[at]
        at += 1
    if flags & PRIORITY:
        priority = buffer[at]
        at += 1
    if flags & CORRELATION_ID:
        correlation_id, at = _short_text(buffer, at)
    if flags & REPLY_TO:
        reply_to, at = _short_text(buffer, at)
    if flags & EXPIRATION:
        expiration, at = _short_text(buffer, at)
    if flags & MESSAGE_ID:
        message_id, at = _short_text(buffer, at)
    if flags & EXTRA:
        extra, at = _extra(buffer, at, flags)
    if at != end:
        raise ValueError("the properties do not end with their frame")
    return Wire(
        body=body,
        content_type=content_type,
        content_encoding=content_encoding,
        headers=headers,
        message_id=message_id,
        correlation_id=correlation_id,
        reply_to=reply_to,
        priority=priority,
        expiration_seconds=int(expiration) / 1000 if expiration and expiration.isdigit() else None,
        durable=delivery_mode == 2,
        extra=extra,
    )


def _extra(buffer: bytes, at: int, flags: int) -> tuple[dict[str, object], int]:
    extra: dict[str, object] = {}
    if flags & TIMESTAMP:
        extra["timestamp"] = _u64(buffer, at)[0]
        at += 8
    for flag, name in EXTRA_TEXTS:
        if flags & flag:
            extra[name], at = _short_text(buffer, at)
    return extra, at


def _short_text(buffer: bytes, at: int) -> tuple[str, int]:
    start = at + 1
    end = start + buffer[at]
    return buffer[start:end].decode(), end


def _table(buffer: bytes, at: int, end: int) -> dict[str, object]:
    """The header table from `at` to `end`. Texts, nulls and integers, which most headers are, are read in place."""
    table: dict[str, object] = {}
    while at < end:
        start = at + 1
        at = start + buffer[at]
        key = buffer[start:at].decode()
        kind = buffer[at]
        if kind == 83:  # S, a long text
            start = at + 5
            at = start + _u32(buffer, at + 1)[0]
            table[key] = buffer[start:at].decode()
        elif kind == 86:  # V, null
            at += 1
            table[key] = None
        elif kind == 73:  # I, an integer
            table[key] = _i32(buffer, at + 1)[0]
            at += 5
        else:
            table[key], at = _value(buffer, at)
    if at != end:
        raise ValueError("a table is longer than it says")
    return table


def _value(buffer: bytes, at: int) -> tuple[object, int]:
    kind = chr(buffer[at])
    at += 1
    if kind == "S":
        start = at + 4
        at = start + _u32(buffer, at)[0]
        return buffer[start:at].decode(), at
    if kind == "V":
        return None, at
    if kind == "I":
        return _i32(buffer, at)[0], at + 4
    if kind == "t":
        return buffer[at] != 0, at + 1
    if kind == "A":
        start = at + 4
        end = start + _u32(buffer, at)[0]
        return _array(buffer, start, end), end
    if kind == "F":
        start = at + 4
        end = start + _u32(buffer, at)[0]
        return _table(buffer, start, end), end
    if kind in "lL":
        return _i64(buffer, at)[0], at + 8
    if kind == "d":
        return _double(buffer, at)[0], at + 8
    raise ValueError(f"a value of type {kind!r} is left to py-amqp")


def _array(buffer: bytes, at: int, end: int) -> list[object]:
    array: list[object] = []
    while at < end:
        value, at = _value(buffer, at)
        array.append(value)
    if at != end:
        raise ValueError("an array is longer than it says")
    return array
