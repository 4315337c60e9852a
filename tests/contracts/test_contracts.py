"""Contracts as documents: exported, compared by the rules of versions, and written down again as Python."""

from __future__ import annotations

import json
import sys
import types
from typing import Any

import jsonschema
import pytest

from lightbus import ConfigError
from lightbus.contracts.compare import Level, compare
from lightbus.contracts.document import DIALECT, Json, document_of, read_document
from lightbus.contracts.source import source_of

from .samples import Shop

HEADER = "import enum\nfrom typing import *\nfrom lightbus import Api, ApiError, Event, rpc\nfrom msgspec import Meta\n"


def documented(body: str, version: str = "1.0", name: str = "t.api") -> Json:
    """The contract document of an API with this body."""
    module = types.ModuleType("declared")
    lines = body.replace("; ", "\n").splitlines()
    source = f"class Declared(Api, name={name!r}, version={version!r}):\n" + "\n".join("    " + line for line in lines)
    sys.modules["declared"] = module
    exec(compile(HEADER + source, "declared.py", "exec"), module.__dict__)
    return document_of([module.Declared])


def event(fields: str) -> str:
    return "class e(Event):\n" + "\n".join("    " + field for field in fields.split(" & "))


def call(arguments: str, result: str = "int", options: str = "") -> str:
    star = "*, " if arguments else ""
    return f"@rpc({options})\ndef c(self, {star}{arguments}) -> {result}: ..."


def test_every_schema_of_a_document_is_valid_in_its_dialect() -> None:
    (api,) = document_of([Shop])["apis"]
    assert api["$schema"] == DIALECT
    schemas = [*api["events"].values(), *api["errors"].values()]
    for described in api["calls"].values():
        schemas += [described["arguments"], described["result"]]
    for schema in schemas:
        whole = {"$schema": DIALECT, **schema, "$defs": api["$defs"]}
        jsonschema.Draft202012Validator.check_schema(whole)
        list(jsonschema.Draft202012Validator(whole).iter_errors({}))  # every reference leads somewhere
    assert set(api["events"]) == {"shipped"}
    assert api["calls"]["quote"]["errors"] == ["Refused"]
    assert (api["calls"]["quote"]["timeout_seconds"], api["calls"]["quote"]["idempotent"]) == (2.5, True)


MAJOR, MINOR, NONE = Level.MAJOR, Level.MINOR, Level.NONE


@pytest.mark.parametrize(
    "old, new, level, place",
    [
        (event("a: int"), event("a: int & b: int = 0"), MINOR, "t.api.e(b)"),
        (event("a: int"), event("a: int & b: int"), MAJOR, "t.api.e(b)"),
        (event("a: int & b: int = 0"), event("a: int"), MAJOR, "t.api.e(b)"),
        (event("a: int"), event("a: str"), MAJOR, "t.api.e(a)"),
        (event("a: int"), event("a: int | str"), MAJOR, "t.api.e(a)"),
        (event("a: int | None"), event("a: int"), MAJOR, "t.api.e(a)"),
        (event("a: list[int]"), event("a: list[str]"), MAJOR, "t.api.e(a[])"),
        (event("a: dict[str, int]"), event("a: dict[str, int | None]"), MAJOR, "t.api.e(a{})"),
        (event("a: int = 0"), event("a: int = 1"), NONE, "t.api.e(a)"),
        (event("a: int"), "pass", MAJOR, "t.api.e"),
        ("pass", event("a: int"), MINOR, "t.api.e"),
        (call("a: int"), call("a: int, b: int = 0"), MINOR, "t.api.c(b)"),
        (call("a: int"), call("a: int, b: int"), MAJOR, "t.api.c(b)"),
        (call("a: int, b: int"), call("a: int"), MAJOR, "t.api.c(b)"),
        (call("a: int"), call("a: int | None"), MINOR, "t.api.c(a)"),
        (call("a: int"), call("a: float"), MINOR, "t.api.c(a)"),
        (call("a: float"), call("a: int"), MAJOR, "t.api.c(a)"),
        (call("a: int"), call("a: Annotated[int, Meta(ge=1)]"), MAJOR, "t.api.c(a)"),
        (call("a: Annotated[int, Meta(ge=1)]"), call("a: Annotated[int, Meta(ge=0)]"), MINOR, "t.api.c(a)"),
        (call("a: Annotated[str, Meta(max_length=9)]"), call("a: Annotated[str, Meta(max_length=8)]"), MAJOR,
         "t.api.c(a)"),
        (call("a: Literal['x', 'y']"), call("a: Literal['x']"), MAJOR, "t.api.c(a)"),
        (call("a: Literal['x']"), call("a: Literal['x', 'y']"), MINOR, "t.api.c(a)"),
        (call("a: Literal['x']"), call("a: str"), MINOR, "t.api.c(a)"),
        (call("", "int"), call("", "int | None"), MAJOR, "t.api.c -> result"),
        (call("", "int | None"), call("", "int"), MINOR, "t.api.c -> result"),
        (call("", "Literal['x']"), call("", "Literal['x', 'y']"), MAJOR, "t.api.c -> result"),
        (call("", "int"), call("", "str"), MAJOR, "t.api.c -> result"),
        (call("", options="idempotent=True"), call(""), MAJOR, "t.api.c"),
        (call("a: int"), "pass", MAJOR, "t.api.c"),
    ],
)  # fmt: skip
def test_what_a_change_asks_of_the_version(old: str, new: str, level: Level, place: str) -> None:
    (found,) = compare(documented(old), documented(new))

    assert [(change.level, change.place) for change in found.changes] == [(level, place)]
    assert found.is_fine is (level is NONE)
    for version, raised in (("1.1", MINOR), ("2.0", MAJOR)):
        (again,) = compare(documented(old), documented(new, version))
        assert again.is_fine is (raised >= level), version


