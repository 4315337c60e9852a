"""Pickled cells of Celery's database tables, read without running what is in them unless that is let in. Pure.

Celery before 5.7 pickles the `result` column whatever the result serializer is: with JSON results a cell holds a plain
value, or an exception's dict; of a saved group it holds `GroupResult` and `AsyncResult` objects. Those are read as the
tuples that Celery 5.7 writes in their place. Any other class is refused, unless the project accepts pickle.
"""

from __future__ import annotations

import datetime
import decimal
import io
import pickle
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ...core.errors import DecodeError

PROTOCOL = 4  # every Python that Celery 5 runs on reads it
#: How every pickle of protocol 2 and later begins; no JSON in UTF-8 does.
MARK = b"\x80"
CONTENT_TYPE = "application/x-python-serialize"


def dumps(value: object) -> bytes:
    """A plain value as SQLAlchemy's PickleType, which Celery before 5.7 declares, would write it."""
    return pickle.dumps(value, PROTOCOL)


def dumps_group(result: Sequence[Any]) -> bytes:
    """A saved group as Celery before 5.7 writes it: as an object of `celery.result.GroupResult`.

    Args:
        result: the group's tuple, `[[id, parent], children]`.
    """
    return b"\x80\x02" + _result(result) + b"."


def loads(data: bytes, *, any_class: bool = False) -> Any:
    """The value in a cell.

    Args:
        any_class: import and call what the pickle names, which runs whatever its writer likes; `accept_content` with
            pickle in it asks for that.

    Raises:
        DecodeError: it is no pickle, or holds objects of other classes than the harmless ones without `any_class`.
    """
    try:
        return (_AnyReader if any_class else _Reader)(io.BytesIO(data)).load()
    except DecodeError:
        raise
    except Exception as error:  # what a broken pickle raises is not limited to a few classes
        raise DecodeError(f"a pickled result cannot be read: {error!r}") from error


def _result(result: Sequence[Any]) -> bytes:
    (task_id, parent), children = result
    if children is None:
        above = b"N" if parent is None else _result(parent)
        return _call("AsyncResult", _plain(task_id), b"NNN", above)
    return _call("GroupResult", _plain(task_id), b"](" + b"".join(_result(one) for one in children) + b"e")


def _call(name: str, *arguments: bytes) -> bytes:
    return b"ccelery.result\n" + name.encode() + b"\n(" + b"".join(arguments) + b"tR"


def _plain(value: object) -> bytes:
    return pickle.dumps(value, 2)[2:-1]  # without its header and its end


def _async_result(task_id: Any, backend: Any = None, name: Any = None, app: Any = None, parent: Any = None) -> Any:
    return [[task_id, parent], None]


def _group_result(group_id: Any = None, results: Any = None, parent: Any = None) -> Any:
    return [[group_id, parent], results]


def _of_an_app(name: str, arguments: Sequence[Any]) -> Any:
    """How results of an app that is not the current one are pickled: by the name of their class, an app's attribute."""
    match name:
        case "AsyncResult":
            return _async_result(*arguments)
        case "GroupResult":
            return _group_result(*arguments)
    raise DecodeError(f"a pickled result holds {name!r} of a Celery app, which is no result")


def _nothing(*_: Any) -> None:
    """In the place of an object that a result's pickle carries along and that its tuple does without."""


def _text_to_bytes(text: str, encoding: str = "latin1") -> bytes:
    """How pickles of protocol 2 hold bytes."""
    if encoding != "latin1":
        raise DecodeError(f"a pickled result holds bytes in the encoding {encoding!r}, which is not read")
    return text.encode("latin1")


_CLASSES: Mapping[tuple[str, str], Callable[..., Any]] = MappingProxyType(
    {
        ("datetime", "datetime"): datetime.datetime,
        ("datetime", "date"): datetime.date,
        ("datetime", "time"): datetime.time,
        ("datetime", "timedelta"): datetime.timedelta,
        ("datetime", "timezone"): datetime.timezone,
        ("decimal", "Decimal"): decimal.Decimal,
        ("uuid", "UUID"): uuid.UUID,
        ("collections", "OrderedDict"): OrderedDict,
        ("builtins", "set"): set,
        ("builtins", "frozenset"): frozenset,
        ("builtins", "complex"): complex,
        ("builtins", "bytearray"): bytearray,
        ("_codecs", "encode"): _text_to_bytes,
        ("celery.result", "AsyncResult"): _async_result,
        ("celery.result", "GroupResult"): _group_result,
        ("celery.app.base", "_unpickle_appattr"): _of_an_app,
        ("celery.backends.base", "unpickle_backend"): _nothing,
    }
)


class _Reader(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name == "__builtin__":  # its name in pickles of protocol 2
            module_name = "builtins"
        if module_name.startswith("celery.backends.") and (module_name, global_name) not in _CLASSES:
            return None  # an argument of `unpickle_backend`; it is never called, since None cannot be
        try:
            return _CLASSES[module_name, global_name]
        except KeyError:
            raise DecodeError(
                f"a pickled result holds an object of {module_name}.{global_name}, and unpickling it would run code: "
                "only plain values are read. Set result_serializer = 'json' where it is written, or let pickle in by "
                "accept_content here"
            ) from None


class _AnyReader(_Reader):
    """Celery's own results are tuples all the same, since Celery need not be there."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return super().find_class(module_name, global_name)
        except DecodeError:
            return pickle.Unpickler.find_class(self, module_name, global_name)
