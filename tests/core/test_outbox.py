"""What stands in an outbox is what is published later, and what becomes of a row after a try."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightbus.core.errors import (
    AccessRefused,
    BrokerUnreachable,
    ConnectionLost,
    DecodeError,
    NotConfirmed,
    Unroutable,
    Unwritable,
)
from lightbus.core.message import Parcel, Route, Wire
from lightbus.core.outbox import (
    MAX_ATTEMPTS,
    Aside,
    Away,
    Backlog,
    Claimed,
    Later,
    Row,
    Sent,
    entry_of,
    parcel_of,
    slices,
    verdicts_of,
)
from lightbus.drivers.memory import MemoryTransport
from lightbus.firing import terms_of

TEXTS = st.text(max_size=20)
PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS
HEADERS = st.dictionaries(TEXTS, PLAIN | st.lists(PLAIN, max_size=3), max_size=5)
WIRES = st.builds(
    Wire,
    body=st.binary(max_size=50),
    content_type=TEXTS,
    headers=HEADERS,
    message_id=st.text(min_size=1, max_size=10),
    correlation_id=TEXTS,
    reply_to=TEXTS,
    priority=st.none() | st.integers(0, 9),
    expiration_seconds=st.none() | st.floats(0, 1e6),
    durable=st.booleans(),
    extra=HEADERS,
)


def row(parcel: Parcel, *, attempts: int = 1, now: float = 100.0) -> Row:
    entry = entry_of(parcel, kind="event", name="shop.placed", now=now)
    return Row(position=1, attempts=attempts, next_at=0.0, error="", is_aside=False, entry=entry)


@settings(max_examples=50)
@given(WIRES, TEXTS, TEXTS)
def test_what_is_written_is_what_is_published(wire: Wire, exchange: str, key: str) -> None:
    parcel = Parcel(wire, Route(exchange, key))
    assert parcel_of(row(parcel), now=500.0) == parcel


def test_a_second_attempt_is_flagged_and_keeps_its_id() -> None:
    again = parcel_of(
        row(Parcel(Wire(body=b"{}", message_id="a", headers={"h": "x"}), Route("e", "k")), attempts=2), now=0
    )

    assert again.wire.message_id == "a"
    assert again.wire.headers == {"h": "x", "lightbus_repeat": 1}


@pytest.mark.parametrize("now, left", [(100.0, 60.0), (130.0, 30.0), (500.0, 0.0)])
def test_a_delay_counts_from_when_it_was_written(now: float, left: float) -> None:
    assert parcel_of(row(Parcel(Wire(body=b""), Route("", "q"), delay_seconds=60.0)), now=now).delay_seconds == left


@pytest.mark.parametrize(
    "delay, now, left",
    [(0.0, 100.0, 30.0), (0.0, 110.0, 20.0), (60.0, 100.0, 30.0), (60.0, 170.0, 20.0), (0.0, 1e6, 0.001)],
)
def test_an_expiry_counts_from_when_it_was_written_and_due(delay: float, now: float, left: float) -> None:
    terms = terms_of(delay, None, 30.0, 9, now=100.0, broker=MemoryTransport().capabilities)
    parcel = Parcel(terms.put_on(Wire(body=b"")), Route("e", "k"), terms.delay_seconds)
    relayed = parcel_of(row(parcel), now=now).wire

    assert relayed.expiration_seconds == pytest.approx(left)
    assert relayed.headers == parcel.wire.headers
    assert relayed.priority == 9


def test_an_expiry_that_is_no_moment_is_said_so() -> None:
    bad = Parcel(Wire(body=b"", headers={"cloudEvents_expirytime": "soon"}, expiration_seconds=1.0), Route("e", "k"))
    with pytest.raises(DecodeError, match="is no moment: 'soon'"):
        parcel_of(row(bad), now=0.0)


def test_properties_without_a_json_form_are_refused_when_they_are_written() -> None:
    with pytest.raises(Unwritable, match=r"shop\.placed.*cannot wait"):
        row(Parcel(Wire(body=b"", headers={"h": object()}), Route("e", "k")))


@pytest.mark.parametrize("properties", ["", "[]", '{"unknown": 1}', '{"headers": 5}', "{"])
def test_properties_that_cannot_be_read_are_said_so(properties: str) -> None:
    good = row(Parcel(Wire(body=b""), Route("e", "k")))
    bad = dataclasses.replace(good, entry=dataclasses.replace(good.entry, properties=properties))
    with pytest.raises(DecodeError, match="row 1 of the outbox"):
        parcel_of(bad, now=0.0)


@pytest.mark.parametrize(
    "error, attempts, verdict",
    [
        (None, 1, Sent()),
        (BrokerUnreachable("b"), 1, Away(False, "BrokerUnreachable: b")),
        (ConnectionLost("b"), 99, Away(True, "ConnectionLost: b")),
        (TimeoutError("b"), 1, Away(True, "TimeoutError: b")),
        (Unwritable("b"), 1, Aside("Unwritable: b")),
        (DecodeError("b"), 1, Aside("DecodeError: b")),
        (Unroutable("b"), 1, Later(1.0, "Unroutable: b")),
        (Unroutable("b"), 4, Later(8.0, "Unroutable: b")),
        (Unroutable("b"), MAX_ATTEMPTS - 1, Later(300.0, "Unroutable: b")),
        (Unroutable("b"), MAX_ATTEMPTS, Aside("Unroutable: b")),
        (NotConfirmed("b"), 10**6, Away(True, "NotConfirmed: b")),
        (AccessRefused("b"), 1, Away(True, "AccessRefused: b")),
    ],
    ids=lambda value: str(value),
)
def test_what_becomes_of_a_row(error: Exception | None, attempts: int, verdict: object) -> None:
    assert verdicts_of([(error, attempts)]) == [verdict]


def test_a_refusal_is_a_messages_own_where_another_one_was_taken() -> None:
    refused = NotConfirmed("full")
    assert verdicts_of([(refused, 1), (None, 1)]) == [Later(1.0, "NotConfirmed: full"), Sent()]
    assert verdicts_of([(refused, 10**6), (None, 1)])[0] == Later(300.0, "NotConfirmed: full"), "never given up"
    assert {type(verdict) for verdict in verdicts_of([(refused, 1), (refused, 1)])} == {Away}


@settings(max_examples=50)
@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 40))
def test_slices_keep_the_order_and_the_limit(sizes: list[int], limit: int) -> None:
    claimed = [Claimed(position, 1, size) for position, size in enumerate(sizes)]
    pieces = list(slices(claimed, limit))

    assert [one for piece in pieces for one in piece] == claimed
    assert all(piece for piece in pieces)
    assert all(len(piece) == 1 or sum(one.size_bytes for one in piece) <= limit for piece in pieces)


def test_the_lag_is_the_age_of_the_oldest() -> None:
    assert Backlog(2, 90.0, 0).lag_seconds(100.0) == 10.0
    assert Backlog(0, 0.0, 3).lag_seconds(100.0) == 0.0
