"""The mark that a task message carries when one side hands it to the other. Pure.

A Celery worker that meets a moved task, and a Lightbus worker that meets one that it does not know, pass the message
on untouched but for these headers. The hop count stops two workers, neither of which knows the task, from playing
ping-pong: at `MAX_HOPS` the message is parked.
"""

from __future__ import annotations

from collections.abc import Mapping

HOPS_HEADER = "x-lightbus-hops"
FROM_HEADER = "x-lightbus-from"
MAX_HOPS = 3


def hops_of(headers: Mapping[str, object]) -> int:
    """How often the message was handed over; a header that is no number counts as the limit."""
    value = headers.get(HOPS_HEADER, 0)
    return value if isinstance(value, int) and value >= 0 else MAX_HOPS


def with_hop(headers: Mapping[str, object], sender: str) -> dict[str, object]:
    """`headers` with one hop more, made by `sender` (for example `celery@host` or `lightbus@host`)."""
    return {**headers, HOPS_HEADER: hops_of(headers) + 1, FROM_HEADER: sender}
