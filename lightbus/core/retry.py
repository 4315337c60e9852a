"""Retry policy: whether and when a failed message is tried again.

Pure: the caller brings the random number. `worker/settle.py` carries the answer out.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import DeclarationError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how long after, a failed message is handed to its listener again.

    The default tries 6 times in all, over about half a minute to a minute: 0 to 1 s, 1 to 2, 2 to 4, 4 to 8 and
    8 to 16 s apart. A message that still fails is dead-lettered with its reason.
    """

    max_retries: int = 5  #: repetitions after the first try; 0 for none
    base_seconds: float = 1.0
    cap_seconds: float = 600.0

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise DeclarationError(f"max_retries must be 0 or more, got {self.max_retries}")
        if self.base_seconds <= 0 or self.cap_seconds < self.base_seconds:
            raise DeclarationError(
                f"a retry needs 0 < base_seconds <= cap_seconds, got {self.base_seconds} and {self.cap_seconds}"
            )

    def delay_seconds(self, attempt: int, jitter: float) -> float | None:
        """Seconds until the next try after try number `attempt` failed, or None when it was the last.

        Args:
            attempt: tries so far, 1 after the first.
            jitter: from 0 to 1, drawn by the caller so that a test can fix it.

        Source: "equal jitter" in Exponential Backoff And Jitter, AWS Architecture Blog, 2015: half of the wait is
        certain, so that a broken dependency gets a rest.
        """
        if attempt < 1:
            raise ValueError(f"attempt must be 1 or more, got {attempt}")
        if attempt > self.max_retries:
            return None
        doublings = min(attempt - 1, 63)  # a float overflows past 2**1023, and the cap is long reached
        ceiling = min(self.cap_seconds, self.base_seconds * 2.0**doublings)
        return ceiling / 2 + jitter * ceiling / 2
