"""A message of which no copy can be written is kept by its body, and does not come back for ever."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from lightbus.core.errors import NotConfirmed, Unwritable
from lightbus.core.message import Route, Wire
from lightbus.core.outcome import DeadLetter
from lightbus.core.topology import Queue, Topology
from lightbus.drivers import open_transport
from lightbus.ports import Delivery, Transport
from lightbus.worker.settle import Settler
from tests.processes import wait_for


def test_what_cannot_be_parked_whole_is_parked_by_its_body(broker_url: str, prefix: str) -> None:
    transport = open_transport(broker_url)
    settler = Settler(transport, f"{prefix}.dead")
    queue = Queue(name=f"{prefix}.work")
    transport.declare(settler.topology() + Topology(queues=(queue,)))
    transport.publish(Wire(body=b"precious"), queue.route).result(10)
    delivery = _get(transport, queue.name)
    # As it may have come from a producer in another language: no header of ours can hold it.
    hostile = Wire(body=delivery.wire.body, headers={"odd": object()})

    settler.settle(Delivery(hostile, queue.name, False, delivery._settle), DeadLetter("undecodable", "no \ud800 text"))

    settler.drain(10)
    parked = _get(transport, f"{prefix}.dead")
    assert (parked.wire.body, parked.wire.headers["lightbus_dead_reason"]) == (b"precious", "unwritable")
    assert parked.wire.headers["lightbus_dead_queue"] == queue.name
    parked.ack()
    wait_for(lambda: transport.message_count(queue.name) == 0, 10, "the original to be acknowledged")
    transport.close()


def test_an_error_text_with_half_a_character_is_parked_escaped(broker_url: str, prefix: str) -> None:
    transport = open_transport(broker_url)
    settler = Settler(transport, f"{prefix}.dead")
    queue = Queue(name=f"{prefix}.work")
    transport.declare(settler.topology() + Topology(queues=(queue,)))
    transport.publish(Wire(body=b"x", headers={"a": 1}), queue.route).result(10)

    settler.settle(_get(transport, queue.name), DeadLetter("undecodable", "half \ud800 of one"))

    settler.drain(10)
    headers = _get(transport, f"{prefix}.dead").wire.headers
    assert (headers["lightbus_dead_reason"], headers["lightbus_dead_error"]) == ("undecodable", "half \\ud800 of one")
    assert headers["a"] == 1
    transport.close()


@pytest.mark.parametrize("error", [NotConfirmed("full"), Unwritable("odd")])
def test_a_body_that_cannot_be_parked_either_goes_back(error: Exception) -> None:
    class Refusing:
        def publish(self, wire: Wire, route: Route, **options: object) -> Future[None]:
            future: Future[None] = Future()
            future.set_exception(error)
            return future

    settled: list[object] = []
    settler = Settler(Refusing(), "dead")  # type: ignore[arg-type]

    settler.settle(Delivery(Wire(body=b"x"), "q", False, settled.append), DeadLetter("undecodable", "x"))

    assert [getattr(one, "name", one) for one in settled] == ["REQUEUE"]


def _get(transport: Transport, queue: str) -> Delivery:
    found = wait_for(lambda: transport.get(queue), 10, f"a message in {queue}")
    assert found is not None
    return found
