"""Waiting for a result where nothing announces it."""

from __future__ import annotations

import time
from collections.abc import Callable

_FIRST_SECONDS = 0.02
_MOST_SECONDS = 0.5


def poll(fetch: Callable[[], bytes | None], timeout_seconds: float) -> bytes | None:
    """What `fetch` gives as soon as it differs from what it gave at first, or at the timeout; see `ResultBackend`."""
    deadline = time.monotonic() + timeout_seconds
    before = fetch()
    current, pause = before, _FIRST_SECONDS
    while current in (before, None) and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, pause))
        pause = min(2 * pause, _MOST_SECONDS)
        current = fetch()
    return current
