"""`lightbus worker --http`: health and metrics of several processes, as a scraper sees them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import free_port
from tests.cli.conftest import Project
from tests.processes import Process, children, is_running, wait_for

APP = """
import os

from prometheus_client import Counter

from contracts import Tickets
from lightbus import Bus, RetryPolicy, rpc

bus = Bus("{prefix}")
seen = Counter("shop_seen_total", "Of the application itself", ["door"])


class OurTickets(Tickets):
    @rpc()
    def status(self, *, id: int, reader: str = "") -> str:
        return "open"

    @rpc()
    def pid(self) -> int:
        return os.getpid()

    @rpc()
    def sizes(self, *, of: list[str]) -> dict[str, int]:
        return {{}}


bus.serve(OurTickets())


@bus.on(Tickets.created, retry=RetryPolicy(max_retries=0))
def remember(event: Tickets.created) -> None:
    seen.labels("front").inc()
    if event.id == 13:
        raise ValueError("unlucky")
"""


class Site:
    """What a worker serves on its port."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def health(self, path: str = "/readyz") -> tuple[int, dict[str, Any]]:
        status, text = self.get(path)
        return status, json.loads(text)

    def samples(self, name: str) -> dict[str, float]:
        """Labels, as they are written, to value."""
        status, text = self.get("/metrics")
        assert status == 200, text
        found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
        return {labels: float(value) for labels, value in found}


@pytest.fixture
def shop(project: Project, prefix: str) -> Project:
    project.write("shop.py", APP.format(prefix=prefix))
    project.write("tmp/of_metrics", "")
    project.environment["TMPDIR"] = str(project.folder / "tmp")
    return project


def served(project: Project, *arguments: str) -> tuple[Process, Site]:
    port = free_port()
    worker = project.worker("-A", "shop", "--http", f"127.0.0.1:{port}", *arguments)
    return worker, Site(port)


def metric_files(project: Project) -> list[Path]:
    return list(Path(project.environment["TMPDIR"]).glob("lightbus-metrics-*/*"))


def workers_of(worker: Process, site: Site) -> list[int]:
    """The children that handle messages: those without the process that serves."""
    found = re.search(r"^lightbus worker ready pids=([\d,]+)$", worker.read_log(), re.MULTILINE)
    assert found is not None
    return [int(pid) for pid in found[1].split(",")]


def test_processes_count_together_and_their_counts_outlive_them(shop: Project, prefix: str) -> None:
    worker, site = served(shop, "-c", "2")
    labels = f'kind="event",name="{prefix}.tickets.created",outcome='
    ok, parked = f'{labels}"ok"', f'{labels}"parked"'
    for number in (1, 2, 13):
        assert shop.run("fire", f"{prefix}.tickets.created", f"id={number}", "-A", "shop").code == 0
    consumed = "lightbus_messages_consumed_total"
    wait_for(lambda: sum(site.samples(consumed).values()) == 3, 15, "3 messages", [worker.log])

    assert site.samples(consumed) == {ok: 2.0, parked: 1.0}
    assert site.samples("lightbus_dead_letters_total") == {f'queue="{prefix}.on.remember",reason="handler-failed"': 1.0}
    assert site.samples("lightbus_processing_seconds_count") == {labels.removesuffix(",outcome="): 3.0}
    assert site.samples("lightbus_queue_wait_seconds_count") == {labels.removesuffix(",outcome="): 3.0}
    assert site.samples("shop_seen_total") == {'door="front"': 3.0}
    for pid in workers_of(worker, site):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: site.samples("lightbus_worker_restarts_total") == {"": 2.0}, 15, "2 restarts", [worker.log])
    wait_for(lambda: site.health()[1]["consuming"] == 2, 15, "2 that consume", [worker.log])
    shop.run("fire", f"{prefix}.tickets.created", "id=4", "-A", "shop")
    wait_for(lambda: site.samples(consumed).get(ok) == 3.0, 15, "another message", [worker.log])

    assert site.samples(consumed)[parked] == 1.0
    left = [path.name for path in metric_files(shop)]
    assert not any(str(pid) in name for pid in workers_of(worker, site) for name in left), left
    assert worker.stop() == 0
    assert metric_files(shop) == []


def test_health_follows_the_worker(shop: Project) -> None:
    worker, site = served(shop, "-c", "2", "--threads", "3")
    wait_for(lambda: site.health()[1]["consuming"] == 2, 15, "both to consume", [worker.log])

    assert site.health()[0] == 200
    assert site.health("/healthz")[0] == 200
    assert (site.health()[1]["processes"], site.health()[1]["slots"]) == (2, 6)
    assert site.samples("lightbus_worker_up") == {"": 1.0}
    assert site.samples("lightbus_worker_slots") == {"": 6.0}
    assert site.get("/nothing")[0] == 404
    os.kill(worker.pid, signal.SIGSTOP)  # a supervisor that hangs
    try:
        wait_for(lambda: site.health("/healthz")[0] == 503, 20, "the silence to be noticed", [worker.log])
        assert "silent" in site.health("/healthz")[1]["status"]
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    wait_for(lambda: site.health("/healthz")[0] == 200, 10, "the supervisor to be back", [worker.log])
    assert worker.stop() == 0


def test_the_port_is_free_again_when_the_worker_has_ended_or_was_killed(shop: Project) -> None:
    worker, site = served(shop, "-c", "1")
    port = int(site.url.rpartition(":")[2])
    before = children(worker.pid)
    worker.kill()
    wait_for(lambda: not any(is_running(pid) for pid in before), 15, "all of it to end", [worker.log])
    assert metric_files(shop) == []
    again = shop.worker("-A", "shop", "-c", "1", "--http", f":{port}")

    assert site.health("/healthz")[0] == 200
    assert again.stop() == 0
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_server_process_that_is_killed_is_replaced(shop: Project) -> None:
    worker, site = served(shop, "-c", "1")
    (beside,) = set(children(worker.pid)) - set(workers_of(worker, site))
    os.kill(beside, signal.SIGKILL)
    worker.wait_for_log("the process that answers what is asked about this worker and serves --http has ended")

    def answers() -> bool:
        try:
            return site.health("/readyz")[0] == 200
        except OSError:
            return False

    wait_for(answers, 10, "an answer", [worker.log])
    assert worker.stop() == 0


def test_new_code_serves_on_the_same_port_and_goes_on_counting(shop: Project, prefix: str) -> None:
    worker, site = served(shop, "-c", "1")
    shop.run("fire", f"{prefix}.tickets.created", "id=1", "-A", "shop")
    consumed = "lightbus_messages_consumed_total"
    wait_for(lambda: sum(site.samples(consumed).values()) == 1, 15, "a message", [worker.log])
    worker.signal(signal.SIGHUP)
    wait_for(lambda: worker.read_log().count("worker ready pids=") == 2, 20, "new code", [worker.log])
    shop.run("fire", f"{prefix}.tickets.created", "id=2", "-A", "shop")
    wait_for(lambda: sum(site.samples(consumed).values()) == 2, 15, "another message", [worker.log])

    assert worker.stop() == 0


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_said_in_one_sentence(shop: Project, address: str) -> None:
    ended = shop.run("worker", "-A", "shop", "--http", address)

    assert ended.code == 78
    assert ended.sentence == f"an address is HOST:PORT, for example 127.0.0.1:9464, got {address!r}"


def test_a_busy_port_is_said_in_one_sentence(shop: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = shop.run("worker", "-A", "shop", "--http", address)

    assert ended.code == 78
    assert ended.sentence == f"cannot listen on {address} for --http: Address already in use"
