"""`lightbus doctor MESSAGE`: which cause is named for which fault, and that a fault on a real broker is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lightbus import Api, Event, rpc
from lightbus.cli.why import Evidence, Explanation, explain, queues_of
from lightbus.core.description import ANY_VERSION, Description, HeardEvent, RunningListener, ServedApi
from tests.cli.conftest import Project
from tests.cli.test_ls import LISTENER
from tests.processes import wait_for


class Orders(Api, name="sales.orders", version="1.2"):
    class placed(Event):
        id: int

    class paid(Event):
        id: int

    @rpc()
    def get(self, *, id: int) -> str:
        raise NotImplementedError


CONTRACT: dict[str, Any] = {"name": "sales.orders", "events": {"placed": {}, "paid": {}}, "calls": {"get": {}}}
RPC, QUEUE = "lightbus.rpc.sales.orders.v1", "support.on.greet"


def worker(app: str, pid: int, **more: Any) -> Description:
    return Description(app=app, worker=str(pid), host="h", pid=pid, lightbus="0", started_at="now", **more)


def owner(version: str = "1.2", pid: int = 1, **contract: Any) -> Description:
    queue = f"lightbus.rpc.sales.orders.v{version[0]}"
    served = ServedApi(name="sales.orders", version=version, queue=queue, contract={**CONTRACT, **contract})
    return worker("sales", pid, apis=(served,), queues=(queue,))


def listener(version: str = "1.2", pid: int = 2, event: str = "sales.orders.placed", **more: Any) -> Description:
    heard = RunningListener(name="greet", queue=QUEUE, events=(HeardEvent(name=event, version=version),))
    return worker("support", pid, listeners=(heard,), queues=(QUEUE,), **more)


WELL = Evidence(
    found=[owner(), listener()], contracts=[Orders], waiting={QUEUE: 0, RPC: 0}, broker="the broker",
    declared={"support": {"greet": {"sales.orders.placed": "1.2"}}},
)  # fmt: skip


def causes(evidence: Evidence, name: str = "sales.orders.placed", to: str = "support", sender: str = "") -> Explanation:
    return explain(name, to, sender, evidence)


def test_the_lanes_of_a_listener_are_looked_at_too() -> None:
    lane, other = "support.ordered.greet.0", "support.ordered.greeting.0"
    running = worker("support", 2, listeners=listener().listeners, queues=(QUEUE, lane, other))
    evidence = replace(WELL, found=[owner(), running], waiting={QUEUE: 0, lane: 7, other: 9})

    assert queues_of("sales.orders.placed", "support", evidence.found) == {QUEUE, RPC, lane}
    found = causes(evidence)
    assert len(found.findings) == 1
    assert f"7 messages wait in '{lane}'" in found.findings[0]


def test_a_listener_with_a_pattern_hears_every_major_version() -> None:
    heard = RunningListener(name="greet", queue=QUEUE, events=(HeardEvent(name="sales.*.placed", version=ANY_VERSION),))
    evidence = replace(WELL, found=[owner("2.0"), worker("support", 2, listeners=(heard,), queues=(QUEUE,))])

    assert queues_of("sales.orders.placed", "support", evidence.found) >= {QUEUE}
    assert causes(evidence).findings == ()
    assert "has no listener for sales.orders.paid" in causes(evidence, "sales.orders.paid").findings[0]
    declared = replace(
        evidence, found=[owner()], declared={"support": {"greet": {"sales.#": ANY_VERSION}}}, waiting={QUEUE: 3}
    )
    assert "3 messages wait for it" in causes(declared).findings[0]


def test_where_all_is_well_nothing_is_found() -> None:
    assert causes(WELL) == Explanation(
        (), ("sales owns sales.orders 1.2", "'support.on.greet' is consumed by support, and nothing waits in it")
    )
    assert causes(WELL, name="sales.orders.get", to="").findings == ()
    assert QUEUE in queues_of("sales.orders.placed", "support", WELL.found)
    assert queues_of("sales.orders.get", "", WELL.found) == {RPC}


FAULTS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "misspelt": ({}, {"name": "sales.orders.place"}, "did you mean 'sales.orders.placed'"),
    "unknown": ({}, {"name": "x.y"}, "does its owner serve the API on the broker"),
    "nobody at all": ({"found": [], "contracts": []}, {"name": "x.y"}, "no worker answers on the broker"),
    "receiver away": ({"found": [owner()]}, {}, "no worker of 'support' answers on the broker (those that do are sa"),
    "receiver away, messages kept": (
        {"found": [owner()], "waiting": {QUEUE: 7}}, {}, "7 messages wait for it in 'support.on.greet'"
    ),
    "receiver was never there": ({"found": [owner()], "waiting": {QUEUE: None}}, {}, "was never declared"),
    "old code runs": (
        {"found": [owner(), listener(event="sales.orders.paid")]}, {}, "the workers of support that run do not: start"
    ),
    "never subscribed": (
        {"found": [owner(), listener(event="sales.orders.paid")], "declared": {}}, {},
        "support has no listener for sales.orders.placed: it listens to sales.orders.paid",
    ),
    "no listener anywhere": ({"found": [owner()], "declared": {}}, {"to": ""}, "no running worker listens to"),
    "another major": ({"found": [owner("2.0"), listener()]}, {}, "takes major version 1 of sales.orders.placed"),
    "not the owner": ({"found": [owner(), listener(), worker("shop", 3)]}, {"sender": "shop"}, "sales does: is"),
    "queue gone": ({"waiting": {QUEUE: None}}, {}, "does not stand, though a worker of support consumes it"),
    "busy": (
        {"found": [owner(), listener(busy=1)], "waiting": {QUEUE: 9}}, {}, "1 of 1 handlers of support are busy: wait"
    ),
    "held back": ({"waiting": {QUEUE: 9}}, {}, "9 messages wait in 'support.on.greet', and 0 of 1"),
    "parked": ({"parked": {QUEUE: {"handler-failed": 3}}}, {}, "3 dead letters are from 'support.on.greet' (handler-"),
    "not served": ({"found": []}, {"name": "sales.orders.get", "to": ""}, "nobody serves it on the broker"),
    "served by another": ({}, {"name": "sales.orders.get"}, "'support' does not serve it, sales does"),
    "older server": (
        {"found": [owner("1.1")]}, {"name": "sales.orders.get", "to": ""}, "a worker serves 1.1, which rejects it"
    ),
    "other major served": ({"found": [owner("2.0")]}, {"name": "sales.orders.get", "to": ""}, "2.0 runs: calls go to"),
    "call is newer": (
        {"found": [owner(calls={}), owner(pid=9)]}, {"name": "sales.orders.get", "to": ""}, "(pid 1) serves, has no"
    ),
    "calls wait": ({"waiting": {RPC: 4}}, {"name": "sales.orders.get", "to": ""}, "4 messages wait in 'lightbus.rpc"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_as_the_one_cause(fault: str) -> None:
    changed, asked, words = FAULTS[fault]

    (finding,) = causes(replace(WELL, **changed), **asked).findings

    assert words in finding


def test_that_one_of_several_workers_gets_it_is_said_and_is_no_fault() -> None:
    found = causes(replace(WELL, found=[owner(), listener(), listener(pid=3)]))

    assert found.findings == ()
    assert "2 workers share 'support.on.greet': each event goes to one of them" in found.notes


def test_a_listener_of_each_process_needs_no_queue_that_stands() -> None:
    heard = RunningListener(name="refresh", queue="", events=(HeardEvent(name="sales.orders.placed", version="1.2"),))
    found = [owner(), worker("support", 2, listeners=(heard,))]
    evidence = replace(WELL, found=found, declared={}, waiting={})

    assert queues_of("sales.orders.placed", "support", found) == {RPC}
    assert causes(evidence).findings == ()
    assert "'refresh' of support hears it in every process" in causes(evidence).notes[-1]


def test_a_sender_without_a_worker_is_no_fault() -> None:
    assert causes(WELL, sender="web") == replace(
        causes(WELL),
        notes=("no worker of web answers; it may fire from elsewhere, a web process, which says nothing",)
        + causes(WELL).notes[1:],
    )


def test_why_an_app_gets_no_event_is_found_on_a_broker(each_broker: Project, prefix: str) -> None:
    project, event = each_broker, f"{prefix}.tickets.created"
    project.write("audit.py", LISTENER.format(prefix=prefix))
    to = ("--to", f"{prefix}-audit", "-A", "shop", "-A", "audit", "--wait", "1")
    assert "was never declared" in project.run("doctor", event, *to).out
    audit = project.worker("-A", "audit", "-c", "1")
    wait_for(
        lambda: project.run("doctor", event, *to).out.endswith("nothing is in its way\n"),
        60,
        "all is well",
        [audit.log],
    )
    assert audit.stop() == 0
    assert project.run("fire", event, "id=1", "-A", "shop").code == 0
    away = project.run("doctor", event, *to, "--json").json()
    assert not away["ok"]
    assert f"1 messages wait for it in '{prefix}-audit.on.keep'" in away["findings"][0]
    whole = project.run("doctor", "-A", "audit", "--json").json()
    start = f"no worker that answers consumes queue '{prefix}-audit.on.keep' of {prefix}-audit, where 1 messages wait"
    assert [finding for finding in whole["findings"] if finding.startswith(start)]
