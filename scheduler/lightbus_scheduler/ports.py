"""What the loop is given from outside: jobs, a store and a clock; and what it hands out, firings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from .entries import Entry
from .plain import Plain

T_contra = TypeVar("T_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Job:
    """An entry and what it fires.

    Attributes:
        target: read by `make` alone.
        source: for people: where it is defined.
        definition: of an entry that is kept in the store; None for one that code or a file defines.
    """

    entry: Entry
    target: Any
    source: str = "code"
    definition: Plain | None = None


@dataclass(frozen=True, slots=True)
class Firing:
    """One message that is to be sent. `kind` is `slot`, or says that somebody asked for it by hand."""

    job: Job
    slot: datetime
    message_id: str
    kind: str = "slot"
    cancels: str = ""


class DefinitionText(Protocol):
    """JSON, in which a leader keeps the definitions of stored entries in memory; equal texts are equal definitions."""

    def encode(self, definition: Plain) -> bytes: ...

    def decode(self, text: bytes) -> Plain: ...


class StandardJson:
    """The standard library's."""

    def encode(self, definition: Plain) -> bytes:
        return json.dumps(definition, separators=(",", ":")).encode()

    def decode(self, text: bytes) -> Plain:
        plain: Plain = json.loads(text)
        return plain


class Store(Protocol[T_contra]):
    """Where progress is kept, commands wait, and messages are sent: one broker or database."""

    def lead(self) -> str:
        """Become the leader, or go on being it: the name of this term of leading; "" while another one leads.

        Never waits for it. A term has ended when another process may have led since, even if this one leads again.
        """

    def load(self) -> Iterable[tuple[str, Plain]]:
        """Every record with its entry's id, one after the other; a commit in between does no harm.

        Called by a new leader. A record that changes meanwhile may come twice.

        Raises:
            Exception: not one of those that mean "away": what is kept cannot be read.
        """

    def commands(self) -> Sequence[tuple[str, Plain]]:
        """Tag and content of the commands that wait, the oldest first."""

    def commit(
        self, records: Mapping[str, Plain | None], messages: Sequence[T_contra], done: Sequence[str] = ()
    ) -> None:
        """All of it at one moment, and none of it when this process is no longer the leader.

        Args:
            records: entry id to its record; None removes it.
            done: tags of the commands that are carried out with it.
        """

    def resign(self) -> None:
        """Give up the lead and the connection. Raises nothing."""


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall clock, in UTC."""

    def monotonic(self) -> float:
        """Seconds of a clock that nobody sets."""
