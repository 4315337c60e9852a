"""What a publisher does when py-amqp takes a connection apart in the middle of a publish."""

from __future__ import annotations

from typing import Any

import pytest

from lightbus.core.message import Route, Wire
from lightbus.core.topology import Queue, Topology
from lightbus.drivers.kombu import amqp_publisher, link
from lightbus.drivers.kombu.amqp import AmqpTransport


@pytest.mark.parametrize("gathered", [False, True], ids=["the first of them", "behind gathered ones"])
def test_a_message_that_meets_a_connection_taken_apart_is_sent_on_the_next_one(
    amqp_vhost_url: str, monkeypatch: pytest.MonkeyPatch, gathered: bool
) -> None:
    """A cut makes py-amqp drop the parts of its connection, on the thread that met it, whoever else is writing."""
    opened: list[Any] = []
    connect, frames_of = link.connect, amqp_publisher.frames_of
    monkeypatch.setattr(link, "connect", lambda *given, **also: opened.append(connect(*given, **also)) or opened[-1])
    transport = AmqpTransport(amqp_vhost_url, {})
    transport.declare(Topology(queues=(Queue(name="apart"),)))
    publish = lambda number: transport.publish(Wire(body=b"%d" % number), Route("", "apart"))  # noqa: E731
    publish(0).result(10)
    publishing = opened[-1].connection

    def taken_apart(*given: Any, **also: Any) -> bytes | None:
        frames = frames_of(*given, **also)
        if publishing is not None and given[0].body == b"40":
            publishing.collect()
        return frames

    monkeypatch.setattr(amqp_publisher, "frames_of", taken_apart)
    monkeypatch.setattr(amqp_publisher, "GATHERED_BYTES", 1)  # what is gathered is written by whoever adds to it

    sent = [publish(number) for number in (range(1, 41) if gathered else [40])]
    for one in sent:
        one.result(20)

    assert (transport.message_count("apart") or 0) >= 1 + len(sent), "sent again, they may be there twice"
    transport.close()
