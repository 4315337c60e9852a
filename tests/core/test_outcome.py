"""Each outcome but Ack and Requeue is one published copy; these tests say what the copy carries."""

from __future__ import annotations

import dataclasses

import msgspec

from lightbus.core.message import Route, Wire
from lightbus.core.outcome import Copy, DeadLetter, Forward, Received, Retry, copy_for

WIRE = Wire(body=b"\x00\xff", headers={"task": "a.b", "n": 1}, correlation_id="c", reply_to="r", priority=5)
RECEIVED = Received(wire=WIRE, queue="billing.on.pay", redelivered=False)


def copied(outcome: Retry | Forward | DeadLetter, received: Received = RECEIVED) -> Copy:
    return copy_for(outcome, received, dead_queue="lightbus.dead", now=0.0)


def test_a_retry_goes_back_to_its_own_queue_so_that_other_listeners_do_not_see_it_twice() -> None:
    copy = copied(Retry(delay_seconds=2.5, attempt=3, error="ValueError: x"))

    assert copy.route == Route("", "billing.on.pay")
    assert copy.delay_seconds == 2.5
    assert copy.wire == msgspec.structs.replace(WIRE, headers={"task": "a.b", "n": 1, "lightbus_attempt": 3})


def test_a_dead_letter_keeps_the_message_and_says_why_in_flat_headers() -> None:
    received = dataclasses.replace(RECEIVED, wire=msgspec.structs.replace(WIRE, expiration_seconds=1.0, durable=False))
    copy = copied(DeadLetter("undecodable", "no JSON", attempts=2), received)

    assert copy.route == Route("", "lightbus.dead")
    assert copy.wire.body == WIRE.body
    assert copy.wire.expiration_seconds is None
    assert copy.wire.durable
    assert dict(copy.wire.headers) == {
        "task": "a.b",
        "n": 1,
        "lightbus_dead_reason": "undecodable",
        "lightbus_dead_error": "no JSON",
        "lightbus_dead_queue": "billing.on.pay",
        "lightbus_dead_attempts": 2,
        "lightbus_dead_at": "1970-01-01T00:00:00.000Z",
    }


def test_a_forwarded_message_is_the_same_message() -> None:
    assert copied(Forward(Route("", "celery"))).wire == WIRE


def test_a_copy_of_a_redelivered_message_is_marked_as_a_possible_repeat() -> None:
    copy = copied(Forward(Route("", "celery")), dataclasses.replace(RECEIVED, redelivered=True))

    assert copy.wire.headers["lightbus_repeat"] == 1


def test_a_retry_of_a_redelivered_message_is_marked_too() -> None:
    again = dataclasses.replace(RECEIVED, redelivered=True)
    retry = Retry(delay_seconds=1.0, attempt=2, error="ValueError")

    assert copy_for(retry, again, dead_queue="d", now=0.0).wire.headers["lightbus_repeat"] == 1
    assert "lightbus_repeat" not in copy_for(retry, RECEIVED, dead_queue="d", now=0.0).wire.headers


def test_the_brokers_own_trail_is_taken_off_since_it_would_drop_the_copy_as_a_cycle() -> None:
    trail = {"x-death": [{"count": 1}], "x-first-death-queue": "q", "x-last-death-reason": "expired", "x-mine": 1}
    received = dataclasses.replace(RECEIVED, wire=msgspec.structs.replace(WIRE, headers=trail))

    assert dict(copied(Forward(Route("", "celery")), received).wire.headers) == {"x-mine": 1}
    assert set(copied(Retry(1.0, 2, ""), received).wire.headers) == {"x-mine", "lightbus_attempt"}
