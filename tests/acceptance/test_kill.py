"""kill -9 in the middle of a task or a listener: nothing is lost, and what runs again is flagged.

The project's copy gets one task and one listener more. Both wait at a gate (a file) until the killing is done.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightbus.compat import Settings, TaskApp
from tests.acceptance.shop import BROKERS, LIGHTBUS_READY, Program, Stage, broker, stage_on, wait_for
from tests.brokers import Brokers
from tests.processes import handlers, is_running

COUNT = 4
SECONDS = 40.0  #: an idle lease ends after at most 10

TASK = """
import time
from lightbus.compat import task as lightbus_task

@lightbus_task(bind=True, acks_late=True)
def crawl(self, number):
    journal.note("began", id=self.request.id, again=bool(self.request.delivery_info["redelivered"]))
    while not (journal.FOLDER / "gate").exists():
        time.sleep(0.01)
    journal.note("ended", id=self.request.id)
"""
LISTENER = """
import time

@bus.on(Orders.placed)
def crawl(event):
    journal.note("began", id=str(event.order), again=current_delivery().redelivered)
    while not (journal.FOLDER / "gate").exists():
        time.sleep(0.01)
    journal.note("ended", id=str(event.order))
"""


class Crawlers:
    """`COUNT` messages in a worker, the first of them running and the others handed out."""

    def __init__(self, stage: Stage, application: str) -> None:
        self.stage = stage
        self.application = application
        self.worker = self.start()

    def start(self) -> Program:
        worker = self.stage.lightbus(self.application)
        worker.wait_for_log(LIGHTBUS_READY)
        return worker

    def noted(self, what: str) -> list[dict[str, Any]]:
        file = self.stage.var / "journal.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [entry for entry in map(json.loads, lines) if entry["what"] == what]

    def wait_until_one_runs(self) -> None:
        wait_for(lambda: self.noted("began"), SECONDS, "the first to begin", self.stage.all_logs)

    def open_gate(self) -> None:
        (self.stage.var / "gate").touch()

    def wait_until_ended(self, ids: set[str]) -> None:
        def all_ended() -> bool:
            return {entry["id"] for entry in self.noted("ended")} >= ids

        wait_for(all_ended, SECONDS, f"{len(ids)} to end", self.stage.all_logs)


def send_tasks(stage: Stage) -> set[str]:
    app = TaskApp(Settings(broker_url=stage.broker, default_queue="shop", moved=frozenset({"shop.tasks.crawl"})))
    try:
        return {app.send_task("shop.tasks.crawl", [number]).id for number in range(COUNT)}
    finally:
        app.close()


def fire_events(stage: Stage) -> set[str]:
    from contracts import Orders

    from lightbus import Bus

    bus = Bus("shop", url=stage.broker)
    try:
        for order in range(COUNT):
            bus.fire(Orders.placed(order=order, email="customer@example.org", cents=1))
    finally:
        bus.close()
    return {str(order) for order in range(COUNT)}


KINDS: dict[str, tuple[str, str, str, Callable[[Stage], set[str]]]] = {
    "task": ("shop", "shop/tasks.py", TASK, send_tasks),
    "listener": ("support", "support/bus.py", LISTENER, fire_events),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=BROKERS)
def stage(request: pytest.FixtureRequest, brokers: Brokers, tmp_path: Path) -> Iterator[Stage]:
    with broker(request.param, brokers, tmp_path) as url, stage_on(url, tmp_path) as made:
        yield made


@pytest.fixture
def crawlers(stage: Stage, kind: str) -> Crawlers:
    application, file, code, _send = KINDS[kind]
    path = stage.project / file
    path.write_text(path.read_text() + code)
    return Crawlers(stage, application)


@pytest.fixture
def sent(crawlers: Crawlers, kind: str) -> set[str]:
    """Ids of messages of which the first runs."""
    ids = KINDS[kind][3](crawlers.stage)
    crawlers.wait_until_one_runs()
    return ids


def assert_nothing_lost_and_repeats_flagged(crawlers: Crawlers, sent: set[str]) -> None:
    begun: set[str] = set()
    for entry in crawlers.noted("began"):
        assert entry["again"] or entry["id"] not in begun, f"{entry['id']} ran again and was not told"
        begun.add(entry["id"])
    ended = [entry["id"] for entry in crawlers.noted("ended")]
    assert sorted(ended) == sorted(sent)  # each to its end once: those that were killed never got there


def test_a_killed_child_costs_nothing_and_is_replaced(crawlers: Crawlers, sent: set[str]) -> None:
    (child,) = handlers(crawlers.worker.pid)
    first = crawlers.noted("began")[0]["id"]

    os.kill(child, signal.SIGKILL)
    wait_for(lambda: not is_running(child), SECONDS, "the child to be gone")
    crawlers.open_gate()
    crawlers.wait_until_ended(sent)

    assert_nothing_lost_and_repeats_flagged(crawlers, sent)
    assert [entry["id"] for entry in crawlers.noted("began")].count(first) == 2
    assert crawlers.worker.exit_code is None
    assert crawlers.worker.stop() == 0


def test_a_killed_supervisor_lets_its_child_finish_and_hand_back(crawlers: Crawlers, sent: set[str]) -> None:
    (child,) = handlers(crawlers.worker.pid)

    crawlers.worker.kill()
    wait_for(lambda: "the supervisor is gone" in crawlers.worker.read_log(), SECONDS, "the child to see it")
    crawlers.open_gate()
    wait_for(lambda: not is_running(child), SECONDS, "the child to end by itself", crawlers.stage.all_logs)
    crawlers.start()
    crawlers.wait_until_ended(sent)

    assert_nothing_lost_and_repeats_flagged(crawlers, sent)
    began = [entry["id"] for entry in crawlers.noted("began")]
    assert sorted(began) == sorted(sent)  # none was cut off, so none ran twice


def test_a_worker_killed_with_its_child_loses_nothing(crawlers: Crawlers, sent: set[str]) -> None:
    first = crawlers.noted("began")[0]["id"]

    crawlers.worker.end()
    crawlers.open_gate()
    started = time.monotonic()
    crawlers.start()
    crawlers.wait_until_ended(sent)

    assert_nothing_lost_and_repeats_flagged(crawlers, sent)
    assert [entry["id"] for entry in crawlers.noted("began")].count(first) == 2
    promised = crawlers.stage.transport.capabilities.redelivery_seconds
    assert time.monotonic() - started < promised + 10.0  # and the start of a worker on a busy machine
