"""Type hints as validators: what is sent is checked on the line that sends it, what arrives before it is handled.

msgspec does the work (ADR 0003); `plain` has what it needs for pydantic models. Pure.
"""

from __future__ import annotations

import inspect
import reprlib
import typing
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import msgspec

from .api import Api, Event, Rpc
from .errors import ApiError, BadArguments, DeclarationError, RemoteError
from .outcome import printable
from .plain import from_plain, in_words, to_plain

#: What msgspec raises for a text that is no JSON of the wanted type; the others are for text that is no UTF-8, and for
#: one that is nested more deeply than its decoder goes.
_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
#: What it raises for a value without a JSON form: of an unknown type, with half a surrogate pair in a text, with an
#: integer that is too large, or inside itself.
_UNWRITABLE = (msgspec.ValidationError, TypeError, UnicodeError, OverflowError, RecursionError)


def encode_event(event: Event) -> bytes:
    """The event's fields as a JSON object.

    Raises:
        BadArguments: a field is not of its declared type; names the field.
    """
    kind = type(event)
    try:
        payload = msgspec.json.encode(event, enc_hook=to_plain)
        # a struct does not check on construction
        msgspec.json.decode(payload, type=kind, dec_hook=from_plain)
    except _UNWRITABLE as error:
        fields = {name: getattr(event, name) for name in kind.__struct_fields__}
        raise BadArguments(f"the event {kind.__qualname__} cannot be sent: {in_words(error, fields)}") from error
    return payload


def event_decoder(kind: type[Event]) -> Callable[[bytes], Event]:
    """A function from a JSON object to an event of class `kind`; it raises BadArguments."""
    decoder = msgspec.json.Decoder(kind, dec_hook=from_plain)

    def decode(payload: bytes) -> Event:
        try:
            return decoder.decode(payload)
        except _UNREADABLE as error:
            raise BadArguments(f"not a {kind.__qualname__}: {error}") from error

    return decode


class CallSchema:
    """Arguments and result of one call, as msgspec sees them."""

    def __init__(self, rpc: Rpc[Any, Any]) -> None:
        self.rpc = rpc
        hints = _hints(rpc)
        self.result_type: Any = hints.pop("return", Any)
        parameters = list(inspect.signature(rpc.function).parameters.values())[1:]
        fields: list[Any] = [
            (p.name, hints.get(p.name, Any))
            if p.default is p.empty
            else (p.name, hints.get(p.name, Any), msgspec.field(default=p.default))
            for p in parameters
        ]
        self._names = tuple(p.name for p in parameters)
        self._struct = msgspec.defstruct(rpc.name, fields, kw_only=True)
        self.arguments_type: type[msgspec.Struct] = self._struct
        self._arguments = msgspec.json.Decoder(self._struct, dec_hook=from_plain)
        self._result = msgspec.json.Decoder(self.result_type, dec_hook=from_plain)

    def encode_arguments(self, arguments: Mapping[str, object]) -> bytes:
        """Raises BadArguments: an argument is missing, unknown or of another type; names it."""
        try:
            payload = msgspec.json.encode(self._struct(**arguments), enc_hook=to_plain)
            self._arguments.decode(payload)
        except _UNWRITABLE as error:
            text = in_words(error, arguments)
            raise BadArguments(f"{self.rpc.full_name} cannot be called like this: {text}") from error
        return payload

    def bind(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """All arguments by name, with defaults; their types are not looked at.

        Raises:
            BadArguments: one is missing or unknown.
        """
        try:
            struct = self._struct(**arguments)
        except TypeError as error:
            raise BadArguments(f"{self.rpc.full_name} cannot be called like this: {error}") from error
        return {name: getattr(struct, name) for name in self._names}

    def decode_arguments(self, payload: bytes) -> dict[str, object]:
        """Raises BadArguments."""
        try:
            struct = self._arguments.decode(payload)
        except _UNREADABLE as error:
            raise BadArguments(f"{self.rpc.full_name}: {error}") from error
        return {name: getattr(struct, name) for name in self._names}

    def encode_result(self, result: object) -> bytes:
        """Raises BadArguments: the handler returned something else than it declares."""
        try:
            payload = msgspec.json.encode(result, enc_hook=to_plain)
            self._result.decode(payload)
        except _UNWRITABLE as error:
            raise BadArguments(f"{self.rpc.full_name} returned {reprlib.repr(result)}: {error}") from error
        return payload

    def decode_result(self, payload: bytes) -> object:
        """Raises RemoteError: the answer is not of the declared type."""
        try:
            return self._result.decode(payload)
        except _UNREADABLE as error:
            raise RemoteError(f"{self.rpc.full_name} answered with something else than it declares: {error}") from error


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """RFC 9457: why a call brought no result. `type` is the error's name; `fields` those of a declared error."""

    type: str
    title: str
    detail: str = ""
    retryable: bool = False
    fields: dict[str, Any] = {}


def encode_problem(problem: Problem) -> bytes:
    """A problem as JSON. Of one that has no JSON form the texts are left, with half surrogate pairs escaped."""
    try:
        return msgspec.json.encode(problem)
    except _UNWRITABLE:
        kind, title, detail = map(printable, (problem.type, problem.title, problem.detail))
        return msgspec.json.encode(Problem(type=kind, title=title, detail=detail, retryable=problem.retryable))


def decode_problem(payload: bytes) -> Problem:
    """Anything that is no problem document becomes one that says so."""
    try:
        return msgspec.json.decode(payload, type=Problem)
    except _UNREADABLE as error:
        return Problem(type="undecodable", title="the error answer could not be read", detail=str(error))


def problem_of_declared(error: ApiError) -> Problem:
    """The problem by which a declared error travels."""
    try:
        fields = msgspec.to_builtins(error.fields, enc_hook=to_plain)
    except _UNWRITABLE:
        fields = {}  # the caller gets the text, in an error that says that the fields do not fit
    return Problem(type="api:" + type(error).__name__, title=type(error).__name__, detail=error.text, fields=fields)


def rebuild_declared(kind: type[ApiError], problem: Problem) -> ApiError | RemoteError:
    """The declared error itself, with its fields converted to their types; RemoteError when they do not fit."""
    try:
        hints = {k: v for cls in reversed(kind.__mro__) for k, v in _own_hints(cls).items()}
        fields = {
            name: msgspec.convert(value, hints[name], dec_hook=from_plain) for name, value in problem.fields.items()
        }
        return kind(problem.detail, **fields)
    except (msgspec.ValidationError, TypeError, KeyError, RecursionError) as error:
        text = f"{kind.__name__} arrived with fields that do not fit ({error}); its text is {problem.detail!r}"
        return RemoteError(text, error_type=kind.__name__)


def _own_hints(cls: type) -> dict[str, Any]:
    if not issubclass(cls, ApiError) or cls is ApiError or "__annotations__" not in vars(cls):
        return {}
    return get_type_hints(cls, include_extras=True)


def _hints(rpc: Rpc[Any, Any]) -> dict[str, Any]:
    owner: type[Api] | None = rpc.api
    names = dict(vars(owner)) if owner is not None else {}  # classes that stand inside the API class
    try:
        hints = get_type_hints(rpc.function, localns=names, include_extras=True)
    except NameError as error:
        raise DeclarationError(f"{rpc.full_name}: the type hint {error.name!r} is not known in its module") from error
    returned = hints.get("return")
    if typing.get_origin(returned) is not None and getattr(typing.get_origin(returned), "__name__", "") == "Coroutine":
        hints["return"] = typing.get_args(returned)[2]
    return hints
