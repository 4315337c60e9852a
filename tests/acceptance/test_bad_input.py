"""What cannot be handled is parked with its reason, or answered; the next message is handled, and no process ends."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lightbus import open_result_backend
from lightbus.compat.fields import is_name
from lightbus.compat.protocol import TaskMessage, encode_task
from lightbus.core.codec import encode_call, encode_event
from lightbus.core.errors import ConnectionLost
from lightbus.core.message import CallMessage, EventMessage, Origin, Route, Wire
from lightbus.core.topology import Queue, Topology
from tests import hostile
from tests.acceptance.raw import raw
from tests.acceptance.shop import (
    BROKERS,
    DEAD_QUEUE,
    LIGHTBUS_QUEUE,
    LIGHTBUS_READY,
    Ledger,
    Program,
    Stage,
    WaitedInVain,
    broker,
    stage_on,
    wait_for,
)
from tests.brokers import Brokers
from tests.processes import handlers

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
        marked = msgspec.structs.replace(wire, headers={**wire.headers, CASE: case})
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
        return [self.worker.pid, *handlers(self.worker.pid)]


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
        wait_for(lambda: len(handlers(worker.pid)) == 2, SECONDS, "both processes")
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
    return msgspec.structs.replace(wire, headers={**wire.headers, name: value})


BAD_TASKS: dict[str, tuple[str, Wire]] = {
    "body is no JSON": ("undecodable", msgspec.structs.replace(task(), body=b'[[1, 16], {"')),
    "body is no text": ("undecodable", msgspec.structs.replace(task(), body=b"\xff\xfe\x00")),
    "body is no list of three": ("undecodable", msgspec.structs.replace(task(), body=b"[[1, 16]]")),
    "content type": ("undecodable", msgspec.structs.replace(task(), content_type="application/x-python-serialize")),
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
    unknown = msgspec.structs.replace(task(task="shop.tasks.only_celery_knows"), body=b"not for us to read")

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
    "body is no JSON": ("bad-arguments", msgspec.structs.replace(event(), body=b'{"order": ')),
    "content type": ("undecodable", msgspec.structs.replace(event(), content_type="text/plain")),
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
        "content type": msgspec.structs.replace(call(), content_type="text/plain"),
        "header of a wrong type": with_header(call(), "lightbus_deadline", 12),
        "nobody to answer": msgspec.structs.replace(call(), reply_to=""),
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


# Hostile ones of every kind, as other clients could write them

#: Of a worker's process, whatever came in: it needs some 60 MiB itself, and JSON of 16 MiB takes a multiple. The bombs
#: are of 400 MB.
PEAK_BYTES = 450 * 2**20
ROOM_SECONDS = 100.0


@dataclasses.dataclass
class Kept:
    """What became of the messages so far."""

    parked: dict[str, Wire] = dataclasses.field(default_factory=dict)  #: by case
    bare: list[Wire] = dataclasses.field(default_factory=list)  #: parked without their headers
    forwarded: set[str] = dataclasses.field(default_factory=set)  #: cases that went to Celery
    states: dict[str, str] = dataclasses.field(default_factory=dict)  #: results by the id of the task
    answered: set[str] = dataclasses.field(default_factory=set)  #: ids of calls

    def look(self, serving: Serving) -> None:
        for wire in self._all(serving, DEAD_QUEUE):
            if hostile.CASE in wire.headers:
                self.parked[str(wire.headers[hostile.CASE])] = wire
            else:
                self.bare.append(wire)
        self.forwarded |= {str(wire.headers.get(hostile.CASE)) for wire in self._all(serving, "shop")}
        for wire in self._all(serving, hostile.REPLIES):
            found = json.loads(wire.body)
            if "lightbus_kind" in wire.headers:
                self.answered.add(wire.correlation_id)
            else:
                self.states[found["task_id"]] = found["status"]

    @staticmethod
    def _all(serving: Serving, queue: str) -> Iterator[Wire]:
        transport = serving.stage.transport
        # What a lost connection hands out again is the same once more.
        with contextlib.suppress(ConnectionLost):
            while transport.message_count(queue) and (delivery := transport.get(queue)) is not None:
                yield delivery.wire
                delivery.ack()


def test_every_hostile_message_is_run_or_parked_within_bounded_memory_and_the_good_one_behind_each_is_handled(
    serving: Serving,
) -> None:
    url, before = serving.stage.broker, serving.pids()
    serving.stage.transport.declare(Topology(queues=(Queue(name=hostile.REPLIES), Queue(name="shop"))))
    sender, kept = raw(url), Kept()
    results = open_result_backend(url) if url.startswith("redis") else None
    kinds = (
        ("task", LIGHTBUS_QUEUE, [*hostile.tasks(), *hostile.drawn("task", 20)], hostile.task),
        ("event", hostile.EVENT_QUEUE, [*hostile.events(), *hostile.drawn("event", 10)], hostile.event),
        ("call", hostile.CALL_QUEUE, [*hostile.calls(), *hostile.drawn("call", 10)], hostile.call),
    )
    sent: dict[str, tuple[str, hostile.Hostile]] = {}
    good: dict[str, list[int]] = {}
    for kind, queue, cases, make in kinds:
        # Of the table of headers and values a part, to save time: the endpoints' tests have all of it.
        part = 27 if url.startswith("sqlite") else 9
        chosen = [one for one in cases if sender.takes(one) and ("header " not in one.name or one.number % part == 0)]
        for number, case in enumerate(chosen, start=5_000_000):
            case = dataclasses.replace(case, headers={**case.headers, hostile.CASE: f"{kind}: {case.name}"})
            sender.send(case, queue)
            sender.send(hostile.as_case(make(number)), queue)
            sent[f"{kind}: {case.name}"] = kind, case
            good.setdefault(kind, []).append(number)

    def handled(kind: str, case: hostile.Hostile, ledger: Ledger) -> bool:
        if kind == "event":
            return bool(ledger.heard["keep_order", case.number + hostile.FIRST_ORDER])
        if kind == "call":
            return str(case.headers.get("cloudEvents_id")) in kept.answered
        task_id = str(case.headers.get("id"))
        if task_id in ledger.runs or task_id in kept.states:
            return True
        return results is not None and bool(task_id) and results.fetch(task_id) is not None

    def left() -> list[str]:
        kept.look(serving)
        ledger = serving.stage.ledger
        waiting = [f"good task {n}" for n in good["task"] if f"hostile-{n}" not in ledger.runs]
        waiting += [f"good event {n}" for n in good["event"] if not ledger.heard["keep_order", n]]
        waiting += [f"good call {n}" for n in good["call"] if f"call-{n}" not in kept.answered]
        waiting += [
            name
            for name, (kind, case) in sent.items()
            if name not in kept.parked and name not in kept.forwarded and not handled(kind, case, ledger)
        ]
        return waiting[:20] if len(waiting) > len(kept.bare) else []

    last: list[str] = []

    def done() -> bool:
        time.sleep(0.2)  # looking costs much, and the worker has to get on
        last[:] = left()
        return not last

    try:
        wait_for(done, ROOM_SECONDS, "every message", serving.stage.all_logs)
    except WaitedInVain as error:
        raise AssertionError(f"neither run nor parked: {last}") from error
    for name, wire in kept.parked.items():
        kind, case = sent[name]
        assert wire.headers["lightbus_dead_reason"] in case.outcomes, (name, wire.headers["lightbus_dead_error"])
        task_id = case.headers.get("id")
        if kind == "task" and is_name(task_id) and is_name(case.headers.get("task")) and case.reads_reply_to:
            stored = results.fetch(str(task_id)) if results is not None else None
            status = json.loads(stored)["status"] if stored else kept.states.get(str(task_id))
            assert status == "FAILURE", (name, wire.headers["lightbus_dead_error"])
    for name, (_kind, case) in sent.items():
        assert hostile.RUN in case.outcomes or name in kept.parked, f"{name} was not parked"
    assert {wire.headers["lightbus_dead_reason"] for wire in kept.bare} <= {"unwritable"}
    assert serving.pids() == before
    assert {pid: peak for pid in before if (peak := peak_bytes(pid)) > PEAK_BYTES} == {}
    sender.close()


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had at once. Linux."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
