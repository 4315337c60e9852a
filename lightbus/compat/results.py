"""Celery's result document: what is stored under a task's id, or sent to the caller's reply queue. Pure.

Same fields in the same order as Celery writes them, so that the bytes are the same. An exception is three texts; when
it is read, only builtin exceptions and compat's own come back as their own class, and nothing is ever imported.
"""

from __future__ import annotations

import builtins
import traceback as traceback_module
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..core.errors import DecodeError
from . import json, states
from .bodies import decompressed
from .exceptions import CELERY_MODULES, CELERY_NAMES, EncodeError, RemoteTaskError
from .serializers import JSON_CODEC, Codec

#: Of a result, whose size its sender's own limit has bounded before.
MAX_DECOMPRESSED_BYTES = 128 * 2**20

_COMPRESSED = b"\x00celery-compressed\x00"  # Celery 5.7 with result_compression
_OWN_CLASSES = {
    (module, CELERY_NAMES.get(cls, cls.__name__)): cls
    for cls, module in CELERY_MODULES.items()
    if issubclass(cls, Exception)
}
_KNOWN_FIELDS = frozenset(
    {"status", "result", "traceback", "children", "date_done", "task_id", "group_id", "parent_id"}
)


@dataclass(frozen=True, kw_only=True)
class ResultDocument:
    """What is known of one task.

    Attributes:
        result: the return value; for a failed, retried or revoked task the exception's triple as it is on the wire
            (see `exception`); what the task itself said for its own states.
        traceback: text, for failures and retries.
        children: result tuples `[[id, parent], None]` of the tasks that it sent.
        date_done: ISO 8601 text, only in a final state.
        extended: the fields of Celery's `result_extended` (`name`, `args`, `kwargs`, `worker`, `retries`, `queue`,
            stamps), in order.
    """

    task_id: str
    status: str
    result: Any = None
    traceback: str | None = None
    children: Sequence[Any] = ()
    date_done: str | None = None
    group_id: str | None = None
    parent_id: str | None = None
    extended: Mapping[str, Any] = field(default_factory=dict)

    @property
    def exception(self) -> BaseException | None:
        """The exception of a failed, retried or revoked task; None in any other state."""
        return exception_from(self.result) if self.status in states.EXCEPTION_STATES else None


def encode_result(document: ResultDocument, *, max_bytes: int | None = None, codec: Codec = JSON_CODEC) -> bytes:
    """The bytes that Celery's result serializer would store.

    Raises:
        EncodeError: the result has no form in it, or takes more than `max_bytes`.
    """
    try:
        data = codec.dumps(fields_of(document))
    except ValueError as error:
        raise EncodeError(f"the result of task {document.task_id!r} {error}") from error
    if max_bytes is not None and len(data) > max_bytes:
        raise EncodeError(
            f"the result of task {document.task_id!r} takes {len(data)} bytes; at most {max_bytes} are kept"
        )
    return data


def fields_of(document: ResultDocument) -> dict[str, Any]:
    """The fields of a document in the order in which Celery writes them."""
    fields: dict[str, Any] = {
        "status": document.status,
        "result": document.result,
        "traceback": document.traceback,
        "children": list(document.children),
        "date_done": document.date_done,
    }
    if document.group_id:
        fields["group_id"] = document.group_id
    if document.parent_id:
        fields["parent_id"] = document.parent_id
    fields |= document.extended
    fields["task_id"] = document.task_id
    return fields


def decode_result(data: bytes, codec: Codec = JSON_CODEC) -> ResultDocument:
    """The inverse of `encode_result`, for what any Celery from 4.0 on stored.

    Raises:
        DecodeError: it is no result document, or compressed in a way that this Python cannot undo.
    """
    data = uncompressed(data)
    try:
        fields = codec.loads(data)
    except ValueError as error:
        raise DecodeError(
            f"the result is not {codec.name}: it {error}; set result_serializer as where it is written"
        ) from error
    return document_from(fields)


