"""Prometheus metrics in one process, with prometheus_client itself; and the table of them in the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from lightbus import Api, Bus, CallError, Event, NotServed, rpc
from lightbus.contrib.metrics import METRICS, Meter, RelayMeter, instrument
from lightbus.core.message import Route, Wire
from lightbus.drivers.memory import MemoryTransport
from lightbus.drivers.memory_broker import MemoryBroker
from lightbus.worker import WorkerOptions
from tests.processes import ROOT, wait_for
from tests.runtime.workers import working


class Doors(Api, name="tests.doors", version="1.0"):
    class opened(Event):
        id: int

    @rpc(timeout_seconds=5.0)
    def knock(self, *, id: int) -> str:
        raise NotImplementedError


class OurDoors(Doors):
    @rpc()
    def knock(self, *, id: int) -> str:
        if id == 13:
            raise ValueError("nobody")
        return "who?"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus("doors", transport=MemoryTransport(MemoryBroker()))
    yield bus
    bus.close()


def value(registry: CollectorRegistry, metric: str, /, **labels: str) -> float:
    return registry.get_sample_value(metric, labels) or 0.0


def test_what_is_published_and_handled_is_counted_by_its_end(bus: Bus, registry: CollectorRegistry) -> None:
    meter = instrument(bus, registry=registry)
    bus.serve(OurDoors())
    bus.on(Doors.opened, name="heard")(lambda event: None)
    with working(bus, options=WorkerOptions(observers=[meter.observe])):
        bus.fire(Doors.opened(id=1))
        assert bus.client(Doors).knock(id=1) == "who?"
        with pytest.raises(CallError):
            bus.client(Doors).knock(id=13)
        bus.transport.publish(Wire(body=b"?"), Route("", "doors.on.heard")).result()

        def consumed(kind: str, name: str, outcome: str) -> float:
            return value(registry, "lightbus_messages_consumed_total", kind=kind, name=name, outcome=outcome)

        def all_there() -> bool:
            return consumed("event", "", "parked") == consumed("event", "tests.doors.opened", "ok") == 1

        wait_for(all_there, 10, "the events")

    def published(outcome: str) -> float:
        return value(registry, "lightbus_messages_published_total", **knock, outcome=outcome)

    knock = {"kind": "call", "name": "tests.doors.knock"}
    wait_for(lambda: published("ok") == published("error") == 1, 10, "both calls")  # counted just after their answer
    assert (consumed("call", "tests.doors.knock", "ok"), consumed("call", "tests.doors.knock", "error")) == (1, 1)
    assert value(registry, "lightbus_processing_seconds_count", **knock) == 2
    assert value(registry, "lightbus_critical_seconds_count", **knock) == 2
    assert value(registry, "lightbus_publish_seconds_count", kind="event") == 1
    assert value(registry, "lightbus_dead_letters_total", queue="doors.on.heard", reason="undecodable") == 1


def test_a_call_that_nobody_serves_counts_as_an_error_of_its_sender(bus: Bus, registry: CollectorRegistry) -> None:
    instrument(bus, registry=registry)
    with pytest.raises(NotServed):
        bus.client(Doors).knock(id=1)

    labels = {"kind": "call", "name": "tests.doors.knock", "outcome": "error"}
    wait_for(lambda: value(registry, "lightbus_messages_published_total", **labels) == 1, 10, "the call")


def test_the_documentation_lists_each_metric_with_its_labels_and_meaning(registry: CollectorRegistry) -> None:
    page = (ROOT / "docs" / "howto" / "watch-a-worker.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(lightbus_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", page, re.MULTILINE)

    assert rows == [(metric.name, metric.kind, ", ".join(metric.labels) or "–", metric.help) for metric in METRICS]
    Meter(registry)
    RelayMeter(registry)
    registered = {name.removesuffix("_total") for name in registry._names_to_collectors}
    assert {metric.name.removesuffix("_total") for metric in METRICS if "worker" not in metric.name} <= registered
