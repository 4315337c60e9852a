"""How long to wait before the next try to connect."""

from __future__ import annotations

import random

FIRST_SECONDS = 0.05
LAST_SECONDS = 2.0


class Backoff:
    """Doubling pauses, with a random part so that the processes of a fleet do not come back at one moment."""

    def __init__(self) -> None:
        self._seconds = FIRST_SECONDS

    def next_seconds(self) -> float:
        pause = self._seconds * random.uniform(0.5, 1.0)
        self._seconds = min(2 * self._seconds, LAST_SECONDS)
        return pause
