"""Brokers behind TLS, with a private authority: options as Celery's `broker_use_ssl` has them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lightbus.core.errors import BrokerUnreachable
from lightbus.core.message import Route, Wire
from lightbus.core.topology import Queue, Topology
from lightbus.drivers import open_schedule_store, open_transport


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the key and the certificate of `localhost`, signed by itself."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", path, "-out", f"{path}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@contextlib.contextmanager
def behind_tls(url: str, certificate: Path) -> Iterator[str]:
    """The URL of a port at which the server of `url` speaks TLS."""
    parts = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    loop, ports = asyncio.new_event_loop(), []
    ready = threading.Event()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to, back = await asyncio.open_connection(parts.hostname, parts.port)
        await asyncio.gather(pump(reader, back), pump(to, writer), return_exceptions=True)

    async def begin() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(begin())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(20)
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    try:
        yield f"{parts.scheme}://{user}localhost:{ports[0]}{parts.path}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)


@pytest.mark.parametrize("broker", ["redis", "amqp"])
def test_a_broker_is_reached_by_tls_as_broker_use_ssl_says(
    broker: str, certificate: Path, prefix: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("redis_url" if broker == "redis" else "amqp_vhost_url")
    names = ("ssl_ca_certs", "ssl_cert_reqs") if broker == "redis" else ("ca_certs", "cert_reqs")
    tls = dict(zip(names, (f"{certificate}.crt", ssl.CERT_REQUIRED), strict=True))
    with behind_tls(url, certificate) as guarded:
        transport = open_transport(guarded, options={"ssl": tls})
        try:
            transport.declare(Topology(queues=(Queue(name=prefix),)))
            transport.publish(Wire(body=b"1"), Route("", prefix)).result(20)
            delivery = transport.get(prefix)
            assert delivery is not None
            assert delivery.wire.body == b"1"
            delivery.ack()
        finally:
            transport.close()
        store = open_schedule_store(guarded, options={"ssl": tls})
        try:
            assert store.records() == {}
        finally:
            store.resign()
        stranger = open_transport(guarded, options={"ssl": {names[1]: ssl.CERT_REQUIRED}})
        with pytest.raises(BrokerUnreachable), contextlib.closing(stranger):  # the authority is not known to it
            stranger.get(prefix)
