"""Events in the order of a key: which of a listener's lanes an event goes to. Pure; `worker.lanes` keeps the order.

A lane is a queue whose messages are handled one after the other, by one process at a time. All events of a key go
through the same lane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from .errors import BadArguments, DeclarationError
from .retry import RetryPolicy

DEFAULT_LANES = 4
MOST_LANES = 256
#: A message that is tried again keeps its lane, and is not acknowledged meanwhile. RabbitMQ closes the channel of a
#: consumer that does not acknowledge for 30 minutes.
MOST_RETRY_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Ordered:
    """How a listener's events are ordered.

    Attributes:
        key: a field of its events, or a function from an event to what has a JSON form.
        lanes: so many keys are handled at a time, at most. Another number means other queues.
    """

    key: str | Callable[[Any], object]
    lanes: int = DEFAULT_LANES

    def __post_init__(self) -> None:
        if not 1 <= self.lanes <= MOST_LANES:
            raise DeclarationError(f"an ordered listener has 1 to {MOST_LANES} lanes, got {self.lanes!r}")
        if not (callable(self.key) or (isinstance(self.key, str) and self.key)):
            raise DeclarationError(f"ordered_by takes the name of a field or a function, got {self.key!r}")

    @classmethod
    def of(cls, given: str | Callable[[Any], object] | Ordered) -> Ordered:
        """From what `bus.on` takes."""
        return given if isinstance(given, Ordered) else cls(given)

    def check(self, fields_by_event: dict[str, tuple[str, ...]], patterns: Sequence[str], retry: RetryPolicy) -> None:
        """Raises DeclarationError: an event lacks the field, or the retries would hold a lane for too long.

        Args:
            fields_by_event: of each event that is heard, by its name.
            patterns: by which others are heard, whose fields nobody knows.
        """
        if patterns and isinstance(self.key, str):
            raise DeclarationError(
                f"ordered_by={self.key!r}: of what is heard by {patterns[0]!r} no field is known; give a function, "
                f"lambda event: event.payload.get({self.key!r})"
            )
        for event, fields in fields_by_event.items():
            if isinstance(self.key, str) and self.key not in fields:
                raise DeclarationError(
                    f"ordered_by={self.key!r}: event {event} has no such field, it has {', '.join(fields) or 'none'}"
                )
        longest = sum(retry.delay_seconds(attempt, 1.0) or 0.0 for attempt in range(1, retry.max_retries + 1))
        if longest > MOST_RETRY_SECONDS:
            raise DeclarationError(
                f"the retries of an ordered listener hold up what comes after, {MOST_RETRY_SECONDS:g} s at most; "
                f"{retry} takes up to {longest:g} s"
            )

    def lane_of(self, event: object) -> int:
        """The number of the lane that `event` goes to, from 0.

        Raises:
            BadArguments: its key has no JSON form.
        """
        key = getattr(event, self.key) if isinstance(self.key, str) else self.key(event)
        try:
            text = msgspec.json.encode(key, order="deterministic")
        except (TypeError, ValueError) as error:
            raise BadArguments(f"the key {key!r:.100} of an ordered listener has no JSON form: {error}") from error
        return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") % self.lanes
