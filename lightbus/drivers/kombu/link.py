"""One AMQP connection and the thread that owns it: opens it, reads it, beats its heart, opens it anew when it breaks.

The owner of a link says what stands on it (`on_open`) and what happens between two reads (`on_tick`). Only the link's
thread reads the socket; other threads may write frames under `Link.lock`, and wake the thread with `wake()`.
"""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import kombu
from amqp.exceptions import FrameSyntaxError

from ...core.errors import ConnectionLost, TransportError
from .amqp_errors import CHANNEL_ERRORS, CONNECTION_ERRORS, connect_error
from .amqp_options import AmqpOptions
from .amqp_reader import FrameReader, Taker

logger = logging.getLogger("lightbus.amqp")

CONNECT_SECONDS = 5.0
FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 5.0

#: Linux alone has it.
TCP_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)

#: AMQP 0.9.1, 2.3.5.2: a content header is class, weight and body size, then the flags of its properties.
CONTENT_HEADER_FRAME = 2
CONTENT_HEADER_BYTES = 12
NO_PROPERTIES = b"\x00\x00"


class LinkOwner(Protocol):
    """What a link calls, always on its own thread."""

    def on_open(self, connection: Any) -> None:
        """A new py-amqp connection stands: open channels, declare, subscribe."""

    def on_lost(self, error: TransportError) -> None:
        """The connection broke or could not be opened. The link tries again unless it is stopping."""

    def on_channel_error(self, error: Exception) -> None:
        """The broker closed a channel. Raises `error` to have the connection opened anew."""

    def on_tick(self) -> float:
        """Called after each read and each wake-up; returns in how many seconds at most to call again."""

    def rest_seconds(self) -> float:
        """How long to let the broker gather more before the next read; asked after each."""

    def on_stop(self) -> None:
        """The link stops: last words on the open connection."""


def connect(url: str, options: AmqpOptions, *, beats: bool = True) -> Any:
    """An open kombu connection, on which no call waits for longer than the broker may be silent.

    Args:
        beats: ask for heartbeats; somebody has to beat, then.

    Raises:
        BrokerUnreachable, AccessRefused: it could not be opened.
    """
    heartbeat_seconds = options.heartbeat_seconds if beats else 0
    # py-amqp's own limit for bytes that the peer does not take is 1 s; one lost packet or a broker's pause exceeds it.
    settings = {TCP_USER_TIMEOUT: round(options.silence_seconds * 1000)} if TCP_USER_TIMEOUT is not None else {}
    transport_options = {"socket_settings": settings, **options.connection}
    failed: TransportError | None = None
    for candidate in url.split(";"):  # kombu's notation for several nodes of a cluster
        connection = kombu.Connection(
            candidate,
            heartbeat=heartbeat_seconds,
            ssl=options.tls,
            connect_timeout=min(CONNECT_SECONDS, options.silence_seconds),
            transport_options=transport_options,
        )
        try:
            # As `connection.connect()`, but without its second try after 2 s: when to try again is the link's business.
            connection.ensure_connection(max_retries=1, interval_start=0, reraise_as_library_errors=False)
            break
        except (*CONNECTION_ERRORS, *CHANNEL_ERRORS) as error:  # a refused password counts as a channel error there
            failed = connect_error(error, connection.as_uri())
            failed.__cause__ = error
    else:
        assert failed is not None  # the loop ran at least once: "".split(";") has one element
        raise failed
    # Else a call that waits for its answer, or a write, would wait for ever when the broker stands still.
    connection.connection.transport.sock.settimeout(options.silence_seconds)
    # py-amqp polls the socket before each publish for this capability, which costs a third of publishing; the broker
    # has been told already that we have it, and the link's thread reads its notices anyway.
    connection.connection.client_properties["capabilities"]["connection.blocked"] = False
    connection.connection.on_inbound_frame = reads_on(connection.connection.on_inbound_frame)
    return connection


def reads_on(handle: Callable[[tuple[int, int, bytes]], bool]) -> Callable[[tuple[int, int, bytes]], bool]:
    """`handle` for inbound frames, but one that survives properties which py-amqp cannot decode.

    A header with text that is no UTF-8 raises in the middle of a message; the broker would hand it out again after each
    reconnection, for ever. The message is read without its properties instead, so that the worker can park it.
    """

    def on_frame(frame: tuple[int, int, bytes]) -> bool:
        try:
            return handle(frame)
        except (ValueError, struct.error, FrameSyntaxError, RecursionError):
            kind, channel, payload = frame
            if kind != CONTENT_HEADER_FRAME:
                raise
            logger.warning("a message has properties that cannot be decoded; it is read without them")
            return handle((kind, channel, payload[:CONTENT_HEADER_BYTES] + NO_PROPERTIES))

    return on_frame


