"""kombu's envelope: what goes in comes out, and nothing that lies in a queue can stop a consumer."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.virtual.base import Base64, Message

from lightbus.core.message import Wire
from lightbus.drivers.kombu.redis_layout import pack, unpack
from lightbus.drivers.kombu.wire import GARBAGE_TYPE, envelope_of, mark_redelivered, open_envelope

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
wires = st.builds(
    Wire,
    body=st.binary(max_size=200),
    content_type=texts,
    content_encoding=texts,
    headers=st.dictionaries(texts, values, max_size=5),
    message_id=texts,
    correlation_id=texts,
    reply_to=texts,
    priority=st.none() | st.integers(0, 9),
    expiration_seconds=st.none() | st.integers(0, 10**9).map(lambda ms: ms / 1000),
    durable=st.booleans(),
    extra=st.dictionaries(st.sampled_from(["app_id", "type", "user_id"]), texts, max_size=3),
)


class FakeChannel:
    """What kombu's message class asks of a channel."""

    def decode_body(self, body: str, encoding: str) -> bytes:
        assert encoding == "base64"
        decoded: bytes = Base64().decode(body)  # type: ignore[no-untyped-call]
        return decoded


@given(wires)
def test_a_message_survives_its_envelope(wire: Wire) -> None:
    raw = json.dumps(envelope_of(wire, "exchange", "key", "tag")).encode()

    assert open_envelope(raw) == (wire, False)
    assert open_envelope(mark_redelivered(raw)) == (wire, True)
    assert mark_redelivered(mark_redelivered(raw)) == mark_redelivered(raw)


@given(wires)
def test_kombu_reads_the_envelope(wire: Wire) -> None:
    message = Message(json.loads(json.dumps(envelope_of(wire, "exchange", "key", "tag"))), channel=FakeChannel())  # type: ignore[no-untyped-call]

    assert (message.body or b"") == wire.body
    assert (message.headers, message.content_type) == (dict(wire.headers), wire.content_type)
    assert message.delivery_info == {"exchange": "exchange", "routing_key": "key"}
    assert message.delivery_tag == "tag"


@given(st.binary(max_size=100) | values.map(lambda value: json.dumps(value).encode()))
def test_anything_else_comes_out_as_it_is(raw: bytes) -> None:
    wire, redelivered = open_envelope(raw)

    assert (wire.body, wire.content_type, redelivered) == (raw, GARBAGE_TYPE, False)
    assert mark_redelivered(raw) == raw


properties = st.dictionaries(
    st.sampled_from(["priority", "reply_to", "expiration", "delivery_info", "body_encoding", "delivery_mode"]), values
)


@given(
    st.fixed_dictionaries(
        {"properties": properties | values}, optional={"body": values, "headers": values, "content-type": values}
    )
)
def test_a_half_right_envelope_never_raises(envelope: dict[str, object]) -> None:
    raw = json.dumps(envelope).encode()

    wire, _ = open_envelope(raw)
    again, _ = open_envelope(json.dumps(envelope_of(wire, "", "parked", "tag")).encode())

    assert again.body == wire.body
    open_envelope(mark_redelivered(raw))


@given(texts, st.binary(max_size=50))
def test_what_is_packed_can_be_unpacked(list_key: str, raw: bytes) -> None:
    assert unpack(pack(list_key, raw)) == (list_key, raw)
