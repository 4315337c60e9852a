"""The seam between Lightbus and what keeps the results of tasks.

A `ResultBackend` is all that must be implemented; the other protocols are what one may do besides, and are looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


class ResultBackend(Protocol):
    """Where results of tasks are kept: a document (bytes) under a task id."""

    def store(self, task_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        """Keep `document`, and wake those who wait for it."""

    def fetch(self, task_id: str) -> bytes | None:
        """The document, or None when there is none (any more)."""

    def wait(self, task_id: str, *, timeout_seconds: float) -> bytes | None:
        """The document as soon as one is stored that was not there before, or what is there at the timeout."""

    def forget(self, task_id: str) -> None:
        """Remove the document, if there is one."""

    def close(self) -> None:
        """Disconnect."""


@runtime_checkable
class KeepsSuccess(Protocol):
    """What a `ResultBackend` does besides when it looks and stores in one round trip."""

    def store_unless_success(self, task_id: str, document: bytes, *, expires_seconds: float | None) -> bytes | None:
        """As `store`, but where the document that is kept says SUCCESS nothing is done, and nobody woken.

        Returns:
            bytes: what is kept, where the backend cannot tell what it says; nothing was done. None otherwise.
        """


@runtime_checkable
class GroupKeeper(Protocol):
    """What a `ResultBackend` does besides when it keeps which tasks make a group: a document (bytes) under its id."""

    def store_group(self, group_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        """Keep `document`, in the place of one that there was."""

    def fetch_group(self, group_id: str) -> bytes | None:
        """The document, or None when there is none (any more)."""

    def forget_group(self, group_id: str) -> None:
        """Remove the document, if there is one."""


@runtime_checkable
class Expiring(Protocol):
    """What a `ResultBackend` does besides when what has expired stays until somebody removes it."""

    def remove_expired(self, older_than_seconds: float) -> None:
        """Remove what was stored longer ago than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChordParts:
    """All ends of a chord's header, for the one that counted the last.

    Attributes:
        parts: as they were counted, in the order of their places.
        structure: what `begin_chord` was told.
        claim: to be given back to `end_chord`.
    """

    parts: Sequence[bytes]
    structure: bytes | None
    claim: str


@runtime_checkable
class ChordCounter(Protocol):
    """What a `ResultBackend` does besides when it can count how many tasks of a chord's header have ended."""

    def begin_chord(self, group_id: str, size: int, structure: bytes | None, *, expires_seconds: float | None) -> None:
        """`size` ends are to be counted; `structure` is kept until then."""

    def extend_chord(self, group_id: str, count: int) -> None:
        """`count` more ends are to be counted."""

    def count_part(
        self, group_id: str, task_id: str, place: int | None, part: bytes, *, expires_seconds: float | None
    ) -> ChordParts | None:
        """Count the end of one task at its place in the header, once however often it is counted.

        Returns:
            All of them when this was the last, to the one caller that shall go on with it; None otherwise.
        """

    def end_chord(self, group_id: str, claim: str, *, keeps_parts: bool = False) -> None:
        """It was gone on with: forget the chord. With `keeps_parts` its parts stay until they expire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Where the counting of a chord's header stands.

    Attributes:
        complete: this was the last of its tasks, and the caller is the one that shall go on with it.
        group: what `begin_tally` was told of the header's results.
    """

    complete: bool
    group: bytes


@runtime_checkable
class ChordTally(Protocol):
    """What a `ResultBackend` does besides when it counts how many tasks of a chord's header have ended, by a bare
    number: what they brought is read from their results. A repeat of a task counts again."""

    def begin_tally(self, group_id: str, size: int, group: bytes, *, expires_seconds: float | None) -> None:
        """`size` ends are to be counted; `group` is kept until then."""

    def tally(self, group_id: str, size: int | None, *, expires_seconds: float | None) -> Tally | None:
        """Count the end of one task.

        Args:
            size: how many there are to be, where the message says so; otherwise as many as the group has.

        Returns:
            None when nothing is known of that chord.
        """

    def end_tally(self, group_id: str) -> None:
        """It was gone on with: forget the chord."""
