"""A listener that was renamed leaves a queue behind, which is found."""

from __future__ import annotations

from lightbus.core.message import Wire
from lightbus.core.topology import Topology, listener_topology
from lightbus.drivers import open_transport
from lightbus.orphans import Orphan, orphans, record_queue, remember


def test_a_queue_that_no_listener_reads_any_more_is_found(broker_url: str) -> None:
    transport, other = open_transport(broker_url), open_transport(broker_url)
    assert orphans(transport, "office", ["office.on.new"]) == []

    for name in ("old", "new"):
        transport.declare(listener_topology("office", name, ("a.b.v1",)))
    remember(transport, "office", ["office.on.old"])
    remember(other, "office", ["office.on.new"])
    remember(other, "office", ["office.on.new"])
    transport.publish(Wire(body=b"{}"), listener_topology("office", "old", ()).queues[0].route).result()

    for _ in range(3):  # looking changes nothing
        assert orphans(transport, "office", ["office.on.new"]) == [Orphan("office.on.old", 1)]
    assert orphans(transport, "office", ["office.on.new", "office.on.old"]) == []
    assert "name='old'" in str(Orphan("office.on.old", 1))
    assert orphans(transport, "shop", []) == [], "another app's are another record"

    transport.delete("office.on.old")
    assert orphans(transport, "office", ["office.on.new"]) == []
    transport.close()
    other.close()


def test_records_that_were_written_at_once_are_one_again(broker_url: str) -> None:
    transport = open_transport(broker_url)
    record = record_queue("office")
    transport.declare(Topology(queues=(record,)))
    for name in ("a", "b"):
        transport.declare(listener_topology("office", name, ()))
        transport.publish(Wire(body=f'["office.on.{name}"]'.encode()), record.route).result()
    transport.publish(Wire(body=b"what is this"), record.route).result()

    remember(transport, "office", [])

    assert transport.message_count(record.name) == 1
    assert [one.queue for one in orphans(transport, "office", [])] == ["office.on.a", "office.on.b"]
    transport.close()
