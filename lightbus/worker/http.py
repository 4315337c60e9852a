"""Health and metrics over HTTP, from beside the supervisor.

    /healthz  200 while the supervisor is at work; what to restart a container by
    /readyz   200 while at least one process consumes and no stop was asked for; what to wait for after a start
    /metrics  in Prometheus's text format

Not from the supervisor's own process, because that forks, which a process with threads must not, and because a slow
reader must not hold it up. It gets the supervisor's health through shared memory and serves read-only text. Whoever
reaches the port can read the names of tasks and queues: bind it to where only monitoring does.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ..core.errors import ConfigError
from .companions import Companion, Run
from .health import Health
from .latch import Latch
from .snapshot import Snapshot

logger = logging.getLogger("lightbus.worker")

STALE_SECONDS = 10.0  #: the supervisor speaks twice a second; one that has not for that long hangs
CLIENT_SECONDS = 10.0  #: how long a client may take for its request
_TEXT = "text/plain; charset=utf-8"

#: The metrics at this moment: content type and text.
RenderMetrics = Callable[[Health], tuple[str, bytes]]


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `:PORT` (loopback); an IPv6 address stands in brackets.

    Raises:
        ConfigError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 <= int(port) < 65536:
        raise ConfigError(f"an address is HOST:PORT, for example 127.0.0.1:9464, got {text!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


class HttpPort:
    """The port, which is taken before the app is loaded and is served from beside the supervisor.

    Args:
        address: where to listen; see `parse_address`.
        render_metrics: None when they are not to be had.
        if_orphaned: see `Companion`.

    Raises:
        ConfigError: the address is none, is in use, or is not this machine's.
    """

    def __init__(
        self, address: str, render_metrics: RenderMetrics | None, if_orphaned: Callable[[], None] = lambda: None
    ) -> None:
        host, port = parse_address(address)
        try:
            self._listener = socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
            )
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise ConfigError(f"cannot listen on {address} for --http: {reason}") from error
        self._render_metrics = render_metrics
        self._if_orphaned = if_orphaned

    @property
    def number(self) -> int:
        found: int = self._listener.getsockname()[1]
        return found

    def served(self, snapshot: Snapshot) -> Companion:
        """What serves it as long as there is a supervisor, before the worker is ready too."""

        def load() -> Run:
            server = Server(self._listener, snapshot, self._render_metrics)
            return server.serve_until

        return Companion(
            does="serves --http", load=load, begins_at_once=True, keeps=(self._listener.fileno(),),
            if_orphaned=self._if_orphaned,
        )  # fmt: skip

    def close(self) -> None:
        """In the supervisor at its end, and in each of its children: the port is not its own."""
        self._listener.close()


class Server(ThreadingHTTPServer):
    """Serves a port that somebody else has opened, and leaves it open."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, snapshot: Snapshot, render_metrics: RenderMetrics | None) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._snapshot = snapshot
        self._render_metrics = render_metrics

    def serve_until(self, until: Latch) -> None:
        """Return when `until` is set."""
        self.timeout = 0.0  # of `handle_request`, which is called when somebody has called
        poller = select.poll()
        poller.register(self.socket, select.POLLIN)
        poller.register(until, select.POLLIN)
        while not until.is_set():
            poller.poll()
            self.handle_request()

    def page(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        health, written = self._snapshot.read()
        silent_seconds = time.monotonic() - written
        alive = silent_seconds < STALE_SECONDS
        match path.partition("?")[0]:
            case "/healthz":
                return _status(alive, health, f"the supervisor has been silent for {silent_seconds:.0f} s")
            case "/readyz":
                return _status(alive and health.ready, health, "no process consumes, or a stop was asked for")
            case "/metrics" if self._render_metrics is not None:
                return 200, *self._render_metrics(health)
            case "/metrics":
                return 404, _TEXT, b"metrics need prometheus-client: pip install 'lightbus-kombu[metrics]'\n"
            case "/":
                return 200, _TEXT, b"/healthz\n/readyz\n/metrics\n"
        return 404, _TEXT, b"there is /healthz, /readyz and /metrics\n"


def _status(good: bool, health: Health, complaint: str) -> tuple[int, str, bytes]:
    said = {"status": "ok" if good else complaint, **asdict(health)}
    return 200 if good else 503, "application/json", json.dumps(said).encode() + b"\n"


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_SECONDS
    server_version = "lightbus"
    sys_version = ""

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        try:
            status, content_type, body = self.server.page(self.path)
        except Exception:  # a defect in a metric must be seen by who scrapes
            logger.exception("%s could not be served", self.path)
            status, content_type, body = 500, _TEXT, b"a defect; the worker's log says more\n"
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("http %s", format % args)
