"""What the fault tests share: a broker behind a proxy, and a load on it with a ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from lightbus.drivers import open_transport
from lightbus.ports import Transport
from tests.faults.load import Load
from tests.proxy import Proxy

#: So that what takes two heartbeats takes two seconds.
QUICK = {
    "amqp": {"heartbeat": 1, "publish_timeout_seconds": 2.0, "delay_queue_type": "classic"},
    "redis": {"socket_timeout": 2.0, "socket_connect_timeout": 2.0, "publish_timeout_seconds": 2.0},
    "sqlite": {},
}


@dataclass
class Behind:
    """A broker, and the way to it through a proxy."""

    scheme: str
    proxy: Proxy
    url: str  #: through the proxy
    direct_url: str


@pytest.fixture(params=["amqp", "redis"])
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    """Each broker that is reached by a network, empty and for this test alone."""
    fixture = {"amqp": "amqp_vhost_url", "redis": "redis_url"}[request.param]
    url: str = request.getfixturevalue(fixture)
    parts = urlsplit(url)
    assert parts.port is not None
    with Proxy(parts.port) as proxy:
        through = parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{proxy.port}"))
        yield Behind(request.param, proxy, through.geturl(), url)


@pytest.fixture
def transport(behind: Behind) -> Iterator[Transport]:
    """Everything on it goes through the proxy."""
    transport = open_transport(behind.url, options=QUICK[behind.scheme])
    yield transport
    behind.proxy.pass_on()
    transport.close()


@pytest.fixture
def load(transport: Transport, prefix: str) -> Iterator[Load]:
    with Load(transport, transport, prefix) as load:
        yield load
