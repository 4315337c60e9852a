"""`call`, `fire`, `tail` and `doctor` against a worker."""

from __future__ import annotations

import json
import signal

import pytest

from lightbus.drivers import open_transport
from tests.cli.conftest import Project
from tests.processes import wait_for


@pytest.fixture
def served(project: Project) -> Project:
    project.worker("-A", "shop", "-c", "1")
    return project


def test_values_are_json_or_text_as_the_contract_declares(served: Project, prefix: str) -> None:
    sizes = served.run("call", f"{prefix}.tickets.sizes", 'of=["a", "bcd"]', "-A", "shop")
    status = served.run("call", f"{prefix}.tickets.status", "id=7", "reader=123", "-A", "shop")
    data = served.run("call", f"{prefix}.tickets.status", "--data", '{"id": 8}', "-A", "shop")

    assert json.loads(sizes.out) == {"a": 1, "bcd": 3}
    assert status.out == "ticket 7 is open for 123\n"
    assert data.out == "ticket 8 is open\n"


def test_a_declared_error_of_a_call_ends_with_1_and_its_fields(served: Project, prefix: str) -> None:
    ended = served.run("call", f"{prefix}.tickets.status", "id=404", "-A", "shop")

    assert ended.code == 1
    assert "NotFound" in ended.sentence
    assert "id=404" in ended.sentence


def test_a_call_that_nobody_serves_ends_with_1_at_once(project: Project, prefix: str) -> None:
    ended = project.run("call", f"{prefix}.tickets.status", "id=1", "--timeout", "20", "-A", "shop", seconds=15)

    assert ended.code == 1
    assert "nobody serves" in ended.sentence


def test_the_embedded_broker_is_announced_when_nobody_named_one(project: Project, prefix: str) -> None:
    ended = project.run("fire", f"{prefix}.tickets.created", "id=1", "-A", "shop")

    assert ended.code == 0
    assert ".lightbus" in ended.err
    assert (project.folder / ".lightbus" / "bus.db").exists()


def test_tail_prints_what_is_fired_and_takes_it_from_nobody(each_broker: Project, prefix: str) -> None:
    worker = each_broker.worker("-A", "shop", "-c", "1")
    tail = each_broker.start("tail", "--json", "--count", "2", f"{prefix}.*.created", name="tail")
    other = each_broker.start("tail", f"{prefix}.orders.#", name="other")
    tail.wait_for_log("events")
    other.wait_for_log("events")
    for number, terms in (1, ()), (2, ("--delay", "0.2", "--expires", "60")):
        assert each_broker.run("fire", f"{prefix}.tickets.created", f"id={number}", *terms, "-A", "shop").code == 0

    assert tail.wait() == 0
    worker.wait_for_log("heard of 2")
    lines = [json.loads(line) for line in tail.read_log().splitlines() if line.startswith("{")]
    assert [line["name"] for line in lines] == [f"{prefix}.tickets.created"] * 2
    assert [line["data"]["id"] for line in lines] == [1, 2]
    assert prefix not in other.read_log().partition("\n")[2]
    other.signal(signal.SIGINT)
    assert other.wait() == 130


@pytest.mark.parametrize("terms", ["--delay=-1", "--expires=0", "--priority=10"])
def test_terms_that_an_event_cannot_have_are_refused(project: Project, prefix: str, terms: str) -> None:
    ended = project.run("fire", f"{prefix}.tickets.created", "id=1", terms, "-A", "shop")

    assert ended.code == 2
    assert terms.strip("-").split("=")[0] in ended.err


def test_tail_leaves_no_queue_behind(project: Project, prefix: str) -> None:
    tail = project.start("tail", name="tail")
    tail.wait_for_log("events")
    tail.signal(signal.SIGINT)

    assert tail.wait() == 130
    database = (project.folder / ".lightbus" / "bus.db").resolve()
    assert f"lightbus.tail.{tail.pid}." not in _queues(str(database))


def _queues(database: str) -> str:
    import sqlite3

    connection = sqlite3.connect(database)
    try:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return repr([connection.execute(f'SELECT * FROM "{table}"').fetchall() for table in tables if "queue" in table])
    finally:
        connection.close()


def test_doctor_is_content_with_an_app_that_is_served(each_broker: Project, prefix: str) -> None:
    each_broker.worker("-A", "shop", "-c", "1")
    ended = each_broker.run("doctor", "-A", "shop", "--json", "--wait", "20")  # as long as it takes, and no longer

    assert ended.json()["findings"] == []
    assert ended.code == 0
    assert ended.json()["queues"][f"{prefix}.on.remember"] == 0


def test_doctor_finds_queues_that_no_worker_has_declared(project: Project, prefix: str) -> None:
    ended = project.run("doctor", "-A", "shop", "--json")

    assert ended.code == 1
    assert any(f"{prefix}.on.remember" in finding for finding in ended.json()["findings"])
    assert any(f"lightbus.rpc.{prefix}.tickets.v1" in finding for finding in ended.json()["findings"])


def test_doctor_tells_why_dead_letters_are_there_and_leaves_them_there(project: Project, prefix: str) -> None:
    text = (project.folder / "shop.py").read_text()
    project.write("shop.py", text.replace("@bus.on(Tickets.created)", "@bus.on(Tickets.created, retry=NEVER)")
                  .replace("def remember", "def refuse").replace("    print(", "    raise ValueError(")
                  .replace(", flush=True)", ")")
                  .replace("from lightbus import", "from lightbus import RetryPolicy,")
                  .replace("bus = Bus", "NEVER = RetryPolicy(max_retries=0)\nbus = Bus"))  # fmt: skip
    worker = project.worker("-A", "shop", "-c", "1")
    project.run("fire", f"{prefix}.tickets.created", "id=1", "-A", "shop")
    worker.wait_for_log("dead letter")

    for _ in range(2):
        ended = project.run("doctor", "-A", "shop")
        assert ended.code == 1, ended.out
        assert "handler-failed" in ended.out
        assert f"{prefix}.on.refuse" in ended.out


def test_doctor_names_the_queue_of_a_listener_that_was_renamed(project: Project, prefix: str) -> None:
    worker = project.worker("-A", "shop", "-c", "1")
    broker = open_transport(f"sqlite:///{(project.folder / '.lightbus' / 'bus.db').resolve()}")
    wait_for(lambda: broker.message_count(f"lightbus.listeners.{prefix}"), 60, "the worker to record its listeners")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    project.write("shop.py", (project.folder / "shop.py").read_text().replace("def remember", "def recall"))
    project.run("fire", f"{prefix}.tickets.created", "id=1", "-A", "shop")

    ended = project.run("doctor", "-A", "shop", "--json")

    assert any(f"'{prefix}.on.remember'" in one and "name='remember'" in one for one in ended.json()["findings"])
    assert ended.json()["queues"][f"{prefix}.on.remember"] == 1
    broker.delete(f"{prefix}.on.remember")
    assert f"{prefix}.on.remember" not in project.run("doctor", "-A", "shop").out
    broker.close()


def test_doctor_says_that_the_broker_is_away(project: Project) -> None:
    ended = project.run("doctor", "-A", "shop", "--url", "amqp://127.0.0.1:1//", "--json")

    assert ended.code == 1
    assert any("127.0.0.1:1" in finding for finding in ended.json()["findings"])
