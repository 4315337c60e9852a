"""A contract document as a class that was never written down: for shells and exploration, see `Bus.remote`. Pure.

Its names are those of the contract, so a wrong one fails here and not on the wire, and completion knows them. Its types
are only as exact as a look at a JSON Schema: plain values are checked, structures are taken as they are, and answers
come as plain data. For a program `lightbus contract pull` writes the real thing.
"""

from __future__ import annotations

import inspect
import keyword
import types
from collections.abc import Mapping
from typing import Any, Union

import msgspec

from ..core.api import Api, Event, rpc
from ..core.errors import ApiError, ConfigError
from .document import Json, resolve

_PLAIN: Mapping[object, Any] = {
    "string": str, "integer": int, "number": float, "boolean": bool, "null": None,
}  # fmt: skip
_MOST_DEPTH = 4  #: of lists in lists; what lies deeper is not looked at


def remote_class(api: Json) -> type[Api]:
    """The class of one API of a contract document.

    Raises:
        ConfigError: a name of it is no Python name.
    """
    defs: Mapping[str, Json] = api.get("$defs", {})
    errors = {name: _error(name, schema, defs) for name, schema in api.get("errors", {}).items()}
    members: dict[str, Any] = dict(errors)
    for name, schema in api.get("events", {}).items():
        members[_name(name)] = msgspec.defstruct(name, _fields(schema, defs), bases=(Event,), kw_only=True, frozen=True)
    for name, call in api.get("calls", {}).items():
        members[_name(name)] = rpc(
            timeout_seconds=call.get("timeout_seconds", 5.0), errors=[errors[error] for error in call.get("errors", ())]
        )(_function(name, call["arguments"], defs))
    title = "".join(part[:1].upper() + part[1:] for part in api["name"].rpartition(".")[2].replace("-", "_").split("_"))
    made = types.new_class(
        title, (Api,), {"name": api["name"], "version": api["version"]}, lambda space: space.update(members)
    )
    return made


def _function(name: str, arguments: Json, defs: Mapping[str, Json]) -> Any:
    def function(self: Api, **values: object) -> Any:
        raise NotImplementedError  # the contract has no body

    fields = _fields(arguments, defs)
    parameters = [
        inspect.Parameter(
            field[0], inspect.Parameter.KEYWORD_ONLY, annotation=field[1],
            default=field[2] if len(field) > 2 else inspect.Parameter.empty,
        )
        for field in fields
    ]  # fmt: skip
    function.__name__ = function.__qualname__ = name
    function.__annotations__ = {field[0]: field[1] for field in fields}
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what inspect looks for
        [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD), *parameters]
    )
    return function


def _error(name: str, schema: Json, defs: Mapping[str, Json]) -> type[ApiError]:
    hints = {field[0]: field[1] for field in _fields(schema, defs)}
    return type(_name(name), (ApiError,), {"__annotations__": hints, "__module__": __name__})


def _fields(schema: Json, defs: Mapping[str, Json]) -> list[Any]:
    """Name and type of each field, and UNSET when it may be left out: the other side has the default."""
    required = set(schema.get("required", ()))
    return [
        (_name(name), kind) if name in required else (_name(name), kind | msgspec.UnsetType, msgspec.UNSET)
        for name, inner in schema.get("properties", {}).items()
        for kind in [_type(inner, defs)]
    ]


def _type(schema: Json, defs: Mapping[str, Json], depth: int = 0) -> Any:
    schema = resolve(schema, defs)
    kind = schema.get("type")
    alternatives = (
        [{**schema, "type": one} for one in kind] if isinstance(kind, list) else schema.get("anyOf", [schema])
    )
    kinds = [_single(resolve(one, defs), defs, depth) for one in alternatives]
    lists = [one for one in kinds if one not in _PLAIN.values()]
    if Any in kinds or len(lists) > 1:  # of two kinds of list msgspec cannot tell which one is meant
        return Any
    return Union[tuple(kinds)]  # noqa: UP007  # of as many as there are


def _single(schema: Json, defs: Mapping[str, Json], depth: int) -> Any:
    items = schema.get("items")
    if schema.get("type") == "array" and isinstance(items, dict) and depth < _MOST_DEPTH:
        return list[_type(items, defs, depth + 1)]  # type: ignore[misc]  # made at run time
    return _PLAIN.get(schema.get("type"), Any)


def _name(name: str) -> str:
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise ConfigError(f"{name!r} is no name that a Python program can use, so it cannot be called from here")
    return name
