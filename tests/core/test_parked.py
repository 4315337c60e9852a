"""Dead letters as values: what is read of them, which are meant, and what their replay looks like."""

from __future__ import annotations

import json

import msgspec
import pytest

from lightbus.core.errors import BadArguments
from lightbus.core.message import Route, Wire
from lightbus.core.outcome import DeadLetter, Received, copy_for
from lightbus.core.parked import HISTORY_LENGTH, Failure, Selection, checked_body, parked_of, replayed, why_not

EVENT = Wire(
    body=b'{"id":1}',
    headers={
        "cloudEvents_type": "shop.orders.placed.v1", "cloudEvents_source": "/shop", "lightbus_kind": "event",
        "lightbus_attempt": 6,
    },
    message_id="m1",
)  # fmt: skip


def park(wire: Wire, error: str = "ValueError: no 7", *, redelivered: bool = False) -> Wire:
    received = Received(wire=wire, queue="billing.on.pay", redelivered=redelivered)
    return copy_for(DeadLetter("handler-failed", error, 6), received, dead_queue="lightbus.dead", now=0.0).wire


def test_a_dead_letter_says_what_it_is_and_why_it_is_there() -> None:
    parked = parked_of(park(EVENT))

    assert (parked.id, parked.kind, parked.name, parked.source) == ("m1", "event", "shop.orders.placed", "shop")
    assert parked.failure == Failure(
        reason="handler-failed", error="ValueError: no 7", queue="billing.on.pay", attempts=6,
        at="1970-01-01T00:00:00.000Z",
    )  # fmt: skip
    assert parked.failure.error_class == "ValueError"
    assert parked.history == ()


def test_a_message_that_something_else_put_there_is_read_as_far_as_it_goes() -> None:
    strange = Wire(body=b"\xff", headers={"lightbus_dead_attempts": "many", "lightbus_history": "[1, {"})
    parked = parked_of(strange)

    assert parked.failure == Failure()
    assert parked.history == ()
    assert len(parked.id) == 16
    assert parked.id == parked_of(strange).id != parked_of(msgspec.structs.replace(strange, body=b"")).id
    assert "name the queue" in why_not(parked)
    assert why_not(parked, "billing.on.pay") == ""


def test_a_replay_goes_to_the_queue_that_it_came_from_as_a_first_attempt() -> None:
    copy = replayed(parked_of(park(EVENT)), may_repeat=False)

    assert copy.route == Route("", "billing.on.pay")
    assert copy.wire.body == EVENT.body
    assert copy.wire.message_id == "m1"
    assert {key for key in copy.wire.headers if key.startswith("lightbus")} == {"lightbus_kind", "lightbus_history"}


def test_a_message_that_fails_again_comes_back_with_its_history() -> None:
    wire = EVENT
    for number in range(HISTORY_LENGTH + 2):
        wire = replayed(parked_of(park(wire, f"ValueError: {number}")), may_repeat=False).wire
    parked = parked_of(park(wire, "KeyError: 'x'"))

    assert parked.failure.error == "KeyError: 'x'"
    assert [failure.error for failure in parked.history] == [f"ValueError: {n}" for n in range(2, HISTORY_LENGTH + 2)]
    assert {failure.queue for failure in parked.history} == {"billing.on.pay"}


def test_what_may_be_a_double_is_flagged() -> None:
    assert replayed(parked_of(park(EVENT)), may_repeat=True).wire.headers["lightbus_repeat"] == 1
    # Its first worker may have parked it too and died before it acknowledged.
    assert replayed(parked_of(park(EVENT, redelivered=True)), may_repeat=False).wire.headers["lightbus_repeat"] == 1
    assert "lightbus_repeat" not in replayed(parked_of(park(EVENT)), may_repeat=False).wire.headers


@pytest.mark.parametrize(
    "which, meant",
    [
        (Selection(), True),
        (Selection(ids=("m",)), True),
        (Selection(ids=("1",)), False),
        (Selection(names=("shop.*",)), True),
        (Selection(names=("shop.orders",)), False),
        (Selection(queues=("billing.*",), reasons=("defect", "handler-failed")), True),
        (Selection(queues=("billing.*",), reasons=("defect",)), False),
        (Selection(error="ValueError"), True),
        (Selection(error="KeyError"), False),
    ],
)
def test_a_selection_is_what_meets_all_its_conditions(which: Selection, meant: bool) -> None:
    assert which.meets(parked_of(park(EVENT))) is meant


def test_a_call_is_not_worth_a_replay() -> None:
    call = msgspec.structs.replace(EVENT, headers={**EVENT.headers, "lightbus_kind": "call"})

    assert "its caller has left" in why_not(parked_of(park(call)))


def test_another_payload_has_to_be_of_the_kind_that_the_message_carries() -> None:
    parked = parked_of(park(EVENT))

    assert json.loads(checked_body(parked, '{"id": 2}')) == {"id": 2}
    for text in ("{", "[1]", "7"):
        with pytest.raises(BadArguments):
            checked_body(parked, text)
    with pytest.raises(BadArguments, match="only JSON"):
        checked_body(parked_of(msgspec.structs.replace(EVENT, content_type="application/x-python-serialize")), "{}")
