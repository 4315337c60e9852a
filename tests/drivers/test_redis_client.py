"""A Redis for results by TCP, TLS, a socket and sentinels, with Celery's settings for it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from lightbus import ConfigError, open_result_backend
from lightbus.compat import Settings, TaskApp
from lightbus.compat.results import ResultDocument
from lightbus.drivers.redis_client import open_client
from tests.brokers import Redis, free_port

CERTIFICATE, KEY = Path(__file__).with_name("loopback.crt"), Path(__file__).with_name("loopback.key")


class EverywhereRedis(Redis):
    """A Redis that also listens with TLS and on a socket."""

    ports_needed = 2

    def commands(self) -> dict[str, list[str]]:
        line = super().commands()["redis"]
        options = {
            "tls-port": self.ports[1], "tls-cert-file": CERTIFICATE, "tls-key-file": KEY, "tls-auth-clients": "no",
            "unixsocket": self.socket, "unixsocketperm": "700",
        }  # fmt: skip
        return {"redis": [*line, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]}

    @property
    def socket(self) -> Path:
        return self.folder / "redis.sock"


class Sentinel(Redis):
    """A sentinel that watches a master named `results`."""

    name = "sentinel"

    def __init__(self, folder: Path, master_port: int) -> None:
        super().__init__(folder)
        self.configuration = folder / "sentinel.conf"
        self.configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\nsentinel monitor results 127.0.0.1 {master_port} 1\n"
        )

    def commands(self) -> dict[str, list[str]]:
        program = super().commands()["redis"][0]
        return {"sentinel": [program, str(self.configuration), "--sentinel"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EverywhereRedis]:
    server = EverywhereRedis(tmp_path_factory.mktemp("r"))
    with server:
        yield server


@pytest.fixture(scope="module")
def sentinel(server: EverywhereRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinel]:
    sentinel = Sentinel(tmp_path_factory.mktemp("s"), server.port)
    with sentinel:
        yield sentinel


def settings_of(way: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    server: EverywhereRedis = request.getfixturevalue("server")
    match way:
        case "tls":
            return {"result_backend": f"rediss://127.0.0.1:{server.ports[1]}/1?ssl_cert_reqs=CERT_NONE"}
        case "tls with a certificate":
            return {
                "result_backend": f"rediss://localhost:{server.ports[1]}/2?ssl_cert_reqs=CERT_REQUIRED"
                f"&ssl_ca_certs={CERTIFICATE}"
            }
        case "socket":
            return {"result_backend": f"redis+socket://{server.socket}?virtual_host=3"}
        case "parts":
            return {"result_backend": "redis", "redis_host": "127.0.0.1", "redis_port": server.port, "redis_db": 4}
    sentinel: Sentinel = request.getfixturevalue("sentinel")
    return {
        "result_backend": f"sentinel://127.0.0.1:{free_port()}/5;sentinel://127.0.0.1:{sentinel.port}/5",
        "result_backend_transport_options": {"master_name": "results", "global_keyprefix": "shop"},
    }


@pytest.mark.parametrize("way", ["tls", "tls with a certificate", "socket", "parts", "sentinel"])
def test_both_sides_find_the_same_redis(way: str, request: pytest.FixtureRequest) -> None:
    settings = settings_of(way, request)
    theirs = Celery("theirs", broker="memory://", set_as_current=False)
    theirs.conf.update(settings)
    app = TaskApp(Settings.from_mapping(settings))
    ours, other = str(uuid.uuid4()), str(uuid.uuid4())
    document = ResultDocument(task_id=ours, status="SUCCESS", result=1)

    app.results.store(document, reply_to="", correlation_id="")
    theirs.backend.store_result(other, 2, "SUCCESS")

    assert theirs.backend.get_task_meta(ours)["result"] == 1
    assert app.AsyncResult(other).get(timeout=20) == 2
    app.close()


def test_a_url_or_option_that_cannot_be_used_is_named_without_its_password() -> None:
    for url in ("sentinel://u:secret@localhost;sentinel://u:secret@other", "redis://u:secret@localhost/1?db=x"):
        with pytest.raises(ConfigError) as caught:
            open_result_backend(url)
        assert "secret" not in str(caught.value)


def test_the_retry_policy_of_the_settings_is_kept() -> None:
    policy = {"max_retries": 3, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.4}
    client = open_client("redis://localhost", {"retry_policy": policy, "socket_timeout": 3.0, "client_name": "shop"})

    found = client.connection_pool.connection_kwargs

    assert (found["socket_timeout"], found["client_name"]) == (3.0, "shop")
    assert found["retry"]._retries == 3
    assert found["retry"]._backoff.compute(99) == 0.4
