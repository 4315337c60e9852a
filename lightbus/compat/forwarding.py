"""How a task message is handed from Celery to Lightbus and back: its mark, its form, its destination. Pure.

A Celery worker that meets a moved task, and a Lightbus worker that meets one that it does not know, pass the message
on untouched but for the two headers of the mark. The hop count stops two workers, neither of which knows the task,
from playing ping-pong: at `MAX_HOPS` the message is parked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from ..core.errors import HandlerNotFound
from ..core.message import Wire
from ..core.outcome import DeadLetter, Forward
from ..core.topology import Queue

HOPS_HEADER = "x-lightbus-hops"
FROM_HEADER = "x-lightbus-from"
MAX_HOPS = 3

#: Properties of a kombu message that describe its last delivery, or that `Wire` names itself.
_NOT_EXTRA = frozenset(
    ("content_type", "content_encoding", "application_headers", "delivery_mode", "priority", "correlation_id",
     "reply_to", "expiration", "message_id", "delivery_info", "delivery_tag", "body_encoding")
)  # fmt: skip


def hops_of(headers: Mapping[str, object]) -> int:
    """How often the message was handed over; a header that is no number counts as the limit."""
    value = headers.get(HOPS_HEADER, 0)
    return value if isinstance(value, int) and value >= 0 else MAX_HOPS


def with_hop(headers: Mapping[str, object], sender: str) -> dict[str, object]:
    """`headers` with one hop more, made by `sender` (for example `celery@host` or `lightbus@host`)."""
    return {**headers, HOPS_HEADER: hops_of(headers) + 1, FROM_HEADER: sender}


def wire_of(
    body: bytes,
    content_type: str | None,
    content_encoding: str | None,
    headers: Mapping[str, object],
    properties: Mapping[str, object],
) -> Wire:
    """A message as kombu gives it, on any of its transports, as a `Wire`.

    `expiration` stays what the sender wrote, although some of it has run off: a Lightbus worker reads the header
    `expires` in any case and stores REVOKED, where a broker would drop the message without a word.
    """
    priority, expiration = properties.get("priority"), properties.get("expiration")
    return Wire(
        body=body,
        content_type=content_type or "",
        content_encoding=content_encoding or "",
        headers=dict(headers),
        message_id=str(properties.get("message_id") or ""),
        correlation_id=str(properties.get("correlation_id") or ""),
        reply_to=str(properties.get("reply_to") or ""),
        priority=priority if isinstance(priority, int) else None,
        expiration_seconds=int(expiration) / 1000 if isinstance(expiration, str) and expiration.isdigit() else None,
        durable=properties.get("delivery_mode", 2) != 1,
        extra={key: value for key, value in properties.items() if key not in _NOT_EXTRA and value is not None},
    )


def source_queue(delivery_info: Mapping[str, object]) -> str:
    """The queue that a message was in, where its delivery tells: it came through the default exchange. Else `""`."""
    return "" if delivery_info.get("exchange") else str(delivery_info.get("routing_key") or "")


def hand_over(name: str, wire: Wire, to: Queue, sender: str, known: Collection[str]) -> Forward | DeadLetter:
    """What a Celery worker does with a message of a task that it does not run itself.

    Args:
        to: the queue on which Lightbus serves the task.
        known: names of moved tasks, for the hint in a dead letter.
    """
    hops = hops_of(wire.headers)
    if hops >= MAX_HOPS:
        error = HandlerNotFound(name, known)
        return DeadLetter(error.reason, f"handed over {hops} times, last by {sender}: {error}", attempts=hops)
    return Forward(to.route, msgspec.structs.replace(wire, headers=with_hop(wire.headers, sender)))
