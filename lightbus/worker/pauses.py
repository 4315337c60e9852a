"""How long to wait before something that has ended is started again."""

from __future__ import annotations

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
LONG_LIFE_SECONDS = 60.0  #: it was well: the pauses begin anew


class Pauses:
    """None at first, then one twice as long each time."""

    def __init__(self) -> None:
        self._next_seconds = 0.0

    def after(self, lived_seconds: float) -> float:
        """The seconds to wait now that it has ended, having lived for so long."""
        pause = 0.0 if lived_seconds > LONG_LIFE_SECONDS else self._next_seconds
        self._next_seconds = min(LONGEST_PAUSE_SECONDS, pause * 2 or FIRST_PAUSE_SECONDS)
        return pause
