"""What workers tell of the messages that a schedule fired: that they have been handled to their end.

An entry whose overlap rule asks whether its last firing still runs marks its messages with `SLOT_HEADER`. A worker of
Lightbus that is done with one, whatever came of it, copies that header into an empty message on `ENDS_QUEUE`, and the
leader reads them there. Workers of Celery tell nothing; of their tasks the result is looked at.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import msgspec

from lightbus_scheduler import Firing

from ..core.errors import TransportError
from ..core.message import Parcel
from ..core.outcome import SLOT_HEADER
from ..core.topology import ENDS_QUEUE, Queue, Topology
from ..ports import Delivery, Transport

LOOK_SECONDS = 0.2
_MOST = 500

logger = logging.getLogger("lightbus.beat")


def marked(firing: Firing, parcels: Sequence[Parcel]) -> Sequence[Parcel]:
    """The messages of a firing, with the mark where the entry's rule asks for their end."""
    if firing.job.entry.overlap == "allow" or firing.kind != "slot":
        return parcels
    mark = {SLOT_HEADER: f"{firing.message_id} {firing.job.entry.id}"}
    return [
        msgspec.structs.replace(
            parcel, wire=msgspec.structs.replace(parcel.wire, headers={**parcel.wire.headers, **mark})
        )
        for parcel in parcels
    ]


class Ends:
    """Reads what workers have told, and passes it on. For one thread.

    Args:
        transport: gives the broker's; asked when it is needed first.
    """

    def __init__(self, transport: Callable[[], Transport]) -> None:
        self._transport = transport
        self._is_declared = False
        self._look_at = 0.0

    def pass_on(self, note: Callable[[Sequence[tuple[str, str]]], bool]) -> None:
        """Look, now and then, and give entry and message ids to `note`; what it does not take is told again."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        deliveries: list[Delivery] = []
        try:
            transport = self._transport()
            if not self._is_declared:
                transport.declare(Topology(queues=(Queue(name=ENDS_QUEUE),)))
                self._is_declared = True
            while len(deliveries) < _MOST and (delivery := transport.get(ENDS_QUEUE)) is not None:
                deliveries.append(delivery)
            if not deliveries:
                return
            is_noted = note([_ids_of(delivery) for delivery in deliveries])
            for delivery in deliveries:
                (delivery.ack if is_noted else delivery.requeue)()
        except TransportError as error:
            logger.warning("what has ended cannot be read now: %s", error)
            self._is_declared = False  # it may be another broker's node, or an empty one


def _ids_of(delivery: Delivery) -> tuple[str, str]:
    message_id, _, entry_id = str(delivery.wire.headers.get(SLOT_HEADER, "")).partition(" ")
    return entry_id, message_id
