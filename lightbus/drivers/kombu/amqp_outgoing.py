"""A published message as the bytes of its AMQP frames: method, content header and body in one write. Pure.

py-amqp packs each property and header by a generic description of its type, which takes half of a publish. Here only
the types that messages have are packed, to the same bytes; a message with anything else is left to py-amqp, and so are
its errors. `test_the_frames_are_those_that_py_amqp_writes` holds the two together.

Source: AMQP 0.9.1, 2.3 (frames), 4.2.5 (tables) and the class basic; the type letters are RabbitMQ's, as in py-amqp.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from struct import Struct

from ...core.message import Route, Wire

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_frame = Struct(">BHI").pack  # type, channel, length
_publish = Struct(">HHH").pack(60, 40, 0)  # class basic, method publish, a reserved number
_header = Struct(">HHQH").pack  # class, weight, body bytes, flags of the properties
_octet = Struct("B").pack
_length = Struct(">I").pack
_integer = Struct(">ci").pack
_long = Struct(">cq").pack
_double = Struct(">cd").pack
_text = Struct(">cI").pack
_TRUE, _FALSE, _NOTHING = b"t\x01", b"t\x00", b"V"
_INTEGER_LIMIT, _LONG_LIMIT = 2**31 - 1, 2**63 - 1
_SHORT_BYTES = 255

#: Flags of the properties, in the order in which they are written.
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
_PRIORITY, _CORRELATION_ID, _REPLY_TO, _EXPIRATION, _MESSAGE_ID = 1 << 11, 1 << 10, 1 << 9, 1 << 8, 1 << 7


class _Unusual(Exception):
    """Something that is left to py-amqp."""


def frames_of(wire: Wire, route: Route, *, channel: int, mandatory: bool, frame_max: int) -> bytes | None:
    """The frames that publish `wire` on `route`; None when the message has to be packed by py-amqp.

    Args:
        channel: the number of the channel.
        frame_max: bytes of the largest frame that was agreed with the broker.

    Raises:
        ValueError: headers and properties do not fit into one frame, which AMQP demands: the broker would close the
            connection, and every message under way with it.
    """
    if wire.extra:
        return None
    try:
        method = _method(route.exchange, route.routing_key, mandatory)
        header = _content_header(wire)
    except (_Unusual, UnicodeError, RecursionError):
        return None
    body, largest = wire.body, frame_max - 8
    if len(header) > largest:
        raise ValueError(f"its headers and properties take {len(header)} bytes, and at most {largest} can be sent")
    parts = [_frame(_METHOD, channel, len(method)), method, _END, _frame(_HEADER, channel, len(header)), header, _END]
    for start in range(0, len(body), largest):
        piece = body if len(body) <= largest else body[start : start + largest]
        parts += (_frame(_BODY, channel, len(piece)), piece, _END)
    return b"".join(parts)


@lru_cache(maxsize=256)
def _method(exchange: str, routing_key: str, mandatory: bool) -> bytes:
    return b"".join((_publish, _short(exchange), _short(routing_key), b"\x01" if mandatory else b"\x00"))


def _content_header(wire: Wire) -> bytes:
    flags = _CONTENT_TYPE | _CONTENT_ENCODING | _HEADERS | _DELIVERY_MODE
    parts = [
        _short(wire.content_type), _short(wire.content_encoding), _table(wire.headers),
        b"\x02" if wire.durable else b"\x01",
    ]  # fmt: skip
    if wire.priority is not None:
        if type(wire.priority) is not int or not 0 <= wire.priority <= 255:
            raise _Unusual
        flags |= _PRIORITY
        parts.append(bytes((wire.priority,)))
    expiration = "" if wire.expiration_seconds is None else str(int(wire.expiration_seconds * 1000))
    for flag, text in (
        (_CORRELATION_ID, wire.correlation_id), (_REPLY_TO, wire.reply_to), (_EXPIRATION, expiration),
        (_MESSAGE_ID, wire.message_id),
    ):  # fmt: skip
        if text:
            flags |= flag
            parts.append(_short(text))
    return _header(60, 0, len(wire.body), flags) + b"".join(parts)


def _short(text: str) -> bytes:
    data = text.encode()
    if len(data) > _SHORT_BYTES:
        raise _Unusual
    return _octet(len(data)) + data


def _table(values: Mapping[str, object]) -> bytes:
    parts: list[bytes] = []
    add = parts.append
    for key, value in values.items():
        if type(key) is not str:
            raise _Unusual
        add(_name(key))
        if value is None:
            add(_NOTHING)
        elif type(value) is str:
            data = value.encode()
            add(_text(b"S", len(data)))
            add(data)
        else:
            add(_value(value))
    data = b"".join(parts)
    return _length(len(data)) + data


_name = lru_cache(maxsize=1024)(_short)  # of a header: the same few in nearly every message


def _value(value: object) -> bytes:
    kind = type(value)
    if kind is str:
        data: bytes = value.encode()  # type: ignore[attr-defined]
        return _text(b"S", len(data)) + data
    if value is None:
        return _NOTHING
    if kind is bool:
        return _TRUE if value else _FALSE
    if kind is int:
        return _number(value)  # type: ignore[arg-type]
    if kind is list or kind is tuple:
        return _array(value)  # type: ignore[arg-type]
    if kind is dict:
        return b"F" + _table(value)  # type: ignore[arg-type]
    if kind is float:
        return _double(b"d", value)
    raise _Unusual


def _number(value: int) -> bytes:
    if -_INTEGER_LIMIT <= value <= _INTEGER_LIMIT:
        return _integer(b"I", value)
    if -_LONG_LIMIT <= value <= _LONG_LIMIT:
        return _long(b"L", value)
    raise _Unusual


def _array(values: Iterable[object]) -> bytes:
    data = b"".join(map(_value, values))
    return b"A" + _length(len(data)) + data
