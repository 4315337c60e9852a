"""What hostile messages become in the endpoints; tests/acceptance has the same ones on real brokers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from lightbus import Api, Event, rpc
from lightbus.compat.fields import is_name
from lightbus.core.message import Wire
from lightbus.core.outcome import Ack, DeadLetter, Forward, Outcome
from lightbus.core.retry import RetryPolicy
from lightbus.core.topology import is_reply_queue
from lightbus.listeners import EventEndpoint, Listener
from lightbus.ports import Delivery
from lightbus.serving import CallEndpoint
from tests import hostile
from tests.compat.bench import Bench, handle
from tests.hostile import RUN, Hostile


class Orders(Api, name="shop.orders", version="1.0"):
    class placed(Event):
        order: int
        email: str
        cents: int


class Tickets(Api, name="support.tickets", version="1.0"):
    @rpc()
    def of_order(self, *, order: int) -> list[int]:
        return []


@pytest.fixture(scope="module")
def bench() -> Bench:
    bench = Bench()
    bench.task(name=hostile.TASK)(lambda photo, width: None)
    return bench


def outcome_of(endpoint: Any, wire: Wire, queue: str) -> Outcome:
    return handle(endpoint, Delivery(wire, queue, redelivered=False, settle=lambda settlement: None))


def assert_expected(case: Hostile, outcome: Outcome) -> None:
    if isinstance(outcome, DeadLetter):
        assert outcome.reason in case.outcomes, outcome
        assert len(outcome.error) < 1000, "an error names the value, and does not repeat all of it"
    else:
        assert RUN in case.outcomes, outcome


def test_a_hostile_task_is_run_or_parked_with_its_reason_and_its_result_is_a_failure(bench: Bench) -> None:
    endpoint = bench.endpoint()

    for case in hostile.tasks():
        outcome = outcome_of(endpoint, case.wire, "lightbus.celery")

        assert_expected(case, outcome)
        task_id = case.headers.get("id")
        if isinstance(outcome, DeadLetter) and is_name(task_id) and is_name(case.headers.get("task")):
            assert bench.state(str(task_id)) == "FAILURE", case.name


@pytest.fixture(scope="module")
def listeners() -> EventEndpoint:
    endpoint = EventEndpoint("support")
    endpoint.add(Listener("keep_order", lambda event: None, (Orders.placed,), RetryPolicy()))
    return endpoint


def test_a_hostile_event_is_heard_or_parked_with_its_reason(listeners: EventEndpoint) -> None:
    for case in hostile.events():
        assert_expected(case, outcome_of(listeners, case.wire, hostile.EVENT_QUEUE))


@pytest.fixture(scope="module")
def served() -> CallEndpoint:
    endpoint = CallEndpoint()
    endpoint.add(Tickets())
    return endpoint


def test_a_hostile_call_is_answered_into_a_queue_for_answers_or_parked_with_its_reason(served: CallEndpoint) -> None:
    for case in hostile.calls():
        outcome = outcome_of(served, case.wire, hostile.CALL_QUEUE)

        assert_expected(case, outcome)
        if isinstance(outcome, Forward):
            assert is_reply_queue(outcome.route.routing_key), case.name


# What nobody thought of

bounded = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@bounded
@given(hostile.spoilt(hostile.task(1)))
def test_no_task_message_brings_the_endpoint_down(bench: Bench, wire: Wire) -> None:
    assert_decided(outcome_of(bench.endpoint(), wire, "lightbus.celery"))


@bounded
@given(hostile.spoilt(hostile.event(1)))
def test_no_event_brings_the_endpoint_down(listeners: EventEndpoint, wire: Wire) -> None:
    assert_decided(outcome_of(listeners, wire, hostile.EVENT_QUEUE))


@bounded
@given(hostile.spoilt(hostile.call(1)))
def test_no_call_brings_the_endpoint_down(served: CallEndpoint, wire: Wire) -> None:
    assert_decided(outcome_of(served, wire, hostile.CALL_QUEUE))


def assert_decided(outcome: Outcome) -> None:
    if isinstance(outcome, DeadLetter):
        assert outcome.reason in hostile.PARKED | {"unsent-callbacks"}, outcome
    else:
        assert isinstance(outcome, (Ack, Forward))
