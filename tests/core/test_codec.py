"""The wire format is a contract: golden messages in files, and nothing but DecodeError for whatever else arrives."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightbus.core.codec import (
    decode_call,
    decode_event,
    decode_reply,
    encode_call,
    encode_event,
    encode_reply,
    kind_of,
    split_version,
)
from lightbus.core.description import (
    Description,
    HeardEvent,
    RunningListener,
    ServedApi,
    decode_description,
    encode_description,
    encode_question,
)
from lightbus.core.errors import DecodeError
from lightbus.core.message import CallMessage, EventMessage, Origin, ReplyMessage, Wire

GOLDEN = Path(__file__).parent.parent / "golden" / "lightbus"
NOW = 1_795_478_400.0

ORIGIN = Origin(
    id="5f0c7bb1d9c04f0e8b6f0e6a2f1f9a11",
    source="shop",
    sent_at=NOW,
    correlation_id="1c1f2f9a7e1b4b7e9d0a3c2b1a0f9e8d",
    causation_id="77aa",
    trace={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
)
EVENT = EventMessage(origin=ORIGIN, name="shop.orders.placed", version="1.2", payload=b'{"id":7}', attempt=3)
CALL = CallMessage(
    origin=ORIGIN,
    name="support.tickets.get",
    version="2.0",
    payload=b'{"id":7}',
    reply_to="lightbus.reply.shop.host.1.ab",
    deadline=NOW + 2.5,
)
RESULT = ReplyMessage(call_id=ORIGIN.id, payload=b'"Broken"', failed=False)
PROBLEM = ReplyMessage(
    call_id=ORIGIN.id, payload=b'{"type":"api:NotFound","title":"NotFound","fields":{"id":7}}', failed=True
)
QUESTION = Origin(id="0b5e8d1c2f3a4b5c6d7e8f9a0b1c2d3e", source="command-line", sent_at=NOW, correlation_id="0b5e")
DESCRIPTION = Description(
    app="support", worker="4f1d22a9c0b7", host="web-2", pid=41, lightbus="0.1.0", started_at="2026-11-24T00:00:00.000Z",
    processes=2, slots=2, busy=1,
    apis=(
        ServedApi(
            name="support.tickets", version="1.0", queue="lightbus.rpc.support.tickets.v1",
            contract={"name": "support.tickets", "version": "1.0", "events": {}, "calls": {}},
        ),
    ),
    listeners=(
        RunningListener(
            name="greet", queue="support.on.greet", events=(HeardEvent(name="shop.orders.placed", version="1.2"),)
        ),
    ),
    queues=("lightbus.rpc.support.tickets.v1", "support.on.greet"),
)  # fmt: skip
WIRES = {
    "event": encode_event(EVENT),
    "call": encode_call(CALL, now=NOW),
    "result": encode_reply(RESULT),
    "problem": encode_reply(PROBLEM),
    "describe": encode_question(QUESTION, reply_to="lightbus.reply.command-line.1.ab", deadline=NOW + 1.0, now=NOW),
    "description": encode_reply(
        ReplyMessage(call_id=QUESTION.id, payload=encode_description(DESCRIPTION), failed=False)
    ),
}


def golden(name: str) -> Wire:
    document = json.loads((GOLDEN / f"{name}.json").read_text())
    return Wire(**{**document, "body": base64.b64decode(document["body"])})


@pytest.mark.parametrize("name", WIRES)
def test_what_is_sent_is_what_the_golden_file_says(name: str) -> None:
    assert WIRES[name] == golden(name)


def test_golden_messages_read_back_as_the_same_values() -> None:
    assert decode_event(golden("event")) == EVENT
    assert decode_call(golden("call")) == CALL
    assert decode_reply(golden("result")) == RESULT
    assert decode_reply(golden("problem")) == PROBLEM
    assert decode_call(golden("describe")).name == "lightbus.describe"
    assert decode_description(decode_reply(golden("description")).payload) == DESCRIPTION


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"app":1}', b"[" * 100_000], ids=["empty", "list", "object", "type", "deep"]
)
def test_an_answer_that_is_no_description_is_a_decode_error(body: bytes) -> None:
    with pytest.raises(DecodeError, match="no description"):
        decode_description(body)


@pytest.mark.parametrize("name", WIRES)
def test_headers_are_flat_so_that_they_survive_the_conversion_to_amqp_1(name: str) -> None:
    for key, value in WIRES[name].headers.items():
        assert isinstance(value, str | int)
        assert not key.startswith("x-")


def test_an_expired_call_still_has_a_positive_expiry() -> None:
    assert encode_call(CALL, now=NOW + 60).expiration_seconds == 0.001


@pytest.mark.parametrize(
    "change, named",
    [
        ({"cloudEvents_id": None}, "cloudEvents_id"),
        ({"cloudEvents_id": 7}, "cloudEvents_id"),
        ({"cloudEvents_specversion": "2.0"}, "2.0"),
        ({"cloudEvents_time": "yesterday"}, "yesterday"),
        ({"cloudEvents_type": "shop.orders.placed.v9"}, ".v1"),
        ({"lightbus_version": "one"}, "one"),
        ({"lightbus_attempt": "2"}, "lightbus_attempt"),
        ({"lightbus_attempt": 0}, "lightbus_attempt"),
    ],
)
def test_a_wrong_header_is_named_with_its_value(change: dict[str, object], named: str) -> None:
    wire = golden("event")
    headers = {k: v for k, v in {**wire.headers, **change}.items() if v is not None}
    with pytest.raises(DecodeError, match=named.replace(".", r"\.")):
        decode_event(msgspec.structs.replace(wire, headers=headers))


def test_an_unknown_content_type_is_named() -> None:
    with pytest.raises(DecodeError, match="application/avro"):
        decode_event(msgspec.structs.replace(golden("event"), content_type="application/avro"))


def test_a_call_that_nobody_can_answer_is_refused() -> None:
    with pytest.raises(DecodeError, match="reply_to"):
        decode_call(msgspec.structs.replace(golden("call"), reply_to=""))


HEADER_NAMES = st.sampled_from([*golden("call").headers, *golden("event").headers, "x-death", "other"])
HEADER_VALUES = st.none() | st.integers() | st.text() | st.binary() | st.booleans() | st.lists(st.integers())


@given(
    st.dictionaries(HEADER_NAMES, HEADER_VALUES), st.binary(), st.text(), st.booleans(), st.sampled_from(sorted(WIRES))
)
def test_hostile_headers_raise_nothing_but_decode_errors(
    headers: dict[str, object], body: bytes, content_type: str, keep: bool, name: str
) -> None:
    base = golden(name)
    wire = Wire(
        body=body,
        headers={**(base.headers if keep else {}), **headers},
        content_type=base.content_type if keep else content_type,
        reply_to="lightbus.reply.test.1",
    )
    kind_of(wire)
    for decode in (decode_event, decode_call, decode_reply):
        with contextlib.suppress(DecodeError):
            decode(wire)


@pytest.mark.parametrize("text", ["", "1", "1.", ".1", "a.b", "1.0.0", "-1.0"])
def test_a_version_that_is_not_major_minor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"major\.minor"):
        split_version(text)
