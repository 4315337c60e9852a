"""Clients in another language, written from docs/reference/wire.md alone: they fire, listen, call and serve."""

from __future__ import annotations

import json
import os
import queue
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightbus import Api, ApiError, Bus, Event, NotServed, Rejected, RemoteError, current_delivery, rpc
from lightbus.core.topology import (
    DEAD_LETTER_QUEUE,
    dead_letter_queue,
    listener_topology,
    reply_queue,
    rpc_queue,
)
from lightbus.drivers.kombu.amqp_declare import queue_arguments
from tests.node import INSTALL_SECONDS, installed
from tests.processes import ROOT, Process, Processes, wait_for
from tests.runtime.workers import working

EXAMPLES = ROOT / "examples" / "node"
LONGEST_LINES = 40
SECONDS = 30.0

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + 50)  # the first test installs amqplib


class Orders(Api, name="shop.orders", version="1.0"):
    class placed(Event):
        order: int


class Tickets(Api, name="support.tickets", version="1.0"):
    class NotFound(ApiError):
        id: int

    @rpc(errors=[NotFound], timeout_seconds=SECONDS)
    def get(self, *, id: int) -> str:
        raise NotImplementedError


class NewerTickets(Api, name="support.tickets", version="1.1"):
    @rpc(timeout_seconds=SECONDS)
    def get(self, *, id: int) -> str:
        raise NotImplementedError

    @rpc(timeout_seconds=SECONDS)
    def close(self, *, id: int) -> None:
        raise NotImplementedError


class OurTickets(Tickets):
    @rpc()
    def get(self, *, id: int) -> str:
        if id == 404:
            raise Tickets.NotFound(id=id)
        if id < 0:
            raise ValueError(f"no ticket {id}")
        delivery = current_delivery()
        assert delivery is not None
        return f"ticket {id} for {delivery.name}"


@pytest.fixture(scope="module")
def modules() -> Path:
    wanted = json.loads((EXAMPLES / "package.json").read_text())["dependencies"]
    return installed(*[f"{name}@{version}" for name, version in wanted.items()])


@pytest.fixture
def node(modules: Path, processes: Processes) -> Callable[..., Process]:
    """Starts one of the example's programs."""

    def start(script: str, *arguments: str) -> Process:
        return processes.start(
            "node", EXAMPLES / script, *arguments, name=script, environment={"NODE_PATH": str(modules)}
        )  # fmt: skip

    return start


