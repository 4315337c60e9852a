"""How many processes a worker should have: more when all slots are busy and messages wait, fewer when some are idle.

Pure: the caller brings the time and the load. One step at a time, and only after the load has been like that for a
while without a break, so that a burst or a pause does not make processes come and go.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Autoscale:
    """The bounds and the patience."""

    maximum: int
    minimum: int
    grow_seconds: float = 1.0
    shrink_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.maximum:
            raise ConfigError(f"autoscale needs 1 <= MIN <= MAX, got MAX={self.maximum} and MIN={self.minimum}")

    @staticmethod
    def parse(text: str) -> Autoscale:
        """`MAX,MIN` as Celery's option has it; MIN may be left out or 0, and is 1.

        Raises:
            ConfigError: it is not of that form.
        """
        first, _, second = text.partition(",")
        try:
            return Autoscale(int(first), int(second or 1) or 1)
        except ValueError:
            raise ConfigError(f"autoscale takes MAX,MIN as in 10,2; got {text!r}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a worker has to do: slots and busy ones of all its processes, and messages that wait for a slot."""

    slots: int
    busy: int
    waiting: int


class Scaler:
    """Remembers since when the load is as it is."""

    def __init__(self, policy: Autoscale) -> None:
        self.policy = policy
        self._full_since: float | None = None
        self._slack_since: float | None = None

    def wanted(self, processes: int, load: Load, now: float) -> int:
        """How many processes there should be, given that there are `processes`.

        Args:
            now: seconds of any clock that never goes back.
        """
        policy = self.policy
        full = load.waiting > 0 and load.busy >= load.slots
        per_process = load.slots / max(1, processes)
        slack = load.waiting == 0 and load.busy <= load.slots - per_process  # one process fewer would do
        self._full_since = (now if self._full_since is None else self._full_since) if full else None
        self._slack_since = (now if self._slack_since is None else self._slack_since) if slack else None
        step = 0
        if self._full_since is not None and now - self._full_since >= policy.grow_seconds:
            step, self._full_since = 1, now
        elif self._slack_since is not None and now - self._slack_since >= policy.shrink_seconds:
            step, self._slack_since = -1, now
        return min(policy.maximum, max(policy.minimum, processes + step))
