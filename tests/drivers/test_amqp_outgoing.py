"""The frames that are packed here are, byte for byte, those that py-amqp would have written."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from amqp.method_framing import frame_writer
from amqp.serialization import dumps
from hypothesis import given
from hypothesis import strategies as st

from lightbus.core.message import Route, Wire
from lightbus.drivers.kombu.amqp_outgoing import frames_of
from lightbus.drivers.kombu.amqp_wire import message_of

ROUTE = Route("lightbus.events", "a.b.v1")


def by_py_amqp(wire: Wire, route: Route, *, mandatory: bool = False, frame_max: int = 131_072) -> bytes:
    """What py-amqp writes for the message on channel 7."""
    written: list[bytes] = []
    transport = SimpleNamespace(write=lambda data: written.append(bytes(data)))
    write = frame_writer(SimpleNamespace(frame_max=frame_max, bytes_sent=0), transport)
    arguments = dumps("Bssbb", (0, route.exchange, route.routing_key, mandatory, False))
    write(1, 7, (60, 40), arguments, message_of(wire))
    return b"".join(written)


def ours(wire: Wire, route: Route = ROUTE, *, mandatory: bool = False, frame_max: int = 131_072) -> bytes | None:
    return frames_of(wire, route, channel=7, mandatory=mandatory, frame_max=frame_max)


short = st.text(max_size=60)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(short, inner, max_size=4),
    max_leaves=12,
)
wires = st.builds(
    Wire,
    body=st.binary(max_size=300),
    content_type=short,
    content_encoding=short,
    headers=st.dictionaries(short, values, max_size=6),
    message_id=short,
    correlation_id=short,
    reply_to=short,
    priority=st.none() | st.integers(0, 255),
    expiration_seconds=st.none() | st.floats(0, 1e6),
    durable=st.booleans(),
)


@given(wire=wires, exchange=short, key=short, mandatory=st.booleans())
def test_the_frames_are_those_that_py_amqp_writes(wire: Wire, exchange: str, key: str, mandatory: bool) -> None:
    route = Route(exchange, key)

    assert ours(wire, route, mandatory=mandatory) == by_py_amqp(wire, route, mandatory=mandatory)


@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 10_000])
def test_a_body_goes_into_frames_of_the_size_that_was_agreed(size: int) -> None:
    wire = Wire(body=bytes(n % 251 for n in range(size)), headers={"a": 1})

    assert ours(wire, frame_max=4096) == by_py_amqp(wire, ROUTE, frame_max=4096)


@pytest.mark.parametrize(
    "wire",
    [
        Wire(body=b"", extra={"app_id": "shop"}),
        Wire(body=b"", headers={"at": datetime(2026, 11, 25, tzinfo=timezone.utc)}),
        Wire(body=b"", headers={"price": Decimal("1.50")}),
        Wire(body=b"", headers={"raw": b"\xff"}),
        Wire(body=b"", headers={"huge": 2**63}),
        Wire(body=b"", headers={"x" * 256: 1}),
        Wire(body=b"", headers={1: "a key that is no text"}),  # type: ignore[dict-item]
        Wire(body=b"", headers={"odd": object()}),
        Wire(body=b"", correlation_id="x" * 256),
        Wire(body=b"", priority=256),
    ],
    # Cut before an address begins: processes that run the tests have to agree on the names.
    ids=lambda wire: str(dict(wire.extra) or dict(wire.headers) or wire.correlation_id or wire.priority)[:25],
)
def test_what_is_unusual_is_left_to_py_amqp_with_its_errors(wire: Wire) -> None:
    assert ours(wire) is None


def test_a_subclass_of_a_usual_type_is_left_to_py_amqp() -> None:
    class Text(str):
        pass

    assert ours(Wire(body=b"", headers={"a": Text("x")})) is None
    assert by_py_amqp(Wire(body=b"", headers={"a": Text("x")}), ROUTE)


def test_threads_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    wires = [Wire(body=str(n).encode() * 100, headers={"n": n}) for n in range(8)]
    expected = [by_py_amqp(wire, ROUTE) for wire in wires]
    wrong: list[Any] = []

    def pack(number: int) -> None:
        for _ in range(200):
            if ours(wires[number]) != expected[number]:
                wrong.append(number)

    threads = [threading.Thread(target=pack, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