class Link:
    """A connection that is kept open by a thread of its own, from `start` to `stop`."""

    def __init__(
        self,
        url: str,
        options: AmqpOptions,
        owner: LinkOwner,
        *,
        name: str,
        takers: Mapping[bytes, Taker] | None = None,
    ) -> None:
        """`takers`, by consumer tag, get the deliveries in the usual form, which then do not pass through py-amqp."""
        self.lock = threading.RLock()  #: held by whoever writes a frame
        self._url = url
        self._options = options
        self._owner = owner
        self._takers = takers if takers is not None else {}
        self._sock: socket.socket | None = None
        self._stopping = threading.Event()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"lightbus-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Make the thread call `on_tick` now. Any thread."""
        with contextlib.suppress(OSError):  # full: it has been woken already; closed: it has ended
            self._wake_writer.send(b"w")

    def sever(self) -> None:
        """Give the open connection up, after a write that came to no end: the thread opens another. Any thread."""
        if self._sock is not None:
            with contextlib.suppress(OSError):  # it has gone already
                self._sock.shutdown(socket.SHUT_RDWR)
        self.wake()

    def stop(self, timeout_seconds: float) -> None:
        """Let the owner say its last words, and close. Returns when closed, or after the timeout."""
        self._stopping.set()
        self.wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout_seconds)

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def _run(self) -> None:
        backoff_seconds = FIRST_BACKOFF_SECONDS
        while not self._stopping.is_set():
            try:
                connection = connect(self._url, self._options)
            except TransportError as error:
                self._owner.on_lost(error)
            else:
                opened = self._serve(connection)
                backoff_seconds = FIRST_BACKOFF_SECONDS if opened else backoff_seconds
            if not self._stopping.is_set():
                self._stopping.wait(backoff_seconds * random.uniform(0.5, 1.0))
                backoff_seconds = min(2 * backoff_seconds, LAST_BACKOFF_SECONDS)
                self._owner.on_tick()
        self._wake_reader.close()
        self._wake_writer.close()

    def _serve(self, connection: Any) -> bool:
        """Use one connection until it breaks or the link stops; True when it was of use."""
        opened = False
        amqp_connection = connection.connection
        self._sock = amqp_connection.sock
        try:
            self._owner.on_open(amqp_connection)
            opened = True
            self._read_until_stopped(amqp_connection)
            self._owner.on_stop()
            connection.close()
        except (*CONNECTION_ERRORS, *CHANNEL_ERRORS) as error:
            self._lose(connection, ConnectionLost(f"the connection to {connection.as_uri()} broke: {error}"))
        except TransportError as error:
            self._lose(connection, error)
        except Exception as error:  # the top of this thread: without it the link would be dead and nobody told
            logger.exception("a defect on the connection to %s; it is opened anew", connection.as_uri())
            self._lose(connection, TransportError(f"a defect on the connection: {error!r}"))
        return opened

    def _lose(self, connection: Any, error: TransportError) -> None:
        with self.lock:
            connection.collect()
        if not self._stopping.is_set():
            logger.warning("connection lost, opening it anew: %s", error)
        self._owner.on_lost(error)

    def _read_until_stopped(self, connection: Any) -> None:
        reader = FrameReader(connection, self._takers)
        poller = select.poll()
        poller.register(connection.sock, select.POLLIN)
        poller.register(self._wake_reader, select.POLLIN)
        sock_fd = connection.sock.fileno()
        beat_every_seconds = self._options.heartbeat_seconds / 4
        next_beat = time.monotonic() + beat_every_seconds
        timeout_seconds = self._owner.on_tick()
        while not self._stopping.is_set():
            wait_seconds = max(0.0, min(timeout_seconds, next_beat - time.monotonic()))
            for fd, _ in poller.poll(wait_seconds * 1000.0):
                if fd == sock_fd:
                    self._read_available(reader)
                else:
                    self._wake_reader.recv(4096)
            timeout_seconds = self._owner.on_tick()
            now = time.monotonic()
            if now >= next_beat:
                next_beat = now + beat_every_seconds
                with self.lock:
                    connection.heartbeat_tick(rate=2)
            if (rest_seconds := self._owner.rest_seconds()) > 0:
                self._stopping.wait(rest_seconds)

    def _read_available(self, reader: FrameReader) -> None:
        more = True
        while more:
            try:
                more = reader.read()
            except CHANNEL_ERRORS as error:
                self._owner.on_channel_error(error)
                more = reader.handle()
