"""Many tasks, one wait: within the block `.delay()` returns when a message is written, and the block ends when the
broker has taken charge of all of them.

Waiting for each confirm makes a loop of `.delay()` as slow as the round trip to the broker's disk, once per message.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar

from ..core.errors import NotConfirmed
from .resultstore import wait_for

_collecting: ContextVar[list[Future[None]] | None] = ContextVar("lightbus_together", default=None)


@contextmanager
def together(*, timeout_seconds: float = 60.0) -> Iterator[None]:
    """Confirm the tasks that are sent in the block together, at its end.

    Args:
        timeout_seconds: for all confirms, from the end of the block.

    Raises:
        TransportError: at the end, the first of what the broker did not take; all others have been waited for.
    """
    sent: list[Future[None]] = []
    token = _collecting.set(sent)
    try:
        yield
    finally:
        _collecting.reset(token)
    _, open_ones = futures.wait(sent, timeout_seconds)
    for published in sent:
        if published not in open_ones:
            published.result()
    if open_ones:
        raise NotConfirmed(
            f"the broker did not confirm {len(open_ones)} of {len(sent)} messages within {timeout_seconds:g} s"
        )


def confirmed(published: Future[None], timeout_seconds: float) -> None:
    """Wait for the broker now, or leave it to the end of the `together` block that this is called in."""
    sent = _collecting.get()
    if sent is None:
        wait_for(published, timeout_seconds)
    else:
        sent.append(published)
