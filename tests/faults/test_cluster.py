"""A cluster of RabbitMQ that loses the node with a queue's leader, under load."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightbus.drivers import open_transport
from tests.faults.cluster import Cluster
from tests.faults.conftest import QUICK
from tests.faults.load import Load
from tests.processes import wait_for

pytestmark = pytest.mark.xdist_group("own-rabbitmq")  # three nodes more on two cores are enough


@pytest.mark.timeout(300)
def test_a_cluster_that_loses_the_leader_of_a_queue_under_load_costs_nothing(tmp_path: Path, prefix: str) -> None:
    with Cluster(tmp_path) as cluster:
        wait_for(cluster.is_whole, 60, "the nodes to see each other", [node.log for node in cluster.nodes])
        transport = open_transport(cluster.url, options={**QUICK["amqp"], "heartbeat": 2})
        with Load(transport, transport, prefix, replicated=True) as load:
            load.wait_for_flow(seconds=60)
            leader = cluster.leader_of(load.queue.name)
            assert leader is not None
            leader.sync_tables()
            leader.stop()  # as kill -9; the client was connected to it, where the queue was declared
            load.wait_for_flow(seconds=90)
            leader.start()
            wait_for(cluster.is_whole, 60, "the node to be back", [leader.log])
            load.wait_for_flow(seconds=60)
            load.finish(60)
        transport.close()  # the queue goes with the cluster
