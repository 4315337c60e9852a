"""A contract as a JSON document: versions, events, calls and errors of APIs, with JSON Schemas (2020-12).

    {"lightbus_contract": 1, "apis": [{
        "$id": "urn:lightbus:support.tickets:1.0", "$schema": "https://json-schema.org/draft/2020-12/schema",
        "name": "support.tickets", "version": "1.0",
        "events": {"created": SCHEMA},
        "calls": {"get": {"arguments": SCHEMA, "result": SCHEMA, "errors": ["NotFound"], "timeout_seconds": 2.0,
                          "idempotent": false}},
        "errors": {"NotFound": SCHEMA},
        "$defs": {"Ticket": SCHEMA}
    }]}

A schema refers to the types of its API by `#/$defs/NAME`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, get_type_hints

import msgspec

from ..core.api import Api
from ..core.codec import split_version
from ..core.errors import ApiError, ConfigError, DeclarationError
from ..core.plain import plain_schema
from ..core.schema import CallSchema
from ..core.topology import check_name

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FORMAT = 1
REFERENCE = "#/$defs/"

Json: TypeAlias = dict[str, Any]


def document_of(apis: Iterable[type[Api]]) -> Json:
    """The contracts of `apis`, by name and version."""
    ordered = sorted(apis, key=lambda api: (api.api_name, api.major()))
    return {"lightbus_contract": FORMAT, "apis": [api_document(api) for api in ordered]}


def api_document(api: type[Api]) -> Json:
    """One API of the document.

    Raises:
        DeclarationError: a type of it has no JSON Schema; names the type.
    """
    calls = {name: CallSchema(rpc) for name, rpc in api.api_calls.items()}
    errors = {error.__name__: error for rpc in api.api_calls.values() for error in rpc.errors.values()}
    fields = {name: msgspec.defstruct(name, list(_error_hints(error).items())) for name, error in errors.items()}
    roots: list[Any] = [*api.api_events.values(), *fields.values()]
    for schema in calls.values():
        roots += [schema.arguments_type, schema.result_type]
    try:
        found, components = msgspec.json.schema_components(
            roots, ref_template=REFERENCE + "{name}", schema_hook=plain_schema
        )
    except (TypeError, NotImplementedError) as error:
        raise DeclarationError(f"API {api.api_name!r} has a type without a JSON Schema: {error}") from error
    schemas = iter(found)
    events = {name: _inlined(next(schemas), components) for name in api.api_events}
    declared = {name: _inlined(next(schemas), components) for name in fields}
    documents = {}
    for name, schema in calls.items():
        arguments, result = _inlined(next(schemas), components), next(schemas)
        documents[name] = {
            "arguments": arguments, "result": result, "errors": sorted(schema.rpc.errors),
            "timeout_seconds": schema.rpc.timeout_seconds, "idempotent": schema.rpc.idempotent,
        }  # fmt: skip
    document: Json = {
        "$id": f"urn:lightbus:{api.api_name}:{api.api_version}", "$schema": DIALECT,
        "name": api.api_name, "version": api.api_version,
        "events": events, "calls": documents, "errors": declared,
    }  # fmt: skip
    document["$defs"] = _used(document, components)
    return document


def read_document(text: str | bytes, where: str) -> Json:
    """Parse what `document_of` made.

    Args:
        where: names the text in errors.

    Raises:
        ConfigError: it is no such document, or names an API as none can be named.
    """
    try:
        document = msgspec.json.decode(text, type=_Document)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{where} is no contract document: {error}") from error
    if document.lightbus_contract != FORMAT:
        raise ConfigError(f"{where} has format {document.lightbus_contract}; this version reads {FORMAT}")
    for api in document.apis:
        try:
            check_name(api.name, "the API name")
            split_version(api.version)
        except (DeclarationError, ValueError) as error:
            raise ConfigError(f"{where}: {error}") from error
    plain: Json = msgspec.json.decode(text)
    return plain


def resolve(schema: Json, defs: Mapping[str, Json]) -> Json:
    """`schema`, or what it refers to; what stands beside the reference wins."""
    while "$ref" in schema:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**defs[schema["$ref"].removeprefix(REFERENCE)], **beside}
    return schema


class _Call(msgspec.Struct):
    arguments: dict[str, Any]
    result: dict[str, Any]
    errors: list[str] = []
    timeout_seconds: float = 5.0
    idempotent: bool = False


class _ApiDocument(msgspec.Struct):
    name: str
    version: str
    defs: dict[str, dict[str, Any]] = msgspec.field(name="$defs", default_factory=dict)
    events: dict[str, dict[str, Any]] = {}
    calls: dict[str, _Call] = {}
    errors: dict[str, dict[str, Any]] = {}


class _Document(msgspec.Struct):
    lightbus_contract: int
    apis: list[_ApiDocument]


def _error_hints(error: type[ApiError]) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for kind in reversed(error.__mro__):
        if issubclass(kind, ApiError) and kind is not ApiError and "__annotations__" in vars(kind):
            hints |= get_type_hints(kind, include_extras=True)
    return hints


def _inlined(schema: Json, components: Mapping[str, Json]) -> Json:
    return components[schema["$ref"].removeprefix(REFERENCE)] if "$ref" in schema else schema


def _used(document: Json, components: Mapping[str, Json]) -> Json:
    """The components that something refers to, directly or through another."""
    used: Json = {}
    waiting = list(_references(document))
    while waiting:
        name = waiting.pop()
        if name not in used:
            used[name] = components[name]
            waiting += _references(components[name])
    return dict(sorted(used.items()))


def _references(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        target = value.get("$ref")
        if isinstance(target, str):
            yield target.removeprefix(REFERENCE)
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
