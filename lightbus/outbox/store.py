"""What a relay needs of the table in which messages wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..core.errors import LightbusError
from ..core.exitcodes import EXIT_UNAVAILABLE
from ..core.outbox import Backlog, Claimed, Row


class StoreUnavailable(LightbusError):
    """The database of an outbox did not answer, or not as it should; the text is its own."""

    exit_code = EXIT_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Claim:
    """Rows that one relay has until `until` (Unix seconds by the store's clock); also its proof."""

    until: float
    rows: Sequence[Claimed] = ()


class OutboxStore(Protocol):
    """The outbox and inbox tables of one database. Used by one thread at a time but for `wake`.

    All raise `StoreUnavailable`. What is changed under a claim that has run out is changed only where nobody else has
    claimed the row since.
    """

    @property
    def name(self) -> str:
        """For logs and metrics."""

    def claim(self, limit: int, *, lease_seconds: float) -> Claim:
        """Take at most `limit` rows that are due, in order; no other relay gets them before the lease is over.

        Rows of one transaction go to one relay at a time, in order, where `keeps_transactions`.
        """

    def load(self, positions: Sequence[int]) -> list[Row]:
        """Those rows, in order, as far as they are still there."""

    def delete(self, positions: Sequence[int]) -> None:
        """They are published."""

    def release(self, claim: Claim, positions: Sequence[int], *, unsent: bool) -> None:
        """Give rows back; `unsent`: none of them has left this process, so the attempt does not count."""

    def put_off(self, claim: Claim, position: int, delay_seconds: float, error: str) -> None:
        """Nobody takes the row for that long."""

    def set_aside(self, claim: Claim, position: int, error: str) -> None:
        """Nobody takes the row until `retry`."""

    def backlog(self) -> Backlog:
        """What is there now."""

    def rows(self, ids: Sequence[str] = (), *, aside: bool | None = None, limit: int = 100) -> list[Row]:
        """For people: rows in order, of messages whose id begins with one of `ids`; `aside` None for all."""

    def retry(self, positions: Sequence[int]) -> int:
        """Have the relays take these rows now, set aside or not; how many there were."""

    def discard(self, positions: Sequence[int]) -> int:
        """Delete these rows unpublished; how many there were."""

    def clean(self) -> int:
        """Delete records of the inbox that are older than they are kept; how many went."""

    def wait(self, seconds: float) -> None:
        """Return when something may have been written, after `wake`, or after that long."""

    def wake(self) -> None:
        """End a `wait` now, or the next one. Any thread."""

    def close(self) -> None:
        """Give back what this thread has of the database. It can be used again. Raises nothing."""
