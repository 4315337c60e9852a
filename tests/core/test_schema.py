"""Whatever is in a payload, or in what a handler returns, ends in an error that the other side is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lightbus import Api, ApiError, BadArguments, Event, RemoteError, rpc
from lightbus.core.schema import (
    CallSchema,
    Problem,
    decode_problem,
    encode_event,
    encode_problem,
    event_decoder,
    problem_of_declared,
    rebuild_declared,
)


class Anything(Api, name="tests.anything", version="1.0"):
    class happened(Event):
        what: Any

    class Refused(ApiError):
        why: Any

    @rpc(errors=[Refused])
    def echo(self, *, what: Any) -> Any: ...


SCHEMA = CallSchema(Anything.echo)
DEEP = b"[" * 100_000 + b"]" * 100_000
HALF = "half a pair: \ud800"


def nested() -> list[object]:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize("value", [DEEP, b'"\xff"', b'"\\ud800"', b"1" * 1_000_000, b""], ids=lambda value: value[:8])
@pytest.mark.parametrize(
    "decode, error",
    [
        (lambda value: SCHEMA.decode_arguments(b'{"what":' + value + b"}"), BadArguments),
        (lambda value: event_decoder(Anything.happened)(b'{"what":' + value + b"}"), BadArguments),
        (SCHEMA.decode_result, RemoteError),
    ],
    ids=["arguments", "event", "result"],
)
def test_a_payload_that_cannot_be_read_is_an_error_of_ours(
    decode: Callable[[bytes], object], error: type[Exception], value: bytes
) -> None:
    with pytest.raises(error):
        decode(value)


@pytest.mark.parametrize("value", [nested(), HALF, object()], ids=["deep", "half a pair", "object"])
@pytest.mark.parametrize(
    "encode",
    [
        lambda value: SCHEMA.encode_arguments({"what": value}),
        SCHEMA.encode_result,
        lambda value: encode_event(Anything.happened(what=value)),
    ],
    ids=["arguments", "result", "event"],
)
def test_a_value_that_cannot_be_written_is_an_error_of_ours(encode: Callable[[object], bytes], value: object) -> None:
    with pytest.raises(BadArguments):
        encode(value)


def test_an_error_answer_that_cannot_be_read_says_so() -> None:
    deep = b'{"type":"x","title":"t","fields":{"a":' + DEEP + b"}}"
    for payload in (deep, b'{"type":"x","title":"\xff"}', b"5", b""):
        assert decode_problem(payload).type == "undecodable"


def test_an_error_answer_can_always_be_written() -> None:
    problem = Problem(type="error:X", title="X", detail=HALF, retryable=True, fields={"why": nested()})

    assert decode_problem(encode_problem(problem)) == Problem(
        type="error:X", title="X", detail="half a pair: \\ud800", retryable=True
    )


@pytest.mark.parametrize("why", [HALF, object()], ids=["half a pair", "object"])
def test_a_declared_error_with_fields_that_cannot_be_written_arrives_with_its_text(why: object) -> None:
    problem = decode_problem(encode_problem(problem_of_declared(Anything.Refused("no", why=why))))
    arrived = rebuild_declared(Anything.Refused, problem)

    assert type(arrived) is RemoteError
    assert arrived.error_type == "Refused"
    assert str(arrived).endswith("its text is 'no'")
