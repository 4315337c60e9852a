"""The kombu transport: URL, connection, waiting. Importable by name, for settings that name a transport class.

A connection opens the broker file. Publishing needs nothing more. The first consumer, `basic_get` or exclusive queue
starts a session: a lease, a thread that keeps it, and a socket on which other processes announce messages.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp
from kombu.transport import base

from .channel import Channel
from .database import Database
from .sessions import LEASE_SECONDS, Keeper, SessionLost, Sessions, new_session_id
from .store import Store
from .wake import Waiter, Waker, remove_stale_sockets

LOOK_AGAIN_SECONDS = 1.0  # the longest wait without a look at the file, should a wake-up get lost
LOOK_AGAIN_UNWOKEN_SECONDS = 0.05  # the same where no socket could be bound


class Transport(base.Transport):
    """One connection. Its consuming methods are for one thread; `wake` and acknowledgements are for any.

    Transport options:
        lease_seconds: how long after the death of a process its messages are given to others. Default 4.
    """

    can_parse_url = True
    default_port = None
    driver_type = "sqlite"
    driver_name = "sqlite3"
    connection_errors = (amqp.ConnectionError, sqlite3.OperationalError, OSError)  # type: ignore[assignment]
    channel_errors = (amqp.ChannelError,)
    recoverable_connection_errors = (amqp.RecoverableConnectionError, sqlite3.OperationalError, OSError)
    recoverable_channel_errors = (amqp.RecoverableChannelError,)
    implements = base.Transport.implements.extend(
        asynchronous=False, exchange_type=frozenset(["direct", "topic", "fanout"]), heartbeats=False
    )

    def __init__(self, client: Any, **options: object) -> None:
        self.client = client
        self._lease_seconds = float(client.transport_options.get("lease_seconds", LEASE_SECONDS))
        self.path = path_from_url(client.hostname, client.virtual_host)
        self._pid = os.getpid()
        self._channels: list[Channel] = []
        self._channel_count = 0
        self._session: str | None = None
        self._lost = threading.Event()
        self._interrupted = threading.Event()
        self._waker = Waker()
        self._waiter: Waiter | None = None
        self._keeper: Keeper | None = None
        self._store = Store(self.path, self._waker)

    def driver_version(self) -> str:
        return sqlite3.sqlite_version

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        return uri

    # -- connection

    def establish_connection(self) -> Transport:
        """Open the file, creating it when there is none.

        Raises:
            NotABusFile: it is newer than this code, or not a broker's.
            OSError, sqlite3.OperationalError: it cannot be opened.
        """
        self._store.database.open()
        self._waiter = Waiter()
        return self

    def verify_connection(self, connection: object) -> bool:
        return not self._lost.is_set()

    def close_connection(self, connection: object) -> None:
        """Close all channels, so that what is not settled goes back at once, and end the session."""
        ours = self._pid == os.getpid()
        for channel in list(self._channels):
            channel.close()
        if self._keeper is not None and ours:
            self._keeper.stop()
        session = self.session_or_none()
        if session is not None:
            self._store.sessions.end(session)
        self._session = None
        if self._waiter is not None:
            self._waiter.close(unlink=ours)
            self._waiter = None
        self._waker.close()
        self._store.close()

    def create_channel(self, connection: object) -> Channel:
        self._channel_count += 1
        channel = Channel(self, self._store, self._channel_count)
        self._channels.append(channel)
        return channel

    def close_channel(self, channel: Channel) -> None:
        if channel in self._channels:
            self._channels.remove(channel)
        channel.connection = None

    # -- session

    def session(self) -> str:
        """The session, started on first use.

        Raises:
            amqp.RecoverableConnectionError: it was lost, or belongs to the parent of a fork.
        """
        self._check_usable()
        if self._session is None:
            self._session = self._start_session()
        return self._session

    def session_or_none(self) -> str | None:
        """The session, if there is one and it is this process's."""
        usable = self._pid == os.getpid() and not self._lost.is_set()
        return self._session if usable else None

    def _start_session(self) -> str:
        session = new_session_id()
        lost, waiter = self._lost, self._connected()
        waiter.bind(self.path, session)
        sessions = self._store.sessions
        sessions.sweep()
        if waiter.path is not None:
            remove_stale_sockets(os.path.dirname(waiter.path), sessions.live_sockets())
        lease_until = time.monotonic() + self._lease_seconds
        sessions.start(self._lease_seconds, waiter.path, session)

        def on_lost() -> None:
            lost.set()
            waiter.nudge()

        own = Sessions(Database(self.path), self._waker)
        self._keeper = Keeper(own, session, self._lease_seconds, lease_until, on_lost)
        # For connections that are dropped without being closed: a thread of ours must not keep them alive for ever.
        weakref.finalize(self, self._keeper.abandon).atexit = False
        self._keeper.start()
        return session

    def _connected(self) -> Waiter:
        if self._waiter is None:
            raise amqp.RecoverableConnectionError("this connection is closed: connect again")
        return self._waiter

    def _check_usable(self) -> None:
        if self._pid != os.getpid():
            raise amqp.RecoverableConnectionError(
                f"this connection was opened by process {self._pid}, before the fork: open one in this process"
            )
        if self._lost.is_set():
            for channel in self._channels:
                channel.forget()
            raise amqp.RecoverableConnectionError(
                f"this process stood still for longer than its lease of {self._lease_seconds} s, so its messages were "
                "given to others: connect again"
            )

    def _check_lease(self, session: str) -> None:
        """Hand out nothing that was taken before a standstill, unless the lease has survived it."""
        assert self._keeper is not None
        now = time.monotonic()
        if now > self._keeper.lease_until:
            try:
                kept = self._store.sessions.keep(session, self._lease_seconds, float("-inf"))
                self._keeper.lease_until = kept.lease_until
            except SessionLost:
                self._lost.set()
                self._check_usable()

    # -- waiting

    def drain_events(  # type: ignore[override]
        self, connection: object, timeout: float | None = None
    ) -> None:
        """Deliver one message to its consumer.

        Args:
            timeout: seconds to wait for one; 0 to take only what is there, None to wait for ever.

        Raises:
            TimeoutError: there was none in time, or `wake` was called.
            amqp.RecoverableConnectionError: the session was lost.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        waiter = self._connected()
        while True:
            self._check_usable()
            if self._interrupted.is_set():
                self._interrupted.clear()
                raise TimeoutError("drain_events was interrupted by wake()")
            wait_seconds = self._deliver_one(waiter)
            if wait_seconds is None:
                return
            if deadline is not None:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise TimeoutError(f"no message within {timeout} s")
                wait_seconds = min(wait_seconds, remaining)
            if not self._interrupted.is_set() and not self._lost.is_set():  # set while `_deliver_one` ate the nudge
                waiter.wait(wait_seconds)

    def wake(self) -> None:
        """Make `drain_events` raise TimeoutError at once: the one under way, or else the next. From any thread."""
        self._interrupted.set()
        self.look_again()

    def look_again(self) -> None:
        """Let a waiting `drain_events` look for messages: something changed on this side. From any thread."""
        waiter = self._waiter
        if waiter is not None:
            waiter.nudge()

    def _deliver_one(self, waiter: Waiter) -> float | None:
        """None when a message was delivered, else for how long nothing is expected, in seconds."""
        session = self._session
        consuming = [channel for channel in self._channels if channel.consuming]
        if session is None or not consuming:
            waiter.clear()
            return LOOK_AGAIN_SECONDS
        self._check_lease(session)
        if self._deliver_from(consuming, session):
            return None
        waiter.clear()
        due_seconds = self._store.promote()
        for channel in consuming:
            try:
                channel.fill(session)
            except SessionLost:
                self._lost.set()
                self._check_usable()
        if self._deliver_from(consuming, session):
            return None
        longest = LOOK_AGAIN_SECONDS if waiter.path is not None else LOOK_AGAIN_UNWOKEN_SECONDS
        return longest if due_seconds is None else min(longest, due_seconds + 0.001)

    def _deliver_from(self, channels: list[Channel], session: str) -> bool:
        for channel in channels:
            if channel.deliver_next(session):
                if len(self._channels) > 1 and channel in self._channels:  # the callback may have closed it
                    self._channels.remove(channel)
                    self._channels.append(channel)
                return True
        return False


def path_from_url(url: str | None, virtual_host: str | None = None) -> str:
    """The file that a broker URL names. Percent escapes are resolved.

    Args:
        url: as given to kombu.
        virtual_host: the path, where kombu has taken the URL apart before (when it fails over to an alternate).

    Raises:
        ValueError: it names no file.
    """
    if not url or "://" not in url:
        path = virtual_host if virtual_host != "/" else ""
    else:
        parts = urlsplit(url)
        if parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                f"{url!r} is no URL of an embedded broker: write sqlite:////absolute/path.db or "
                "sqlite:///relative/path.db, with ? and # escaped, and options in transport_options"
            )
        path = unquote(parts.path[1:])
    if not path:
        raise ValueError(f"{url!r} names no file: write sqlite:////absolute/path.db or sqlite:///relative/path.db")
    return path
