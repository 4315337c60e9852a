"""What is scheduled and under which policies, what was decided so far, and the names of slots. Pure values."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

from .errors import ScheduleError
from .kinds import Schedule, Window

MisfireRule = Literal["skip", "once", "all"]
Overlap = Literal["allow", "skip", "queue-one", "cancel"]
Outcome = Literal["fired", "caught up", "skipped", "queued"]

_MISFIRE_RULES: tuple[str, ...] = get_args(MisfireRule)
_OVERLAPS: tuple[str, ...] = get_args(Overlap)

#: Of message ids. It must never change: an id that differs between versions would hide a repeat.
_NAMESPACE = uuid.UUID("6f2c3c0e-7c3c-5d5f-9f0e-3b9d5a1c7e42")


@dataclass(frozen=True, slots=True)
class Misfire:
    """What becomes of slots that came due while nobody watched.

    Attributes:
        rule: `skip` all of them; `once`: fire the last one for all; `all`: fire each, within the limits.
        limit: at most that many of one entry, the latest ones; for `all`.
        window_seconds: only those at most that old; for `once` and `all`; None for any age.
        grace_seconds: a slot that is later than that was missed; any younger one fires as usual.
    """

    rule: MisfireRule = "once"
    limit: int = 100
    window_seconds: float | None = None
    grace_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.rule not in _MISFIRE_RULES:
            raise ScheduleError("misfire", str(self.rule), ", ".join(_MISFIRE_RULES))
        if self.limit < 1:
            raise ScheduleError("misfire limit", str(self.limit), "1 or more")
        if self.grace_seconds < 0:
            raise ScheduleError("misfire grace", f"{self.grace_seconds:g} s", "0 s or more")
        if self.window_seconds is not None and self.window_seconds < 0:
            raise ScheduleError("misfire window", f"{self.window_seconds:g} s", "0 s or more")


_USUAL = Misfire()


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One schedule with its policies. What it fires is the caller's affair.

    Attributes:
        id: unique, kept for ever: it is part of every slot's message id.
        jitter_seconds: each slot fires up to that much later, by a delay that only its id decides,
            and always before the next slot.
        start, end: the slots from one on, and the other included.
        max_count: after that many firings there are no more.
        overlap: what happens when the firing before still runs: fire all the same (`allow`), not at all (`skip`),
            when it has ended, but one at most (`queue-one`), or at once, ending the other (`cancel`).
        overlap_limit_seconds: a firing of which nothing has been heard for so long counts as ended.
    """

    id: str
    schedule: Schedule
    misfire: Misfire = _USUAL
    overlap: Overlap = "allow"
    overlap_limit_seconds: float = 86400.0
    jitter_seconds: float = 0.0
    start: datetime | None = None
    end: datetime | None = None
    max_count: int | None = None

    def __post_init__(self) -> None:
        if not self.id or len(self.id) > 200 or not self.id.isprintable():
            raise ScheduleError("id of an entry", self.id, "1 to 200 printable characters")
        if self.overlap not in _OVERLAPS:
            raise ScheduleError("overlap", str(self.overlap), ", ".join(_OVERLAPS))
        if self.overlap_limit_seconds <= 0:
            raise ScheduleError("overlap limit", f"{self.overlap_limit_seconds:g} s", "more than 0 s")
        if self.jitter_seconds < 0:
            raise ScheduleError("jitter", f"{self.jitter_seconds:g} s", "0 s or more")
        if self.max_count is not None and self.max_count < 1:
            raise ScheduleError("count", str(self.max_count), "1 or more")
        if self.start is not None or self.end is not None:
            Window(self.schedule, self.start, self.end)  # checks them

    @property
    def slots(self) -> Schedule:
        """The schedule within start and end."""
        if self.start is None and self.end is None:
            return self.schedule
        return Window(self.schedule, self.start, self.end)

    def due_at(self, slot: datetime) -> datetime:
        """When `slot` is to fire: the slot itself, or its jitter later."""
        if not self.jitter_seconds:
            return slot
        digest = hashlib.sha256(f"{self.id}\n{slot.isoformat()}".encode()).digest()
        width = timedelta(seconds=self.jitter_seconds)
        following = self.slots.next_after(slot)
        if following is not None:
            width = min(width, following - slot)  # so that slots keep their order
        return slot + width * (int.from_bytes(digest[:8], "big") / 2**64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What is known of one entry: all that has to survive a restart.

    Attributes:
        decided: every slot up to here has its decision.
        anchor: of an interval that has none of its own.
        fired, skipped: numbers of slots.
        last_slot, last_at: of the last firing: its slot, and when it was decided.
        last_outcome, last_reason: of the last decision.
        paused: the note of the pause; None while not paused.
        queued: a slot that waits for the firing before to end.
        over: somebody has told that the last firing has ended; only with an overlap rule.
    """

    decided: datetime
    anchor: datetime | None = None
    fired: int = 0
    skipped: int = 0
    last_slot: datetime | None = None
    last_at: datetime | None = None
    last_outcome: str = ""
    last_reason: str = ""
    paused: str | None = None
    queued: datetime | None = None
    over: bool = False

    def last_id(self, entry_id: str) -> str:
        """The id of the message that the last firing sent; "" when there was none."""
        return "" if self.last_slot is None else message_id(entry_id, self.last_slot)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided of the slots of an entry from `first` to `last`; of a firing the two are one.

    Attributes:
        count: how many slots; None when nobody counted a long run of skipped ones.
        cancels: id of the message whose handling is to be ended first.
    """

    entry_id: str
    first: datetime
    last: datetime
    outcome: Outcome
    reason: str = ""
    count: int | None = 1
    cancels: str = ""

    @property
    def fires(self) -> bool:
        return self.outcome in ("fired", "caught up")

    @property
    def message_id(self) -> str:
        return message_id(self.entry_id, self.last)


def message_id(entry_id: str, slot: datetime, kind: str = "slot") -> str:
    """The id of the message that `slot` fires: the same from every process and version.

    Args:
        kind: `slot`; or what distinguishes a firing by hand (`trigger ...`, `backfill ...`) from it.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{entry_id}\n{slot.isoformat()}\n{kind}"))
