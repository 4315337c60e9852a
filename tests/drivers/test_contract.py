"""Every transport keeps the same contract; where they differ, their capabilities say so."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lightbus.drivers import open_transport
from lightbus.drivers.kombu import amqp
from lightbus.drivers.kombu.amqp_turns import AmqpTurnsConsumer
from lightbus.drivers.memory import MemoryTransport
from lightbus.drivers.memory_broker import MemoryBroker
from lightbus.ports import Transport
from lightbus.testing import TransportContract
from lightbus.testing.contract_delivery import DeliveryContract

GIVE_UP_SOON = {"publish_timeout_seconds": 0.5}
NOBODY_LISTENS = "127.0.0.1:1"


class TestMemory(TransportContract):
    @pytest.fixture(autouse=True)
    def _broker(self) -> None:
        self.broker = MemoryBroker()

    def make_transport(self) -> Transport:
        return MemoryTransport(self.broker)

    def url_for_processes(self) -> str | None:
        return None

    def make_unreachable(self) -> Transport | None:
        return None

    def make_refused(self) -> Transport | None:
        return None


class TestRedis(TransportContract):
    tells_mismatch = False  # a list in Redis has no arguments that could differ

    @pytest.fixture(autouse=True)
    def _broker(self, redis_url: str) -> None:
        self.url = redis_url

    def make_transport(self) -> Transport:
        return open_transport(self.url)

    def url_for_processes(self) -> str | None:
        return self.url

    def make_unreachable(self) -> Transport | None:
        return open_transport(f"redis://{NOBODY_LISTENS}/0", options=GIVE_UP_SOON)

    def make_refused(self) -> Transport | None:
        parts = urlsplit(self.url)
        return open_transport(f"redis://nobody:wrong@{parts.hostname}:{parts.port}/0", options=GIVE_UP_SOON)


class TestEmbedded(TransportContract):
    @pytest.fixture(autouse=True)
    def _broker(self, sqlite_url: str, tmp_path: Path) -> None:
        self.url = sqlite_url
        self.folder = tmp_path

    def make_transport(self) -> Transport:
        return open_transport(self.url)

    def url_for_processes(self) -> str | None:
        return self.url

    def make_unreachable(self) -> Transport | None:
        return open_transport(f"sqlite:///{self.folder}", options=GIVE_UP_SOON)  # a folder is no broker's file

    def make_refused(self) -> Transport | None:
        return None


class TestRabbitMQ(TransportContract):
    @pytest.fixture(autouse=True)
    def _broker(self, amqp_url: str) -> None:
        self.url = amqp_url

    def make_transport(self) -> Transport:
        return open_transport(self.url)

    def url_for_processes(self) -> str | None:
        return self.url

    def make_unreachable(self) -> Transport | None:
        return open_transport(f"amqp://{NOBODY_LISTENS}//")

    def make_refused(self) -> Transport | None:
        parts = urlsplit(self.url)
        return open_transport(f"amqp://nobody:wrong@{parts.hostname}:{parts.port}{parts.path}")


class TestRabbitMQInTurns(DeliveryContract):
    """Consumers with an order of queues, which ask for each message."""

    @pytest.fixture(autouse=True)
    def _broker(self, amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = amqp_url
        monkeypatch.setattr(amqp, "consumer_for", lambda queues, *, no_ack: AmqpTurnsConsumer)

    def make_transport(self) -> Transport:
        return open_transport(self.url)

    def url_for_processes(self) -> str | None:
        return self.url
