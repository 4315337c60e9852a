"""Time limits of tasks: Celery's options, headers and settings, and the class that a moved task catches."""

from __future__ import annotations

import time
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded as CelerySoftTimeLimitExceeded

from lightbus import SoftTimeLimitExceeded as NativeSoftTimeLimitExceeded
from lightbus.compat import SoftTimeLimitExceeded
from lightbus.compat.exceptions import soft_limit_error
from lightbus.compat.protocol import TaskMessage, encode_task
from lightbus.compat.results import exception_from, exception_triple
from lightbus.core.topology import Queue
from lightbus.endpoint import Invocation
from lightbus.ports import Delivery
from lightbus.testing.bench import eventually
from tests.compat.bench import Bench
from tests.runtime.workers import working


def limits_of(bench: Bench, **fields: Any) -> tuple[float | None, float | None]:
    """Hard and soft limit under which a message runs."""
    wire = encode_task(TaskMessage(task="t", id="task-1", **fields))
    invocation = bench.endpoint().prepare(Delivery(wire, "lightbus.celery", False, lambda settlement: None))
    assert isinstance(invocation, Invocation)
    return invocation.hard_limit_seconds, invocation.soft_limit_seconds


@pytest.mark.parametrize(
    "settings, options, header, limits",
    [
        ({}, {}, (None, None), (None, None)),
        ({"time_limit": 9.0, "soft_time_limit": 8.0}, {}, (None, None), (9.0, 8.0)),
        ({"time_limit": 9.0}, {"time_limit": 7, "soft_time_limit": 6}, (None, None), (7, 6)),
        ({"time_limit": 9.0}, {"time_limit": 7, "soft_time_limit": 6}, (5, 4), (5, 4)),
        ({"soft_time_limit": 8.0}, {"time_limit": 7}, (None, 4), (7, 4)),
    ],
    ids=["none", "settings", "option", "header", "each for itself"],
)
def test_the_header_goes_before_the_option_and_that_before_the_setting(
    settings: dict[str, Any], options: dict[str, Any], header: Any, limits: Any
) -> None:
    bench = Bench(**settings)
    bench.task(name="t", **options)(lambda: None)

    assert limits_of(bench, timelimit=header) == limits


@pytest.mark.parametrize("caught", [CelerySoftTimeLimitExceeded, SoftTimeLimitExceeded, NativeSoftTimeLimitExceeded])
def test_a_task_catches_the_class_that_it_was_written_with(caught: type[Exception]) -> None:
    bench = Bench()

    @bench.task(name="t", soft_time_limit=0.1)
    def spin() -> str:
        try:
            while True:
                time.sleep(0.001)
        except caught:
            return "cleaned up"

    assert result_of_one_run(bench) == ("SUCCESS", "cleaned up")


def test_a_task_that_lets_it_through_fails_with_celerys_class() -> None:
    bench = Bench()

    @bench.task(name="t", soft_time_limit=0.1)
    def spin() -> None:
        while True:
            time.sleep(0.001)

    status, result = result_of_one_run(bench)
    assert status == "FAILURE"
    assert isinstance(result, dict)
    assert (result["exc_module"], result["exc_type"]) == ("billiard.exceptions", "SoftTimeLimitExceeded")
    assert type(exception_from(result)) is SoftTimeLimitExceeded


@pytest.mark.parametrize("make", [SoftTimeLimitExceeded, soft_limit_error()], ids=["own", "both"])
def test_on_the_wire_it_is_celerys(make: type[Exception]) -> None:
    triple = exception_triple(make())
    assert (triple["exc_module"], triple["exc_type"]) == ("billiard.exceptions", "SoftTimeLimitExceeded")


def result_of_one_run(bench: Bench) -> tuple[str, object]:
    queue = bench.endpoint().queues()
    bench.app.bus.add_endpoint(bench.endpoint())
    bench.transport.publish(encode_task(TaskMessage(task="t", id="task-1")), Queue(name=next(iter(queue))).route)
    with working(bench.app.bus):
        document = eventually(bench.document, lambda seen: seen is not None, "the result")
    assert document is not None
    return document.status, document.result
