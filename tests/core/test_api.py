"""Declaring an API: what is wrong fails where it is written, and what is sent is checked before it leaves."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from lightbus import Api, ApiError, BadArguments, DeclarationError, Event, RemoteError, rpc
from lightbus.core.schema import (
    CallSchema,
    decode_problem,
    encode_event,
    encode_problem,
    event_decoder,
    problem_of_declared,
    rebuild_declared,
)


class Orders(Api, name="shop.orders", version="2.3"):
    class placed(Event):
        id: int
        total: Decimal
        at: dt.datetime
        note: str = ""

    class NotFound(ApiError):
        id: int

    @rpc(timeout_seconds=1.5, errors=[NotFound], idempotent=True)
    def find(self, *, ids: list[int], limit: int = 10) -> dict[str, UUID]:
        raise NotImplementedError

    @rpc()
    async def later(self, *, seconds: float) -> str:
        raise NotImplementedError


PLACED = Orders.placed(id=1, total=Decimal("1.10"), at=dt.datetime(2026, 11, 24, tzinfo=dt.timezone.utc))


def test_events_and_calls_know_their_full_names_and_version() -> None:
    assert Orders.placed.spec is not None
    assert (Orders.placed.spec.name, Orders.placed.spec.major) == ("shop.orders.placed", 2)
    assert Orders.find.full_name == "shop.orders.find"
    assert Orders.find.timeout_seconds == 1.5


def test_an_event_survives_the_wire_with_its_types() -> None:
    assert event_decoder(Orders.placed)(encode_event(PLACED)) == PLACED


def test_a_wrong_field_fails_at_the_sender_naming_field_and_type() -> None:
    wrong: Any = Orders.placed(id="7", total=Decimal(1), at=PLACED.at)  # type: ignore[arg-type]
    with pytest.raises(BadArguments, match=r"placed.*id: Expected `int`, got `str`, namely '7'"):
        encode_event(wrong)


def test_fields_that_a_newer_sender_adds_are_left_aside() -> None:
    payload = encode_event(PLACED)[:-1] + b',"added":[1]}'
    assert event_decoder(Orders.placed)(payload) == PLACED


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"null", b'{"id":1}', b"\xff\xfe", b'{"id":1e999}'])
def test_a_payload_that_is_no_such_event_is_refused(payload: bytes) -> None:
    with pytest.raises(BadArguments, match="placed"):
        event_decoder(Orders.placed)(payload)


def test_arguments_get_their_defaults_and_types_on_the_serving_side() -> None:
    schema = CallSchema(Orders.find)
    assert schema.decode_arguments(schema.encode_arguments({"ids": [1, 2]})) == {"ids": [1, 2], "limit": 10}


@pytest.mark.parametrize(
    "arguments, named",
    [
        ({}, "ids"),
        ({"ids": [1], "more": 1}, "more"),
        ({"ids": ["x"]}, r"ids\[0\]: .*namely"),
        ({"ids": 5}, r"ids: .*namely 5"),
    ],
)
def test_wrong_arguments_fail_at_the_caller_naming_them(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(BadArguments, match=named):
        CallSchema(Orders.find).encode_arguments(arguments)


def test_a_result_is_checked_on_both_sides() -> None:
    schema = CallSchema(Orders.find)
    result = {"a": UUID(int=5)}
    assert schema.decode_result(schema.encode_result(result)) == result
    with pytest.raises(BadArguments, match="find"):
        schema.encode_result({"a": 5})
    with pytest.raises(RemoteError, match="find"):
        schema.decode_result(b'{"a":5}')


def test_a_coroutine_call_declares_the_type_it_returns_when_awaited() -> None:
    assert CallSchema(Orders.later).result_type is str


def test_a_declared_error_crosses_the_wire_as_itself() -> None:
    problem = decode_problem(encode_problem(problem_of_declared(Orders.NotFound("gone", id=7))))
    error = rebuild_declared(Orders.NotFound, problem)

    assert isinstance(error, Orders.NotFound)
    assert error.id == 7
    assert str(error) == "gone"


def test_a_declared_error_with_fields_that_do_not_fit_becomes_a_remote_error() -> None:
    problem = decode_problem(b'{"type":"api:NotFound","title":"NotFound","fields":{"id":"x"}}')
    assert isinstance(rebuild_declared(Orders.NotFound, problem), RemoteError)


def test_an_error_takes_just_its_declared_fields() -> None:
    with pytest.raises(TypeError, match="'id'"):
        Orders.NotFound(name="x")


def test_positional_parameters_are_refused_since_a_call_must_be_able_to_grow() -> None:
    with pytest.raises(DeclarationError, match="'id' must be keyword-only"):

        class Wrong(Api, name="a.b", version="1.0"):
            @rpc()
            def get(self, id: int) -> int:
                raise NotImplementedError


@pytest.mark.parametrize("name, version", [("", "1.0"), ("a b", "1.0"), ("a..b", "1.0"), ("a", "1"), ("a", "")])
def test_a_name_or_version_that_cannot_travel_is_refused(name: str, version: str) -> None:
    with pytest.raises(DeclarationError):
        type("Wrong", (Api,), {}, name=name, version=version)


def test_an_owner_that_drifted_from_its_contract_is_refused() -> None:
    with pytest.raises(DeclarationError, match="contract says"):

        class Drifted(Orders):
            @rpc()
            def find(self, *, ids: list[int]) -> dict[str, UUID]:  # type: ignore[override]
                raise NotImplementedError


def test_an_owner_that_forgets_rpc_is_told() -> None:
    with pytest.raises(DeclarationError, match="@rpc"):

        class Plain(Orders):
            def find(self, *, ids: list[int], limit: int = 10) -> dict[str, UUID]:  # type: ignore[override]
                raise NotImplementedError


def test_a_call_on_an_implementation_runs_right_here() -> None:
    class Owner(Orders):
        @rpc()
        def find(self, *, ids: list[int], limit: int = 10) -> dict[str, UUID]:
            return {str(limit): UUID(int=ids[0])}

    assert Owner().find(ids=[3]) == {"10": UUID(int=3)}
    with pytest.raises(DeclarationError, match=r"bus\.client"):
        Owner().find.start(ids=[3])