def test_an_error_that_is_new_is_a_minor_change() -> None:
    error = "class No(ApiError):\n    a: int\n"
    (found,) = compare(documented(error + call("")), documented(error + call("", options="errors=[No]")))

    assert {change.level for change in found.changes} == {MINOR}


def test_a_type_inside_a_type_is_compared_and_may_contain_itself() -> None:
    old = "class Node(TypedDict):\n    a: int\n    next: 'Declared.Node | None'\n"
    (same,) = compare(documented(old + event("n: 'Declared.Node'")), documented(old + event("n: 'Declared.Node'")))
    tightened = old.replace("a: int", "a: str")
    (found,) = compare(
        documented(old + event("n: 'Declared.Node'")), documented(tightened + event("n: 'Declared.Node'"))
    )

    assert same.changes == ()
    assert [(change.level, change.place) for change in found.changes] == [(MAJOR, "t.api.e(n.a)")]


def test_an_api_that_is_gone_or_whose_version_fell_is_found() -> None:
    (gone,) = compare(documented("pass"), documented("pass", name="other.api"))
    (fell,) = compare(documented("pass", "1.2"), documented("pass", "1.1"))

    assert not gone.is_fine
    assert not fell.is_fine


def test_a_contract_that_is_written_down_as_python_says_the_same() -> None:
    document = document_of([Shop])
    source = source_of(document["apis"][0])
    module: Any = types.ModuleType("pulled")
    sys.modules["pulled"] = module
    exec(compile(source, "pulled.py", "exec"), module.__dict__)

    again = document_of([module.Shop])

    for one, other in ((document, again), (again, document)):
        (found,) = compare(one, other)
        assert found.changes == ()
    assert again["apis"][0]["calls"].keys() == document["apis"][0]["calls"].keys()
    assert module.Shop.quote.errors == {"Refused": module.Shop.Refused}
    assert module.Shop.quote.idempotent


def test_a_name_that_is_no_python_name_is_refused_and_not_written() -> None:
    document = documented(event("a: int"))
    api = document["apis"][0]
    api["events"]["e"]["properties"] = {"a: int = exit()": {"type": "integer"}}

    with pytest.raises(ConfigError, match="no Python name"):
        source_of(api)


@pytest.mark.parametrize("text", ["", "[]", '{"lightbus_contract": 1}', '{"lightbus_contract": 2, "apis": []}'])
def test_what_is_no_contract_document_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="here"):
        read_document(text, "here")
    assert read_document(json.dumps(document_of([Shop])), "here")["apis"]
