"""Messages on their way to the broker, under its numbers: what a confirm, a return or a break of the connection means.

Nothing here waits or writes; the publisher holds its lock meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future

import msgspec

from ...core.errors import TransportError
from ...core.message import Route, Wire
from ...core.outcome import REPEAT_HEADER


class Publication:
    """A message on its way: written, or waiting for a connection."""

    __slots__ = ("deadline", "future", "mandatory", "returned", "route", "wire")

    def __init__(self, wire: Wire, route: Route, mandatory: bool, deadline: float) -> None:
        self.wire = wire
        self.route = route
        self.mandatory = mandatory
        self.future: Future[None] = Future()
        self.deadline = deadline  #: on the monotonic clock
        self.returned = False

    def fail(self, error: TransportError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def settled_by(unconfirmed: OrderedDict[int, Publication], number: int, multiple: bool) -> list[Publication]:
    """Take out what one confirm or refusal of the broker is about; with `multiple` all up to that number."""
    if not multiple:
        publication = unconfirmed.pop(number, None)
        return [publication] if publication else []
    settled = []
    while unconfirmed:
        first = next(iter(unconfirmed))
        if first > number:
            break
        settled.append(unconfirmed.pop(first))
    return settled


def mark_returned(unconfirmed: OrderedDict[int, Publication], route: Route, returned: Wire) -> None:
    """Mark the first message that a returned one can be. The broker does not say its number."""
    ids = (returned.correlation_id, returned.message_id)
    for publication in unconfirmed.values():
        wire = publication.wire
        same = (wire.correlation_id, wire.message_id) == ids and publication.mandatory and publication.route == route
        if same and not publication.returned:
            publication.returned = True
            return


def repeats_of(unconfirmed: OrderedDict[int, Publication]) -> Iterator[Publication]:
    """What has to be written again on another connection, the last one first, marked as a repeat."""
    for publication in reversed(unconfirmed.values()):
        if not publication.future.done():
            headers = {**publication.wire.headers, REPEAT_HEADER: 1}
            publication.wire = msgspec.structs.replace(publication.wire, headers=headers)
            yield publication
