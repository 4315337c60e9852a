"""Which driver a URL opens, and what is loaded for that."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lightbus.core.errors import ConfigError
from lightbus.drivers import open_result_backend, open_transport
from lightbus.drivers.memory import MemoryTransport


@pytest.mark.parametrize(
    "url, name",
    [
        ("amqp://localhost//", "RabbitMQ"),
        ("amqps://localhost//", "RabbitMQ"),
        ("pyamqp://localhost//", "RabbitMQ"),
        ("redis://localhost/0", "Redis"),
        ("rediss://localhost/0?ssl_cert_reqs=CERT_NONE", "Redis"),
        ("sentinel://localhost:26379", "Redis"),
        ("sqlite:///x.db", "embedded (SQLite)"),
        ("memory://", "in memory"),
        ("filesystem://", "kombu's filesystem"),
        ("sqla+sqlite:///x.db", "kombu's sqla"),
    ],
)
def test_a_url_opens_the_driver_of_its_scheme_without_connecting(url: str, name: str) -> None:
    transport = open_transport(url)

    assert transport.capabilities.name.startswith(name)
    transport.close()


@pytest.mark.parametrize("url, hint", [("reddis://localhost", "'redis'"), ("amqb://localhost", "'amqp'")])
def test_a_misspelt_scheme_is_answered_with_the_nearest(url: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {hint}"):
        open_transport(url)


@pytest.mark.parametrize("url", ["", "localhost:5672", "redis"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="begins with a scheme"):
        open_transport(url)
    with pytest.raises(ConfigError, match="begins with a scheme"):
        open_result_backend(url)


def test_each_memory_url_is_a_broker_of_its_own() -> None:
    first, second = open_transport("memory://"), open_transport("memory://")

    assert isinstance(first, MemoryTransport)
    assert first._broker is not second._broker  # type: ignore[attr-defined]


def test_the_table_loads_no_library_of_a_broker() -> None:
    program = (
        "import sys, lightbus.drivers; lightbus.drivers.open_transport('memory://'); "
        "sys.exit(any(name.split('.')[0] in ('kombu', 'amqp', 'redis') for name in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_wrong_patience_is_refused() -> None:
    with pytest.raises(ConfigError, match="publish_timeout_seconds"):
        open_transport("redis://localhost", options={"publish_timeout_seconds": "soon"})
