"""JSON with kombu's extras: `{"__type__": T, "__value__": V}` for moments, decimals, uuids and bytes. Pure.

Types that an application has registered with `kombu.utils.json.register_type` are written and read by it.

The bytes written are those that kombu 5.3 and later write, and what older ones wrote is read too.
"""

from __future__ import annotations

import base64
import json
import sys
import uuid
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal

import msgspec


def dumps(value: object) -> str:
    """`value` as JSON text.

    Raises:
        ValueError: something in it has no JSON form, or it contains itself.
    """
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be written as JSON: {error}") from error


def loads(data: bytes | str) -> object:
    """The value of JSON text; bytes are UTF-8.

    Raises:
        ValueError: it is no JSON, or names a type or value that is not known.
    """
    # msgspec is four times as quick, and stricter than Celery's JSON: what it refuses (NaN, half a surrogate pair,
    # numbers beyond a float) is read again. It has no hook for objects: it gets nothing that may spell `__type__`.
    if not _may_have_types(data):
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass  # no `contextlib.suppress`, which takes half as long as the reading of a usual body
    try:
        return _DECODER.decode(data.decode("utf-8") if isinstance(data, bytes) else data)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def _may_have_types(data: bytes | str) -> bool:
    if isinstance(data, bytes):
        return b"__type__" in data or b"\\u00" in data
    return "__type__" in data or "\\u00" in data


class _Encoder(json.JSONEncoder):
    def default(self, o: object) -> object:
        reducer = getattr(o, "__json__", None)
        if callable(reducer):
            return reducer()
        if _is_lazy_text(o):
            return str(o)
        match o:
            case datetime():  # before date: a datetime is one
                return _typed("datetime", o.isoformat())
            case date():
                return _typed("date", o.isoformat())
            case time():
                return _typed("time", o.isoformat())
            case Decimal():
                return _typed("decimal", str(o))
            case uuid.UUID():
                return _typed("uuid", {"hex": o.hex})
            case bytes():
                try:
                    return _typed("bytes", o.decode("utf-8"))
                except UnicodeDecodeError:
                    return _typed("base64", base64.b64encode(o).decode("ascii"))
        registered = sys.modules.get("kombu.utils.json")  # `register_type` is there; nobody has called it otherwise
        return super().default(o) if registered is None else registered.JSONEncoder().default(o)


_ENCODER = _Encoder()  # to make one takes as long as to write a small message


def _is_lazy_text(value: object) -> bool:
    """Whether it is one of Django's translations that wait for a language."""
    django = sys.modules.get("django.utils.functional")
    return django is not None and isinstance(value, django.Promise)


def _typed(name: str, value: object) -> dict[str, object]:
    return {"__type__": name, "__value__": value}


def _moment(value: object) -> datetime:
    text = _text(value)
    if text.endswith(("Z", "z")):
        text = text[:-1] + "+00:00"  # Python 3.10 does not read the Z
    return datetime.fromisoformat(text)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"must be text, got {value!r}")
    return value


def _uuid(value: object) -> uuid.UUID:
    if not isinstance(value, dict) or set(value) != {"hex"}:
        raise TypeError(f"must be an object with the field 'hex', got {value!r}")
    return uuid.UUID(hex=_text(value["hex"]))


_DECODERS: dict[str, Callable[[object], object]] = {
    "datetime": _moment,
    "date": lambda value: _moment(value).date(),
    "time": lambda value: time.fromisoformat(_text(value)),
    "decimal": lambda value: Decimal(_text(value)),
    "uuid": _uuid,
    "bytes": lambda value: _text(value).encode("utf-8"),
    "base64": lambda value: base64.b64decode(_text(value).encode("utf-8")),
}


def _revive(found: dict[str, object]) -> object:
    if found.keys() != {"__type__", "__value__"}:
        return found
    name, value = found["__type__"], found["__value__"]
    decoder = _DECODERS.get(name) if isinstance(name, str) else None
    if decoder is None:
        return _revived_by_application(name, found)
    try:
        return decoder(value)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"has {value!r:.100} where a {name} is announced: {error}") from error


def _revived_by_application(name: object, found: dict[str, object]) -> object:
    """What a decoder that the application has registered with kombu makes of it."""
    registered = sys.modules.get("kombu.utils.json")
    try:
        if registered is not None:
            return registered.object_hook(found)
    except Exception as error:  # the application's own decoder may raise anything
        if error.args[:1] != ("Unsupported type",):
            raise ValueError(f"has a value that the decoder of {name!r} does not take: {error}") from error
    raise ValueError(f"names the type {name!r}, which is not known; known are {', '.join(_DECODERS)}")


_DECODER = json.JSONDecoder(object_hook=_revive)
