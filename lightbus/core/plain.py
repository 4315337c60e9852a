"""What msgspec asks about types unknown to it, of which Lightbus takes pydantic models, and its errors in words.

Pydantic is not imported: a model is known by its methods. Pure.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any

import msgspec

_PLACE = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.(?P<name>\w+)|\[(?P<index>\d+)\]")


def to_plain(value: object) -> object:
    """A pydantic model as JSON's types.

    Raises:
        TypeError: it is none.
    """
    if hasattr(type(value), "model_validate") and hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def from_plain(kind: type, value: object) -> object:
    """A pydantic model of class `kind`.

    Raises:
        ValueError: `value` does not fit.
        TypeError: `kind` is no model.
    """
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    raise TypeError(f"{getattr(kind, '__name__', kind)} cannot be made from JSON")


def plain_schema(kind: type) -> dict[str, Any]:
    """The JSON Schema of a pydantic model, without references.

    Raises:
        NotImplementedError: `kind` is no model.
        TypeError: the model contains itself.
    """
    if not hasattr(kind, "model_json_schema"):
        raise NotImplementedError(f"{kind.__name__} has no JSON Schema")
    schema: dict[str, Any] = kind.model_json_schema()
    defs = schema.pop("$defs", {})
    inlined = _without_references(schema, defs, ())
    assert isinstance(inlined, dict)
    return inlined


def in_words(error: Exception, fields: Mapping[str, object]) -> str:
    """A validation error with the name of the field and the value that was given for it.

    msgspec says what it expected, what it got and where; of a value that it cannot write at all, only the type.
    """
    text = str(error)
    if (place := _PLACE.search(text)) is not None:
        path = place["path"]
        head, value = text[: place.start()], _value_at(path, fields)
        return f"{path.removeprefix('.')}: {head}, namely {reprlib.repr(value)}" if path else head
    for name, value in fields.items():
        try:
            msgspec.json.encode(value, enc_hook=to_plain)
        except (ValueError, TypeError, OverflowError, RecursionError) as own:
            return f"{name}: {own}, in {reprlib.repr(value)}"
    return text


def _value_at(path: str, fields: Mapping[str, object]) -> object:
    """The value at msgspec's `path`, as far as it can be followed: a step into a dict has no name in it."""
    value: Any = fields
    for step in _STEP.finditer(path):
        try:
            if step["index"] is not None:
                value = value[int(step["index"])]
            else:
                value = value[step["name"]] if isinstance(value, Mapping) else getattr(value, step["name"])
        except (LookupError, AttributeError, TypeError):
            break
    return value


def _without_references(value: object, defs: Mapping[str, Any], inside: tuple[str, ...]) -> object:
    if isinstance(value, list):
        return [_without_references(inner, defs, inside) for inner in value]
    if not isinstance(value, dict):
        return value
    target = value.get("$ref")
    if isinstance(target, str):
        name = target.rpartition("/")[2]
        if name in inside:
            raise TypeError(f"the model {name} contains itself, which has no schema without references")
        rest = {key: inner for key, inner in value.items() if key != "$ref"}
        value = {**defs[name], **rest}
        inside = (*inside, name)
    return {key: _without_references(inner, defs, inside) for key, inner in value.items()}