def document_from(fields: object) -> ResultDocument:
    """The document with these fields, as `fields_of` gives them.

    Raises:
        DecodeError: they are none.
    """
    if not isinstance(fields, dict) or not isinstance(fields.get("status"), str):
        raise DecodeError(f"a result must be an object with the text field 'status', got {fields!r:.100}")
    children, result = fields.get("children"), fields.get("result")
    date_done = fields.get("date_done")
    return ResultDocument(
        task_id=_text(fields, "task_id") or "",
        status=fields["status"],
        result=exception_triple(result) if isinstance(result, BaseException) else result,  # of a pickled document
        traceback=_text(fields, "traceback"),
        children=children if isinstance(children, (list, tuple)) else (),
        date_done=date_done.isoformat() if isinstance(date_done, datetime) else _text(fields, "date_done"),
        group_id=_text(fields, "group_id"),
        parent_id=_text(fields, "parent_id"),
        extended={key: value for key, value in fields.items() if key not in _KNOWN_FIELDS},
    )


def uncompressed(data: bytes) -> bytes:
    """What Celery 5.7 stores under `result_compression` without it; anything else as it is.

    Raises:
        DecodeError: this Python cannot undo it.
    """
    if not data.startswith(_COMPRESSED):
        return data
    kind, _, body = data.removeprefix(_COMPRESSED).partition(b"\x00")
    try:
        return decompressed(body, kind.decode("ascii", "replace"), MAX_DECOMPRESSED_BYTES)
    except DecodeError as error:
        raise DecodeError(f"the result is compressed, and cannot be read: {error}; set result_compression") from error


def exception_triple(error: BaseException) -> dict[str, object]:
    """The exception as Celery writes it. Arguments without a JSON form become their repr."""
    cls = type(error)
    if isinstance(error, RemoteTaskError) and error.exc_type:
        name, module = error.exc_type, error.exc_module
    elif name_and_args := _unpickleable(error):
        return name_and_args
    else:
        module = CELERY_MODULES.get(cls, cls.__module__)
        name = CELERY_NAMES.get(cls, cls.__qualname__)
    return {"exc_type": name, "exc_message": [_printable(one) for one in error.args], "exc_module": module}


def _unpickleable(error: BaseException) -> dict[str, object] | None:
    """What Celery keeps in the place of an exception that cannot be pickled: its class's name and its arguments."""
    if type(error).__name__ != "UnpickleableExceptionWrapper":
        return None
    return {
        "exc_type": getattr(error, "exc_cls_name", ""),
        "exc_message": [_printable(one) for one in getattr(error, "exc_args", ())],
        "exc_module": getattr(error, "exc_module", ""),
    }


def exception_from(triple: object) -> BaseException:
    """The exception that a triple describes.

    A builtin `Exception` or one of compat's comes back as itself, any other as a class of its name that derives from
    `RemoteTaskError`: a class named in a message is never imported. So does what is no triple at all.
    """
    if not isinstance(triple, Mapping) or not isinstance(triple.get("exc_type"), str):
        return RemoteTaskError(triple)
    name, module = triple["exc_type"], triple.get("exc_module")
    message = triple.get("exc_message")
    args = tuple(message) if isinstance(message, (list, tuple)) else (message,)
    cls = _known_class(name, module if isinstance(module, str) else "")
    if cls is not None:
        try:
            return cls(*args)
        except Exception:  # noqa: BLE001 - some classes want more than their args; the general form below takes any
            pass
    return _remote_class(name, module if isinstance(module, str) else "")(*args)


def format_traceback(error: BaseException) -> str:
    """The text that goes with a failure."""
    return "".join(traceback_module.format_exception(type(error), error, error.__traceback__))


def _known_class(name: str, module: str) -> type[Exception] | None:
    if (module, name) in _OWN_CLASSES:
        return _OWN_CLASSES[module, name]
    found = getattr(builtins, name, None) if module in ("builtins", "exceptions") else None
    # Not SystemExit and its like: reading a result must not end the reader.
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _remote_class(name: str, module: str) -> type[RemoteTaskError]:
    short = name.rpartition(".")[2] or "RemoteTaskError"
    return type(short, (RemoteTaskError,), {"exc_type": name, "exc_module": module, "__module__": __name__})


def _printable(value: object) -> object:
    try:
        json.dumps(value)
    except ValueError:
        return safe_repr(value)
    return value


def safe_repr(value: object, max_chars: int = 1024) -> str:
    """`repr(value)`, cut to a length; also for objects that cannot be printed."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a user's __repr__
        text = f"<{type(value).__name__} object, its repr failed with {type(error).__name__}>"
    return text if len(text) <= max_chars else text[: max_chars - 3] + "..."


def _text(fields: Mapping[str, Any], key: str) -> str | None:
    value = fields.get(key)
    return value if isinstance(value, str) else None
