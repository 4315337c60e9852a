"""What cannot be handled is parked with its reason, or answered; the next message is handled, and no process ends."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightbus.compat.protocol import TaskMessage, encode_task
from lightbus.core.codec import encode_call, encode_event
from lightbus.core.message import CallMessage, EventMessage, Origin, Route, Wire
from lightbus.core.topology import Queue, Topology
from tests.acceptance.shop import (
    BROKERS,
    DEAD_QUEUE,
    LIGHTBUS_QUEUE,
    LIGHTBUS_READY,
    Program,
    Stage,
    broker,
    stage_on,
    wait_for,
)
from tests.brokers import Brokers
from tests.processes import children

SECONDS = 20.0
CASE = "case"  #: header that names the case, so that its dead letter is found again
ANSWERS = "lightbus.reply.test.answers"
TASK, EVENT, CALL = "shop.tasks.resize_image", "shop.orders.placed", "support.tickets.of_order"
CALL_QUEUE, EVENT_QUEUE = "lightbus.rpc.support.tickets.v1", "support.on.keep_order"


@dataclasses.dataclass
class Serving:
    """One worker that serves the shop's tasks, support's listeners and its API."""

    stage: Stage
    worker: Program

    def send(self, case: str, wire: Wire, queue: str) -> None:
        marked = dataclasses.replace(wire, headers={**wire.headers, CASE: case})
        self.stage.transport.publish(marked, Route("", queue)).result(SECONDS)

    def take(self, queue: str, count: int) -> list[Wire]:
        """The messages of a queue, as soon as there are `count`."""
        found: list[Wire] = []

        def look() -> bool:
            transport = self.stage.transport
            while transport.message_count(queue) and (delivery := transport.get(queue)) is not None:
                found.append(delivery.wire)
                delivery.ack()
            return len(found) >= count

        wait_for(look, SECONDS, f"{count} messages in {queue}, so far {found}", self.stage.all_logs)
        return found

    def parked(self, count: int) -> dict[str, Wire]:
        """Case to dead letter."""
        return {str(wire.headers[CASE]): wire for wire in self.take(DEAD_QUEUE, count)}

    def pids(self) -> list[int]:
        return [self.worker.pid, *children(self.worker.pid)]


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=pytest.mark.xdist_group(f"bad-{kind}")) for kind in BROKERS]
)
def serving(
    request: pytest.FixtureRequest, brokers: Brokers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    folder: Path = tmp_path_factory.mktemp("bad")
    with broker(request.param, brokers, folder) as url, stage_on(url, folder) as stage:
        stage.move(to_lightbus=True)
        worker = stage.lightbus("shop", "support", processes=2)
        worker.wait_for_log(LIGHTBUS_READY)
        wait_for(lambda: len(children(worker.pid)) == 2, SECONDS, "both processes")
        yield Serving(stage, worker)


def assert_parked(letters: dict[str, Wire], sent: dict[str, Wire], reasons: dict[str, str], queue: str) -> None:
    assert {case: wire.headers["lightbus_dead_reason"] for case, wire in letters.items()} == reasons
    for case, wire in letters.items():
        assert wire.body == sent[case].body, "what was sent can be looked at, and sent again"
        assert wire.headers["lightbus_dead_queue"] == queue
        assert wire.headers["lightbus_dead_error"]


# Tasks


def task(**fields: Any) -> Wire:
    return encode_task(TaskMessage(**{"task": TASK, "id": "t-1", "args": (1, 16), **fields}))


def with_header(wire: Wire, name: str, value: object) -> Wire:
    return dataclasses.replace(wire, headers={**wire.headers, name: value})


BAD_TASKS: dict[str, tuple[str, Wire]] = {
    "body is no JSON": ("undecodable", dataclasses.replace(task(), body=b'[[1, 16], {"')),
    "body is no text": ("undecodable", dataclasses.replace(task(), body=b"\xff\xfe\x00")),
    "body is no list of three": ("undecodable", dataclasses.replace(task(), body=b"[[1, 16]]")),
    "content type": ("undecodable", dataclasses.replace(task(), content_type="application/x-python-serialize")),
    "header of a wrong type": ("undecodable", with_header(task(), "retries", "three")),
    "arguments": ("bad-arguments", task(args=(1, 2, 3))),
    "name, handed over too often": ("unknown-name", with_header(task(task="shop.tasks.nothing"), "x-lightbus-hops", 3)),
}


def test_a_bad_task_message_is_parked_and_the_next_one_runs(serving: Serving) -> None:
    before = serving.pids()

    for case, (_reason, wire) in BAD_TASKS.items():
        serving.send(case, wire, LIGHTBUS_QUEUE)
    serving.send("good", task(id="good"), LIGHTBUS_QUEUE)

    serving.stage.wait_for_runs(["good"], SECONDS)
    sent = {case: wire for case, (_reason, wire) in BAD_TASKS.items()}
    reasons = {case: reason for case, (reason, _wire) in BAD_TASKS.items()}
    assert_parked(serving.parked(len(BAD_TASKS)), sent, reasons, LIGHTBUS_QUEUE)
    assert set(serving.stage.ledger.runs) & {"t-1"} == set(), "none of the bad ones ran"
    assert serving.pids() == before


def test_a_task_that_nobody_here_knows_goes_to_celery_as_it_came(serving: Serving) -> None:
    unknown = dataclasses.replace(task(task="shop.tasks.only_celery_knows"), body=b"not for us to read")

    serving.send("unknown", unknown, LIGHTBUS_QUEUE)

    (wire,) = serving.take("shop", 1)
    assert wire.body == unknown.body
    assert wire.headers["x-lightbus-hops"] == 1


# Events


def event(name: str = EVENT, **payload: Any) -> Wire:
    fields = {"order": 7, "email": "customer@example.org", "cents": 1, **payload}
    origin = Origin(id="e-1", source="shop", sent_at=time.time())
    return encode_event(EventMessage(origin=origin, name=name, version="1.0", payload=json.dumps(fields).encode()))


BAD_EVENTS: dict[str, tuple[str, Wire]] = {
    "body is no JSON": ("bad-arguments", dataclasses.replace(event(), body=b'{"order": ')),
    "content type": ("undecodable", dataclasses.replace(event(), content_type="text/plain")),
    "header of a wrong type": ("undecodable", with_header(event(), "cloudEvents_time", 12)),
    "a number of tries that is none": ("undecodable", with_header(event(), "lightbus_attempt", "many")),
    "name": ("unknown-name", event("shop.orders.vanished")),
    "field of a wrong type": ("bad-arguments", event(order="seven")),
    "not of ours": ("undecodable", Wire(body=b"{}")),
}


def test_a_bad_event_is_parked_and_the_next_one_is_heard(serving: Serving) -> None:
    before = serving.pids()

    for case, (_reason, wire) in BAD_EVENTS.items():
        serving.send(case, wire, EVENT_QUEUE)
    serving.send("good", event(order=4711), EVENT_QUEUE)

    wait_for(lambda: serving.stage.ledger.heard["keep_order", 4711], SECONDS, "the good one", serving.stage.all_logs)
    sent = {case: wire for case, (_reason, wire) in BAD_EVENTS.items()}
    reasons = {case: reason for case, (reason, _wire) in BAD_EVENTS.items()}
    assert_parked(serving.parked(len(BAD_EVENTS)), sent, reasons, EVENT_QUEUE)
    assert not serving.stage.ledger.heard["keep_order", 7], "none of the bad ones was handled"
    assert serving.pids() == before


# Calls


def call(name: str = CALL, *, call_id: str = "c-1", version: str = "1.0", payload: bytes = b'{"order": 1}') -> Wire:
    now = time.time()
    origin = Origin(id=call_id, source="shop", sent_at=now)
    message = CallMessage(
        origin=origin, name=name, version=version, payload=payload, reply_to=ANSWERS, deadline=now + 60
    )  # fmt: skip
    return encode_call(message, now=now)


def test_a_call_that_cannot_be_read_is_parked_a_wrong_one_answered_and_the_next_one_runs(serving: Serving) -> None:
    before = serving.pids()
    serving.stage.transport.declare(Topology(queues=(Queue(name=ANSWERS),)))
    unreadable = {
        "content type": dataclasses.replace(call(), content_type="text/plain"),
        "header of a wrong type": with_header(call(), "lightbus_deadline", 12),
        "nobody to answer": dataclasses.replace(call(), reply_to=""),
        "not of ours": Wire(body=b"{}"),
    }
    wrong = {
        "body is no JSON": call(call_id="w-1", payload=b'{"order": '),
        "name": call("support.tickets.vanish", call_id="w-2"),
        "argument of a wrong type": call(call_id="w-3", payload=b'{"order": "one"}'),
        "newer than the server": call(call_id="w-4", version="1.9"),
    }

    for case, wire in {**unreadable, **wrong, "good": call(call_id="good")}.items():
        serving.send(case, wire, CALL_QUEUE)

    answers = {wire.correlation_id: wire for wire in serving.take(ANSWERS, len(wrong) + 1)}
    letters = serving.parked(len(unreadable))
    assert_parked(letters, unreadable, dict.fromkeys(unreadable, "undecodable"), CALL_QUEUE)
    assert json.loads(answers.pop("good").body) == []
    assert {call_id: json.loads(wire.body)["type"] for call_id, wire in answers.items()} == {
        wire.message_id: "rejected" for wire in wrong.values()
    }
    assert serving.pids() == before
