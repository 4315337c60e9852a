"""What a network does to connections, under load: nothing confirmed is lost, and every repeat says that it is one."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from lightbus.core.errors import ConfigError, TransportError
from lightbus.drivers import open_transport
from lightbus.ports import Transport
from tests.faults.conftest import Behind
from tests.faults.load import Load
from tests.processes import wait_for
from tests.proxy import Direction, Proxy

FAULTS: dict[str, Callable[[Proxy], None]] = {
    "reset": lambda proxy: proxy.cut(reset=True),
    "closed in order": lambda proxy: proxy.cut(reset=False),
    "cut in a message going up": lambda proxy: proxy.cut_after(20_011, Direction.UP),
    "cut in a message coming down": lambda proxy: proxy.cut_after(20_011, Direction.DOWN),
}
SILENT_FAULTS: dict[str, Callable[[Proxy], None]] = {
    "half-open, nothing goes up": lambda proxy: proxy.swallow(Direction.UP),
    "half-open, nothing comes down": lambda proxy: proxy.swallow(Direction.DOWN),
    "frozen": lambda proxy: proxy.freeze(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_connection_that_is_cut_under_load_costs_nothing(behind: Behind, load: Load, fault: str) -> None:
    for _ in range(3):
        load.wait_for_flow()
        before = behind.proxy.accepted
        FAULTS[fault](behind.proxy)
        wait_for(lambda before=before: behind.proxy.accepted > before, 20, "a new connection")

    load.wait_for_flow()
    load.finish()


@pytest.mark.parametrize("fault", SILENT_FAULTS)
def test_a_connection_that_falls_silent_is_given_up_and_costs_nothing(
    behind: Behind, transport: Transport, load: Load, fault: str
) -> None:
    load.wait_for_flow()
    transport.message_count(load.queue.name)  # on the connection for look-ups, which then stands
    before = behind.proxy.accepted
    SILENT_FAULTS[fault](behind.proxy)
    began = time.monotonic()
    with pytest.raises(TransportError):
        transport.message_count(load.queue.name)
    assert time.monotonic() - began < 10, "who asks is told in bounded time"
    wait_for(lambda: load.ledger.failed, 10, "publishes to fail in bounded time")
    behind.proxy.pass_on()
    load.wait_for_flow()

    assert behind.proxy.accepted >= before + 2, "both connections were given up"
    load.finish()


def test_a_slow_network_breaks_no_connection(behind: Behind, load: Load) -> None:
    load.wait_for_flow()
    before = behind.proxy.accepted
    behind.proxy.delay(0.3)
    load.wait_for_flow(3)
    behind.proxy.pass_on()

    assert behind.proxy.accepted == before
    load.finish()
    assert load.ledger.repeats == 0


def test_a_pause_shorter_than_the_patience_breaks_no_connection(behind: Behind, load: Load) -> None:
    load.wait_for_flow()
    before = behind.proxy.accepted
    behind.proxy.freeze()
    time.sleep(1.5)  # the pause itself
    behind.proxy.pass_on()
    load.wait_for_flow()

    assert behind.proxy.accepted == before
    load.finish()
    assert load.ledger.repeats == 0


@pytest.mark.parametrize("option", ["heartbeat", "publish_timeout_seconds"])
@pytest.mark.parametrize("value", [0, -1.0, True, "10"])
def test_a_patience_that_is_no_time_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{option}.*{value!r}"):
        open_transport("amqp://127.0.0.1//", options={option: value})