@pytest.fixture
def run_node(modules: Path) -> Callable[..., str]:
    """Runs one of the example's programs to its end; gives its output."""

    def run(script: str, *arguments: str) -> str:
        done = subprocess.run(
            ["node", EXAMPLES / script, *arguments], env={**os.environ, "NODE_PATH": str(modules)}, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def bus(amqp_vhost_url: str) -> Iterator[Bus]:
    bus = Bus("support", url=amqp_vhost_url)
    yield bus
    bus.close()


@pytest.mark.parametrize("script", ["fire.js", "listen.js", "call.js", "serve.js"])
def test_a_client_is_short(script: str) -> None:
    assert len((EXAMPLES / script).read_text().splitlines()) <= LONGEST_LINES


def test_an_event_fired_by_node_reaches_a_listener(bus: Bus, amqp_vhost_url: str, run_node: Callable[..., str]) -> None:
    seen: queue.Queue[tuple[Any, ...]] = queue.Queue()

    @bus.on(Orders.placed)
    def greet(event: Orders.placed) -> None:
        delivery = current_delivery()
        assert delivery is not None
        seen.put((event.order, delivery.id, delivery.correlation_id, delivery.attempt))

    with working(bus):
        message_id = run_node("fire.js", amqp_vhost_url, "shop.orders.placed", "1.0", '{"order": 7, "later": true}')
        assert seen.get(timeout=SECONDS) == (7, message_id, message_id, 1)


def test_node_listens_to_events_and_parks_what_it_cannot_handle(
    bus: Bus, amqp_vhost_url: str, node: Callable[..., Process]
) -> None:
    listener = node("listen.js", amqp_vhost_url, "web.on.greet", "shop.orders.placed.v1")
    listener.wait_for_log("listening", SECONDS)

    bus.fire(Orders.placed(order=7))
    bus.fire(Orders.placed(order=-1))
    bus.fire(Orders.placed(order=8))

    listener.wait_for_log('"order":8', SECONDS)
    lines = [json.loads(line) for line in listener.log.read_text().splitlines() if line.startswith("{")]
    assert lines == [
        {"type": "shop.orders.placed.v1", "from": "/support", "event": {"order": order}} for order in (7, 8)
    ]  # fmt: skip
    assert wait_for(lambda: bus.transport.message_count(DEAD_LETTER_QUEUE), SECONDS, "the dead letter") == 1
    parked = bus.transport.get(DEAD_LETTER_QUEUE)
    assert parked is not None
    assert parked.wire.headers["lightbus_dead_error"] == "RangeError: no order -1"
    assert parked.wire.headers["lightbus_dead_queue"] == "web.on.greet"
    parked.requeue()


def test_node_calls_and_gets_answers_and_errors(bus: Bus, amqp_vhost_url: str, run_node: Callable[..., str]) -> None:
    def call(name: str, version: str, fields: str) -> Any:
        return json.loads(run_node("call.js", amqp_vhost_url, "support.tickets", name, version, fields))

    assert call("get", "1.0", '{"id": 7}') == {"error": {"type": "not served"}}
    bus.serve(OurTickets())
    with working(bus):
        assert call("get", "1.0", '{"id": 7}') == {"result": "ticket 7 for support.tickets.get"}
        assert call("get", "1.0", '{"id": 404}')["error"] == {
            "type": "api:NotFound", "title": "NotFound", "fields": {"id": 404},
        }  # fmt: skip
        assert call("get", "1.0", '{"id": -1}')["error"]["detail"] == "ValueError: no ticket -1"
        assert call("get", "1.0", '{"id": "7"}')["error"]["type"] == "rejected"
        assert call("get", "1.1", '{"id": 7}')["error"]["type"] == "rejected"


def test_node_serves_calls(bus: Bus, amqp_vhost_url: str, node: Callable[..., Process]) -> None:
    tickets, newer = bus.client(Tickets), bus.client(NewerTickets)
    with pytest.raises(NotServed):
        tickets.get(id=7)
    node("serve.js", amqp_vhost_url).wait_for_log("serving", SECONDS)

    assert tickets.get(id=7) == "ticket 7"
    with pytest.raises(Tickets.NotFound) as caught:
        tickets.get(id=404)
    assert caught.value.id == 404
    with pytest.raises(Rejected, match=r"no call support.tickets.close.v1 here"):
        newer.close(id=7)
    with pytest.raises(Rejected, match=r"this is 1.0"):
        newer.get(id=7)
    with pytest.raises(RemoteError, match="RangeError: no ticket -1"):
        tickets.get(id=-1)


def test_the_page_says_how_lightbus_declares_its_queues() -> None:
    """Who declares a queue otherwise is refused by RabbitMQ: the table has to be right."""
    page = (ROOT / "docs" / "reference" / "wire.md").read_text()
    queues = {
        "<app>.on.<listener>": listener_topology("app", "listener", ()).queues[0],
        "lightbus.rpc.<api>.v<major>": rpc_queue("api", 1),
        "lightbus.reply.<app>.<token>": reply_queue("app", "token"),
        "lightbus.dead": dead_letter_queue(),
    }
    for name, declared in queues.items():
        words = ("no", "yes")
        flags = " | ".join(words[flag] for flag in (declared.durable, declared.exclusive, declared.auto_delete))
        arguments = ", ".join(f"`{key}`: {_shown(value)}" for key, value in queue_arguments(declared).items())
        assert f"| `{name}` | {flags} | {arguments}".rstrip() in page


def _shown(value: object) -> str:
    return f"`{value}`" if isinstance(value, str) else str(value)
