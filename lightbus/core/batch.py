"""How many events a listener is given at a time. A value; `lightbus.batches` makes the batches."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import DeclarationError


@dataclass(frozen=True, slots=True)
class Batch:
    """How many events a listener gets at a time.

    Attributes:
        size: at most so many; no more than a process has `--coroutines`.
        wait_seconds: a batch that is not full begins so long after its first event.
    """

    size: int
    wait_seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 1 or not self.wait_seconds > 0:
            raise DeclarationError(f"a batch has size >= 1 and wait_seconds > 0, got {self}")
