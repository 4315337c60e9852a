"""How a relay waits for rows: told by PostgreSQL where the driver is psycopg 3, elsewhere by time."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections.abc import Callable
from typing import Any

from ...outbox.store import StoreUnavailable

logger = logging.getLogger("lightbus.outbox")


class Waiting:
    """Waits on one thread; any thread may wake it. Makes its pipe when it first waits, so that it may be forked before.

    Args:
        channel: of PostgreSQL.
    """

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._pipe: tuple[int, int] | None = None
        self._pid = 0
        self._is_woken = False
        self._connection: Any | None = None
        self._was_asked = False
        # Of a pipe that is being closed another thread must not write into what gets its number. Reentrant, because a
        # signal handler may wake the thread that it interrupts.
        self._lock = threading.RLock()

    def wait(self, seconds: float, connect: Callable[[], Any | None]) -> None:
        """Until something was written, `wake`, or that long.

        A notification from before the first wait was not heard: the first returns at once.

        Args:
            connect: for a psycopg connection in autocommit mode, once; None for a driver that cannot tell.
        """
        if self._pipe is None or self._pid != os.getpid():
            self._pipe, self._pid = os.pipe(), os.getpid()
            os.set_blocking(self._pipe[0], False)
            os.set_blocking(self._pipe[1], False)
        if self._is_woken:
            self._is_woken = False
            return
        if not self._was_asked:
            self._connection, self._was_asked = connect(), True
            if self._connection is not None:
                self._listen()
                return
        watched: list[Any] = [self._pipe[0]]
        if self._connection is not None:
            watched.append(self._connection)
        readable, _, _ = select.select(watched, [], [], seconds)
        if self._pipe[0] in readable:
            os.read(self._pipe[0], 4096)
            self._is_woken = False
        if self._connection is not None and self._connection in readable:
            self._read()

    def wake(self) -> None:
        """End a `wait` now, or the next one."""
        self._is_woken = True
        with self._lock:
            if self._pipe is not None and self._pid == os.getpid():
                with contextlib.suppress(BlockingIOError):
                    os.write(self._pipe[1], b"\0")

    def close(self) -> None:
        """Disconnect; the next wait connects anew."""
        self._disconnect()
        with self._lock:
            pipe, self._pipe = self._pipe, None
            for end in pipe or ():
                os.close(end)

    def _disconnect(self) -> None:
        connection, self._connection, self._was_asked = self._connection, None, False
        if connection is not None:
            with contextlib.suppress(Exception):  # whatever the driver says of a connection that is gone
                connection.close()

    def _listen(self) -> None:
        connection: Any = self._connection
        try:
            connection.execute(f'listen "{self._channel}"')
        except Exception as error:
            self._disconnect()
            raise StoreUnavailable(f"cannot wait for notifications: {error}") from error

    def _read(self) -> None:
        connection: Any = self._connection
        try:
            for _ in connection.notifies(timeout=0):
                pass
        except Exception as error:  # noqa: BLE001  # whatever the driver says of a connection that is gone
            logger.warning("the connection that waits for notifications is lost, another is made: %s", error)
            self._disconnect()
