"""Confirms that nobody waits for at once: with `lightbus_confirm_later`, `.delay()` returns when a message is written.

The broker still confirms each; a connection that breaks before it has is opened anew, and the message sent again. What
is not taken in the end is logged, since the call is over. At most MOST_UNDER_WAY messages are in that state, and a
program that ends waits for them. One that is killed loses those that the broker did not have.
"""

from __future__ import annotations

import atexit
import logging
import threading
from concurrent import futures
from concurrent.futures import Future

from ..forks import renewed_after_fork

logger = logging.getLogger(__name__)

MOST_UNDER_WAY = 1000


class LaterConfirms:
    """The messages of one app that are not confirmed yet. Thread-safe; a forked child has none of its parent's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[Future[None], str] = {}  # in the order of their publishing
        self._waits_at_exit = False
        renewed_after_fork(self)

    def renew_after_fork(self) -> None:
        """See `lightbus.forks.Renewable`."""
        self._lock = threading.Lock()
        self._under_way = {}

    def add(self, published: Future[None], what: str, timeout_seconds: float) -> None:
        """Let the call that has published `what` go on; it waits for the oldest when too many are under way.

        Raises:
            TransportError: it is known already that the broker did not take it.
        """
        if published.done():
            published.result()
            return
        with self._lock:
            self._under_way[published] = what
            oldest = next(iter(self._under_way)) if len(self._under_way) > MOST_UNDER_WAY else None
            if not self._waits_at_exit:
                self._waits_at_exit = True
                atexit.register(self.wait, timeout_seconds)
        published.add_done_callback(self._ended)
        if oldest is not None:
            futures.wait([oldest], timeout_seconds)

    def wait(self, timeout_seconds: float) -> None:
        """Until all that was published by now is confirmed, has failed, or the time is over."""
        with self._lock:
            under_way = dict(self._under_way)
        _, left = futures.wait(under_way, timeout_seconds)
        for published in left:
            logger.error("%s was not confirmed in %g s; it may be lost", under_way[published], timeout_seconds)

    def _ended(self, published: Future[None]) -> None:
        with self._lock:
            what = self._under_way.pop(published, "")
        if not published.cancelled() and (error := published.exception()) is not None:
            logger.error("%s was not published: %s", what or "a task", error)
