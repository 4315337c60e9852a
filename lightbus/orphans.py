"""Queues of listeners that the code does not have any more: a listener was renamed, and its old queue goes on filling.

No protocol of a broker lists its queues, so the workers of an app keep a record of all listener queues that they ever
made: a message in the queue `lightbus.listeners.<app>`. It is a union, so several workers may write at once.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from .core.codec import KIND
from .core.message import Wire
from .core.topology import Queue, Topology
from .ports import Delivery, Transport

RECORD_KIND = "listeners"


@dataclass(frozen=True, slots=True)
class Orphan:
    """A queue that gets events and that no listener of the code reads."""

    queue: str
    waiting: int

    def __str__(self) -> str:
        return (
            f"queue {self.queue!r} belongs to no listener of the code, and still gets its events; {self.waiting} wait: "
            f"if the listener was renamed, give it name={self.queue.partition('.on.')[2]!r} until they are handled; "
            "then delete that queue"
        )


def remember(transport: Transport, app: str, queues: Collection[str]) -> None:
    """Note that `queues` are those of listeners of `app`.

    Raises:
        TransportError: the broker cannot be reached, or does not let this user.
    """
    record = record_queue(app)
    transport.declare(Topology(queues=(record,)))
    taken = _take_all(transport, record)
    known = _read(taken)
    if len(taken) == 1 and known.issuperset(queues):
        taken[0].release()
        return
    body = json.dumps(sorted(known.union(queues))).encode()
    transport.publish(Wire(body=body, headers={KIND: RECORD_KIND}), record.route).result()
    for delivery in taken:  # after the publish: a crash in between leaves two records, which say the same
        delivery.ack()


def orphans(transport: Transport, app: str, queues: Collection[str]) -> list[Orphan]:
    """The recorded queues of `app` that stand and are none of `queues`. Changes nothing.

    Raises:
        TransportError: the broker cannot be reached.
    """
    record = record_queue(app)
    if transport.message_count(record.name) is None:
        return []
    taken = _take_all(transport, record)
    for delivery in reversed(taken):
        delivery.release()
    found = []
    for queue in sorted(_read(taken).difference(queues)):
        waiting = transport.message_count(queue)
        if waiting is not None:
            found.append(Orphan(queue, waiting))
    return found


def record_queue(app: str) -> Queue:
    """Where the record is. No quorum queue: those drop what was looked at too often."""
    return Queue(name=f"lightbus.listeners.{app}")


def _take_all(transport: Transport, record: Queue) -> list[Delivery]:
    taken = []
    while (delivery := transport.get(record.name)) is not None:
        taken.append(delivery)
    return taken


def _read(taken: Collection[Delivery]) -> set[str]:
    names: set[str] = set()
    for delivery in taken:
        try:
            listed = json.loads(delivery.wire.body)
        except ValueError:  # not ours, and no reason to fail
            continue
        if isinstance(listed, list):
            names.update(name for name in listed if isinstance(name, str))
    return names
