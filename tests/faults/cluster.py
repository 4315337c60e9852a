"""A RabbitMQ of three nodes on loopback, each of which can be killed and started again."""

from __future__ import annotations

import random
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.brokers import BrokerFailed, RabbitMQ, Server, find_program, free_port


class PortMapper(Server):
    """Erlang's port mapper, which all nodes share, and which none of them takes along when it is killed."""

    name = "epmd"

    def commands(self) -> dict[str, list[str]]:
        return {"epmd": [find_program("epmd") or "epmd", "-port", str(self.port), "-address", "127.0.0.1"]}

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5):
                return True
        except OSError:
            return False


class Node(RabbitMQ):
    """One node; joins the cluster of `seed` at its first start."""

    def __init__(self, folder: Path, epmd_port: int, cookie: str, seed: str = "") -> None:
        folder.mkdir(parents=True)
        (folder / ".erlang.cookie").write_text(cookie)
        (folder / ".erlang.cookie").chmod(0o400)
        super().__init__(folder, ports=(free_port(), epmd_port, free_port()))
        nodes = [seed, self.node] if seed else [self.node]
        with (folder / "rabbitmq.conf").open("a") as conf:
            conf.write(
                "cluster_partition_handling = pause_minority\n"
                "cluster_formation.peer_discovery_backend = classic_config\n"
                "cluster_formation.randomized_startup_delay_range.min = 0\n"
                "cluster_formation.randomized_startup_delay_range.max = 0\n"
            )
            conf.writelines(f"cluster_formation.classic_config.nodes.{n} = {name}\n" for n, name in enumerate(nodes, 1))

    def commands(self) -> dict[str, list[str]]:
        every = super().commands()
        return {"rabbitmq": every["rabbitmq"]}

    def holds(self, erlang: str) -> bool:
        """Whether an Erlang expression is true in the node."""
        try:
            self.evaluate(f"true = ({erlang}), ok")
        except BrokerFailed:
            return False
        return True


class Cluster:
    """Three nodes that know each other, within the block."""

    def __init__(self, folder: Path) -> None:
        self._mapper = PortMapper(folder / "epmd")
        cookie = f"lightbus{random.getrandbits(64):x}"
        first = Node(folder / "node1", self._mapper.port, cookie)
        others = [Node(folder / f"node{n}", self._mapper.port, cookie, first.node) for n in (2, 3)]
        self.nodes = [first, *others]

    @property
    def url(self) -> str:
        """All nodes, in kombu's notation: the first that answers is taken."""
        return ";".join(node.url for node in self.nodes)

    def __enter__(self) -> Cluster:
        self._mapper.start()
        first, *others = self.nodes
        try:
            first.start()
            with ThreadPoolExecutor() as pool:
                list(pool.map(Node.start, others))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        for server in (*self.nodes, self._mapper):
            server.stop()

    def is_whole(self) -> bool:
        """Whether every node runs and sees both others."""
        return all(node.holds("rabbit:is_running() andalso length(nodes()) == 2") for node in self.nodes)

    def leader_of(self, queue: str) -> Node | None:
        """The node on which the leader of a quorum queue runs."""
        name = f'rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)'
        leads = f"begin {{ok, Q}} = rabbit_amqqueue:lookup({name}), element(2, amqqueue:get_pid(Q)) == node() end"
        return next((node for node in self.nodes if node.holds(leads)), None)
