"""How many handlers of one listener, or of one served API, may run at a time.

Pure. `worker.turnstile` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import DeclarationError

MOST_PERMITS = 10_000  #: more is no limit, and each takes a look
#: What a killed process held of a limit of all workers is given away after that long.
LEASE_SECONDS = 15.0
#: What waits for a permit waits that long in the process; then it goes back, and another worker can have it.
HOLD_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most so many handlers at a time.

    Attributes:
        everywhere: of all workers on the broker together; otherwise of each `lightbus worker` by itself, its processes
            together.
    """

    most: int
    everywhere: bool = False

    def __post_init__(self) -> None:
        is_number = isinstance(self.most, int) and not isinstance(self.most, bool)
        if not is_number or not 1 <= self.most <= MOST_PERMITS:
            raise DeclarationError(
                f"a concurrency is a whole number from 1 to {MOST_PERMITS}, got {self.most!r}; None is no limit"
            )

    @classmethod
    def of(cls, value: int | Concurrency) -> Concurrency:
        """From what `bus.on` and `bus.serve` take.

        Raises:
            DeclarationError: it is none.
        """
        return value if isinstance(value, Concurrency) else cls(value)
