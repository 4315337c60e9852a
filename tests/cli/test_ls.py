"""`lightbus ls` on each broker: what is listed is what the workers say of themselves when they are asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lightbus.cli.ls import rows_of, table
from lightbus.core.description import Description, HeardEvent, RunningListener, ServedApi
from tests.cli.conftest import Project
from tests.processes import wait_for

LISTENER = """
from contracts import Tickets
from lightbus import Bus

bus = Bus("{prefix}-audit")


@bus.on(Tickets.created, name="keep")
def keep(event):
    print("kept", event.id, flush=True)
"""


def test_workers_apis_events_and_queues_are_listed_with_who_has_them(each_broker: Project, prefix: str) -> None:
    project = each_broker
    project.write("audit.py", LISTENER.format(prefix=prefix))
    serving, listening = project.worker("-A", "shop", "-c", "1"), project.worker("-A", "audit", "-c", "1")

    def listed(*arguments: str) -> Any:
        return json.loads(project.run("ls", *arguments, "--json").out)

    def both() -> Any:
        found = listed("apps", "-A", "audit")
        return found if [row["app"] for row in found] == [prefix, f"{prefix}-audit"] else None

    workers = wait_for(both, 40, "both workers", [serving.log, listening.log])
    assert [row["pid"] for row in workers] == [serving.pid, listening.pid]
    assert [row["apis"] for row in workers] == [[f"{prefix}.tickets 1.0"], []]
    assert [row["listeners"] for row in workers] == [["remember"], ["keep"]]
    wanted = {
        f"lightbus.rpc.{prefix}.tickets.v1": ("calls", [serving.pid], 0),
        f"{prefix}.on.remember": ("listener", [serving.pid], 0),
        f"{prefix}-audit.on.keep": ("listener", [listening.pid], 0),
    }

    def queues() -> dict[str, Any]:
        return {
            row["queue"]: (row["kind"], [one["pid"] for one in row["consumers"]], row["waiting"])
            for row in listed("queues", "-A", "shop")
        }

    wait_for(lambda: queues() == wanted, 40, "all queues with their consumers", [serving.log, listening.log])
    assert serving.stop() == 0

    def heard() -> list[str]:
        lines = project.run("ls", "events", "-A", "shop").out.splitlines()
        return next(line for line in lines if line.startswith(f"{prefix}.tickets.created")).split()[1:]

    wait_for(lambda: heard() == ["1", "-", f"{prefix}-audit.keep", "1.0"], 40, "the listener without an owner")
    assert queues()[f"{prefix}.on.remember"] == ("", [], 0), "the app's own queue is listed, with nobody who consumes"


def test_a_broker_without_workers_is_said_in_one_sentence_and_is_no_failure(project: Project, prefix: str) -> None:
    ended = project.run("ls", "apis", "-A", "shop")

    assert ended.code == 0
    assert "no worker answers" in ended.err
    row = ended.out.splitlines()[1]
    assert row.startswith(f"{prefix}.tickets")
    assert row.endswith(" -"), "the app's own API is listed, with nobody who serves it"


def said(app: str, pid: int, **more: Any) -> Description:
    return Description(
        app=app, worker=str(pid), host="web", pid=pid, lightbus="0.1.0", started_at="2026-11-24T00:00:00.000Z", **more
    )


CONTRACT = {"name": "sales.orders", "version": "1.2", "events": {"placed": {}}, "calls": {"get": {}}}


@pytest.fixture
def found() -> list[Description]:
    serves = ServedApi(name="sales.orders", version="1.2", queue="lightbus.rpc.sales.orders.v1", contract=CONTRACT)
    old = ServedApi(name="sales.orders", version="1.1", queue="lightbus.rpc.sales.orders.v1")
    hears = RunningListener(
        name="greet", queue="support.on.greet", events=(HeardEvent(name="sales.orders.placed", version="2.0"),)
    )
    return [
        said("sales", 1, apis=(serves,), queues=(serves.queue,)),
        said("sales", 2, apis=(serves,), queues=(serves.queue,)),
        said("sales", 3, apis=(old,), queues=(serves.queue,)),
        said("support", 4, listeners=(hears,), queues=(hears.queue, "lightbus.celery")),
    ]


def test_two_versions_of_an_api_are_two_rows_with_their_own_workers(found: list[Description]) -> None:
    rows = rows_of("apis", found)

    assert [(row["version"], [one["pid"] for one in row["served_by"]]) for row in rows] == [
        ("1.1", [3]),
        ("1.2", [1, 2]),
    ]


def test_an_event_of_another_major_version_is_another_event(found: list[Description]) -> None:
    rows = rows_of("events", found)

    assert [(row["major"], row["owned_by"], [one["app"] for one in row["heard_by"]]) for row in rows] == [
        (1, [{"app": "sales", "version": "1.2"}], []),
        (2, [], ["support"]),
    ]


def test_a_queue_knows_all_its_consumers_and_what_it_is_for(found: list[Description]) -> None:
    rows = rows_of("queues", found)

    assert [(row["queue"], row["kind"], len(row["consumers"])) for row in rows] == [
        ("lightbus.celery", "tasks", 1),
        ("lightbus.rpc.sales.orders.v1", "calls", 3),
        ("support.on.greet", "listener", 1),
    ]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table([{"a": "1", "bb": "x"}, {"a": "long", "bb": "y"}]) == ["a     bb", "1     x", "long  y"]
    assert table([]) == []
