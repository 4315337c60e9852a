"""Reading deliveries from the buffer gives what py-amqp reads, whatever was sent and wherever the bytes were cut."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from struct import pack
from typing import Any

import amqp
import pytest
from amqp.method_framing import frame_handler
from amqp.serialization import dumps
from amqp.transport import TCPTransport
from hypothesis import given
from hypothesis import strategies as st

from lightbus.core.message import Wire
from lightbus.drivers.kombu.amqp_frames import SMALL_FRAME_BYTES, read_delivery, waits_for_more
from lightbus.drivers.kombu.amqp_reader import FrameReader
from lightbus.drivers.kombu.amqp_wire import wire_of
from lightbus.drivers.kombu.link import reads_on

TAG = "lightbus-1"
Taken = tuple[Wire, int, bool]

short_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    short_text,
    st.binary(max_size=20),  # goes as a text, and need not be UTF-8
    st.decimals(-1000, 1000, places=2),
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(lambda moment: moment.replace(microsecond=0)),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short_text, inner, max_size=3), max_leaves=8
)
header_names = short_text.filter(lambda name: len(name.encode()) <= 255)
properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": st.sampled_from(["application/json", "text/plain", "größer", b"\xff\xfe"]),
        "content_encoding": st.sampled_from(["utf-8", "binary"]),
        "application_headers": st.dictionaries(header_names | st.just(b"\xffname"), values, max_size=8),
        "delivery_mode": st.sampled_from([1, 2]),
        "priority": st.integers(0, 255),
        "correlation_id": short_text.filter(lambda text: len(text.encode()) <= 255),
        "reply_to": st.text("abc-.", max_size=20),
        "expiration": st.sampled_from(["0", "1500", "60000"]),
        "message_id": st.text("abc-.", max_size=20),
        "timestamp": st.integers(0, 2**63),
        "type": st.text("abc", max_size=5),
        "user_id": st.text("abc", max_size=5),
        "app_id": st.text("abc", max_size=5),
        "cluster_id": st.text("abc", max_size=5),
    },
)
bodies = st.binary(max_size=300) | st.sampled_from([b"", b"x" * SMALL_FRAME_BYTES])


def frame(kind: int, payload: bytes, channel: int = 1) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def delivery(
    body: bytes, properties: dict[str, Any], *, tag: str = TAG, number: int = 1, redelivered: bool = False,
    body_frames: int = 1,
) -> bytes:  # fmt: skip
    """The frames of a delivery, as py-amqp encodes their parts."""
    message = amqp.Message(body, **properties)
    method = pack(">HH", 60, 60) + dumps("sLbss", (tag, number, redelivered, "", "queue"))
    frames = [frame(1, method), frame(2, pack(">HHQ", 60, 0, len(body)) + message._serialize_properties())]
    size = max(1, -(-len(body) // body_frames))
    frames += [frame(3, body[start : start + size]) for start in range(0, len(body), size)]
    return b"".join(frames)


HEARTBEAT = frame(8, b"", channel=0)
STOP, FRAMES_OF_STOP = delivery(b"", {}, tag="stop"), 2
anything = st.one_of(
    st.builds(
        delivery,
        bodies,
        properties,
        tag=st.sampled_from([TAG, TAG, TAG, "another"]),
        number=st.integers(1, 2**40),
        redelivered=st.booleans(),
        body_frames=st.sampled_from([1, 1, 2, 3]),
    ),
    st.just(HEARTBEAT),
    st.just(delivery(b"z" * (SMALL_FRAME_BYTES + 9), {}, body_frames=2)),
)


class Received:
    """An open py-amqp connection with one channel and two consumers; its broker is a socket that a test writes to."""

    def __init__(self, sock: socket.socket) -> None:
        transport = TCPTransport("127.0.0.1")
        transport.sock = sock
        transport._setup_transport()
        self.connection = amqp.Connection()
        self.connection._transport = transport
        handle = frame_handler(self.connection, self.connection.on_inbound_method)
        self.connection.on_inbound_frame = reads_on(handle)
        channel = amqp.Channel(self.connection, 1)
        channel.is_open = True
        self.connection.channels[1] = channel
        self.taken: list[Taken] = []
        self.by_amqp: list[int] = []
        self.stopped = False
        channel.callbacks["stop"] = lambda message: setattr(self, "stopped", True)
        for tag in (TAG, "another"):
            channel.callbacks[tag] = self._take_message

    def take(self, wire: Wire, tag: int, redelivered: bool) -> None:
        self.taken.append((wire, tag, redelivered))

    def _take_message(self, message: amqp.Message) -> None:
        info = message.delivery_info
        self.by_amqp.append(info["delivery_tag"])
        self.take(wire_of(message), info["delivery_tag"], bool(info["redelivered"]))


@contextmanager
def broker_and_client() -> Iterator[tuple[socket.socket, Received]]:
    broker, client = socket.socketpair()
    with broker, client:
        yield broker, Received(client)


def read_in_pieces(pieces: Sequence[bytes]) -> Received:
    """What arrives when the socket gives one piece after the other."""
    with broker_and_client() as (broker, received):
        reader = FrameReader(received.connection, {TAG.encode(): received.take})
        for piece in pieces:
            broker.sendall(piece)
            while select.select([received.connection.transport.sock], [], [], 0)[0]:
                reader.read()
        return received


def read_by_amqp(stream: bytes) -> Received:
    """What py-amqp alone makes of the same bytes."""
    with broker_and_client() as (broker, received):
        writer = threading.Thread(target=broker.sendall, args=(stream + STOP,))
        writer.start()
        while not received.stopped:
            received.connection.blocking_read()
        writer.join()
        return received


@given(st.lists(anything, min_size=1, max_size=4), st.data())
def test_any_messages_are_read_as_py_amqp_reads_them_wherever_the_bytes_are_cut(
    sent: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(sent)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    received = read_in_pieces([piece for piece in pieces if piece])

    by_amqp = read_by_amqp(stream)
    assert received.taken == by_amqp.taken
    assert received.connection.bytes_recv == by_amqp.connection.bytes_recv - FRAMES_OF_STOP
    assert received.connection.transport._read_buffer == b""


PLAIN = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "application_headers": {"task": "t", "id": "1", "eta": None, "retries": 3, "big": 2**40, "timelimit": [None, 1.5],
                            "ignore_result": False, "stamps": {"a": ["b"]}},
    "delivery_mode": 2,
    "priority": 0,
    "correlation_id": "1",
    "app_id": "shop",
    "timestamp": 1_700_000_000,
}  # fmt: skip


def test_the_usual_message_does_not_pass_through_py_amqp() -> None:
    received = read_in_pieces([delivery(b"[]", PLAIN, number=number) for number in (1, 2)])

    assert [number for _, number, _ in received.taken] == [1, 2]
    assert received.by_amqp == []


@pytest.mark.parametrize(
    "odd",
    [
        {"application_headers": {"at": datetime(2026, 1, 1)}},
        {"application_headers": {"price": Decimal("1.50")}},
        {"application_headers": {"a": b"\xff"}},
        {"cluster_id": "old"},
    ],
    ids=["moment", "decimal", "no text", "cluster_id"],
)
def test_what_is_unusual_is_left_to_py_amqp(odd: dict[str, Any]) -> None:
    received = read_in_pieces([delivery(b"1", odd, number=7), delivery(b"2", PLAIN, number=8)])

    assert [number for _, number, _ in received.taken] == [7, 8]
    assert received.by_amqp == [7]


def test_a_large_body_in_many_frames_is_left_to_py_amqp() -> None:
    body = bytes(range(256)) * 4096
    stream = delivery(body, PLAIN, number=1, body_frames=64) + delivery(b"next", PLAIN, number=2)

    received = read_in_pieces([stream[start : start + 10_000] for start in range(0, len(stream), 10_000)])

    assert [(wire.body, number) for wire, number, _ in received.taken] == [(body, 1), (b"next", 2)]
    assert received.by_amqp == [1]


def test_py_amqp_can_go_on_reading_where_the_reader_stopped() -> None:
    """As in a call that waits for the broker's answer: the start of its frames has been received already."""
    first, second = delivery(b"1", PLAIN, number=1), delivery(b"2", PLAIN, number=2)
    with broker_and_client() as (broker, received):
        reader = FrameReader(received.connection, {TAG.encode(): received.take})
        broker.sendall(first + second[:-5])
        reader.read()
        broker.sendall(second[-5:])
        for _ in range(3):
            received.connection.blocking_read()

        assert [number for _, number, _ in received.taken] == [1, 2]
        assert received.by_amqp == [2]


def test_a_frame_without_its_end_mark_breaks_the_connection() -> None:
    broken = bytearray(delivery(b"1", PLAIN))
    broken[-1] = 0
    with pytest.raises(amqp.exceptions.UnexpectedFrame, match="frame_end"):
        read_in_pieces([bytes(broken)])


def test_the_end_of_the_stream_breaks_the_connection() -> None:
    with broker_and_client() as (broker, received):
        broker.close()
        with pytest.raises(ConnectionResetError):
            FrameReader(received.connection, {}).read()


@given(st.binary(max_size=60))
def test_no_bytes_whatever_make_the_parser_raise(noise: bytes) -> None:
    start = delivery(b"1", PLAIN)
    for buffer in (noise, start[:40] + noise, start[:-20] + noise):
        read_delivery(buffer, 0)
        waits_for_more(buffer, 0)
