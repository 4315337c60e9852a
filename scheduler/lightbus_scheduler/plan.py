"""Which slots are due, and what is decided of each: exactly one decision per slot, whoever looks and however often.

Pure: the moment comes in, decisions come out. `due` changes nothing; a decision counts when it is passed to `apply`,
which the caller does once it is recorded. So a decision that could not be recorded is made again, and none is lost.

One entry costs one small object and some bytes here, since there may be hundreds of thousands.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from .cron import Cron
from .deciding import IsRunning, advanced, decide, is_finished, may_run, nothing_runs
from .entries import Decision, Entry, Progress
from .kinds import Every, Schedule
from .packed import pack, unpack

ReadEntry = Callable[[bytes], Entry]  #: makes an entry of the text in whose form it is kept

_MOST_EXPRESSIONS = 8192  #: whose next slots are remembered


class _Row:
    """What stands here of one entry. While it lies on the heap, `due` stays; another row takes its place instead."""

    __slots__ = ("due", "given", "id", "packed", "slot")

    def __init__(self, entry_id: str, given: Entry | bytes) -> None:
        self.id = entry_id
        self.given = given  #: as it came; a text is read whenever the entry is needed
        self.packed = b""  #: the progress
        self.due: datetime | None = None  #: None: never, and it is not on the heap
        self.slot: datetime | None = None

    @property
    def progress(self) -> Progress:
        return unpack(self.packed)

    def __lt__(self, other: _Row) -> bool:
        if self.due == other.due:
            return self.id < other.id
        return self.due < other.due  # type: ignore[operator]  # on the heap all are due some time


def _none_is_text(text: bytes) -> Entry:
    raise TypeError("this plan was made without a way to read the text of an entry")


class Plan:
    """The entries, their progress, and the order in which they come due. Not for several threads at a time.

    Args:
        read: for entries that are put here as text.
    """

    def __init__(self, read: ReadEntry = _none_is_text) -> None:
        self._read = read
        self._rows: dict[str, _Row] = {}
        self._heap: list[_Row] = []  # with rows that have been replaced, until they come to its top
        self._queued: set[str] = set()
        self._slots = _NextSlots()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._rows

    def __iter__(self) -> Iterator[str]:
        """The ids of the entries."""
        return iter(self._rows)

    def given(self, entry_id: str) -> Entry | bytes:
        """The entry as it was put here."""
        return self._rows[entry_id].given

    def entry(self, entry_id: str) -> Entry:
        """The entry, with an anchor where it had none."""
        row = self._rows[entry_id]
        return self._anchored(row.given, row.progress)

    def progress(self, entry_id: str) -> Progress:
        return self._rows[entry_id].progress

    def holds(self, entry_id: str, given: Entry | bytes, progress: Progress) -> bool:
        """Whether exactly this entry stands here with exactly this progress."""
        row = self._rows.get(entry_id)
        return row is not None and row.given == given and row.packed == pack(progress)

    def next_slot(self, entry_id: str) -> tuple[datetime, datetime] | None:
        """When the entry is due next, and the slot; None when never, or while it is paused."""
        row = self._rows[entry_id]
        return None if row.due is None or row.slot is None or row.progress.paused is not None else (row.due, row.slot)

    def put(self, entry: Entry, progress: Progress, text: bytes | None = None) -> Progress:
        """Add an entry, or replace the one of the same id.

        Args:
            text: what the plan's `read` makes the entry of; it is kept in the entry's place and takes less room.

        Returns:
            Its progress, with an anchor if it needs one.
        """
        if isinstance(entry.schedule, Every) and entry.schedule.anchor is None and progress.anchor is None:
            progress = replace(progress, anchor=progress.decided)
        given = entry if text is None else text
        row = self._rows.get(entry.id)
        if row is None:
            self._rows[entry.id] = _Row(entry.id, given)
        else:
            row.given = given
        self._set(entry.id, progress, self._anchored(entry, progress))
        return progress

    def remove(self, entry_id: str) -> None:
        del self._rows[entry_id]
        self._queued.discard(entry_id)

    def next_due(self) -> datetime | None:
        """When something is due next; None when nothing ever is."""
        while self._heap:
            row = self._heap[0]
            if self._rows.get(row.id) is row:
                return row.due
            heapq.heappop(self._heap)
        return None

    @property
    def waits_for_an_end(self) -> bool:
        """Whether a queued firing waits until another has ended, so that `due` is worth a call at any time."""
        return bool(self._queued)

    def due(
        self,
        now: datetime,
        *,
        watched_since: datetime,
        is_running: IsRunning = nothing_runs,
        limit: int = 1000,
    ) -> list[Decision]:
        """Decisions for what is due at `now`, the entry that waits longest first.

        Args:
            watched_since: somebody has been ready to fire since then. A slot from then on is late, because a broker
                was away or a process slow, and fires; an older one was missed, and its policy decides.
            limit: stop after about that many decisions; the rest is given by the next call.
        """
        decisions: list[Decision] = []
        for entry_id in sorted(self._queued):
            progress = self._rows[entry_id].progress
            if progress.queued is None or progress.paused is not None:
                continue
            if not may_run(self.entry(entry_id), progress, now, is_running):
                decisions.append(Decision(entry_id, progress.queued, progress.queued, "fired", "queued until now"))
        settled = {decision.entry_id for decision in decisions}
        kept: list[_Row] = []
        while len(decisions) < limit and (due := self.next_due()) is not None and due <= now:
            row = heapq.heappop(self._heap)
            kept.append(row)
            if row.id not in settled:  # its queued slot first, and what came due since by the next call
                progress = row.progress
                decisions += decide(self._anchored(row.given, progress), progress, now, watched_since, is_running)
            settled.add(row.id)
        for row in kept:
            heapq.heappush(self._heap, row)
        return decisions

    def apply(self, decision: Decision, at: datetime) -> Progress:
        """Count a decision as made. Returns the progress of its entry."""
        progress = advanced(self._rows[decision.entry_id].progress, decision, at)
        self.set_progress(decision.entry_id, progress)
        return progress

    def set_progress(self, entry_id: str, progress: Progress) -> None:
        """Replace what is known of an entry: it was paused, or somebody else decided."""
        self._set(entry_id, progress, self._anchored(self._rows[entry_id].given, progress))

    def _set(self, entry_id: str, progress: Progress, entry: Entry) -> None:
        row = self._rows[entry_id]
        if progress.queued is not None:
            self._queued.add(entry_id)
        elif self._queued:
            self._queued.discard(entry_id)
        slot = None if is_finished(entry, progress) else self._slots.after(entry.slots, progress.decided)
        due = slot if slot is None or not entry.jitter_seconds else entry.due_at(slot)
        if row.due is not None and due != row.due:  # it lies on the heap, in the place of another moment
            row = self._rows[entry_id] = _Row(entry_id, row.given)
        is_new = row.due is None
        row.packed, row.due, row.slot = pack(progress), due, due if due == slot else slot
        if is_new and due is not None:
            heapq.heappush(self._heap, row)

    def _anchored(self, given: Entry | bytes, progress: Progress) -> Entry:
        entry = self._read(given) if isinstance(given, bytes) else given
        schedule = entry.schedule
        if isinstance(schedule, Every) and schedule.anchor is None and progress.anchor is not None:
            return replace(entry, schedule=schedule.anchored(progress.anchor))
        return entry


class _NextSlots:
    """The next slots of cron expressions. Looking for one costs 0.03 to 1 ms, and thousands of entries share theirs.

    What was found for one moment holds for each between it and the slot.
    """

    def __init__(self) -> None:
        self._found: dict[Cron, tuple[datetime, datetime | None]] = {}

    def after(self, schedule: Schedule, moment: datetime) -> datetime | None:
        if not isinstance(schedule, Cron):
            return schedule.next_after(moment)
        if (found := self._found.get(schedule)) is not None:
            since, slot = found
            if since <= moment and (slot is None or moment < slot):
                return slot
        moment = moment.replace(microsecond=0)  # these slots are whole seconds
        slot = schedule.next_after(moment)
        if len(self._found) >= _MOST_EXPRESSIONS:
            self._found.clear()
        # entries of one expression come in any order at a start, and each may be decided a little earlier
        is_same = found is not None and found[1] == slot
        self._found[schedule] = (min(moment, found[0]) if is_same and found is not None else moment, slot)
        return slot
