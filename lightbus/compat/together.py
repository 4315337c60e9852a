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

_collecting: ContextVar[list[Future[None]] | None] = ContextVar("lightbus_together", default=None)


class Sent:
    """Messages that were written, and may not have been confirmed."""

    def __init__(self) -> None:
        self.published: list[Future[None]] = []

    def raise_known(self) -> None:
        """Raise the first error that is known by now; does not wait."""
        for published in self.published:
            if published.done():
                published.result()

    def confirm(self, timeout_seconds: float) -> None:
        """Wait until the broker has taken charge of all.

        Raises:
            TransportError: the first of what the broker did not take; all others have been waited for.
        """
        _, open_ones = futures.wait(self.published, timeout_seconds)
        for published in self.published:
            if published not in open_ones:
                published.result()
        if open_ones:
            raise NotConfirmed(
                f"the broker did not confirm {len(open_ones)} of {len(self.published)} messages within "
                f"{timeout_seconds:g} s"
            )


@contextmanager
def collected() -> Iterator[Sent]:
    """Do not wait for the confirms of what is sent in the block: whoever has the `Sent` does, later."""
    sent = Sent()
    token = _collecting.set(sent.published)
    try:
        yield sent
    finally:
        _collecting.reset(token)


@contextmanager
def together(*, timeout_seconds: float = 60.0) -> Iterator[None]:
    """Confirm the tasks that are sent in the block together, at its end.

    Args:
        timeout_seconds: for all confirms, from the end of the block.

    Raises:
        TransportError: at the end, the first of what the broker did not take; all others have been waited for.
    """
    with collected() as sent:
        yield
    sent.confirm(timeout_seconds)


@contextmanager
def together_or_later(*, timeout_seconds: float) -> Iterator[None]:
    """As `together`, but within a block that collects already it is that one's end which waits."""
    if _collecting.get() is not None:
        yield
    else:
        with together(timeout_seconds=timeout_seconds):
            yield


def leave_to_the_end(published: Future[None]) -> bool:
    """Leave a message to the end of the `together` block that this is called in; False outside of one."""
    sent = _collecting.get()
    if sent is None:
        return False
    sent.append(published)
    return True
