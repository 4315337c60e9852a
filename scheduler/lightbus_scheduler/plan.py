"""Which slots are due, and what is decided of each: exactly one decision per slot, whoever looks and however often.

Pure: the moment comes in, decisions come out. `due` changes nothing; a decision counts when it is passed to `apply`,
which the caller does once it is recorded. So a decision that could not be recorded is made again, and none is lost.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

from .cron import Cron
from .entries import Decision, Entry, Outcome, Progress, message_id
from .kinds import Every, Schedule, between, last_between

IsRunning = Callable[[str, str], bool]  #: entry id and message id to: is that message still waiting or being handled?

#: More skipped slots than that in a row are not counted one by one.
_COUNTED = 1000
_BLINK = timedelta(microseconds=1)


def nothing_runs(entry_id: str, message_id: str) -> bool:
    return False


class Plan:
    """The entries, their progress, and the order in which they come due. Not for several threads at a time."""

    def __init__(self) -> None:
        self._given: dict[str, Entry] = {}  # as they came, and with an anchor where they had none
        self._entries: dict[str, Entry] = {}
        self._progress: dict[str, Progress] = {}
        self._next: dict[str, tuple[datetime, datetime]] = {}  # entry id to when it is due, and its slot
        self._heap: list[tuple[datetime, str]] = []
        self._queued: set[str] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._entries

    def entry(self, entry_id: str) -> Entry:
        return self._entries[entry_id]

    def entries(self) -> Iterator[Entry]:
        yield from self._entries.values()

    def progress(self, entry_id: str) -> Progress:
        return self._progress[entry_id]

    def holds(self, entry: Entry, progress: Progress) -> bool:
        """Whether exactly this entry stands here with exactly this progress."""
        known = self._given.get(entry.id)
        return known is not None and known == entry and self._progress[entry.id] == progress

    def next_slot(self, entry_id: str) -> tuple[datetime, datetime] | None:
        """When the entry is due next, and the slot; None when never, or while it is paused."""
        return None if self._progress[entry_id].paused is not None else self._next.get(entry_id)

    def put(self, entry: Entry, progress: Progress) -> Progress:
        """Add an entry, or replace the one of the same id. Returns its progress, with an anchor if it needs one."""
        self._given[entry.id] = entry
        schedule = entry.schedule
        if isinstance(schedule, Every) and schedule.anchor is None:
            anchor = progress.anchor or progress.decided
            progress = replace(progress, anchor=anchor)
            entry = replace(entry, schedule=schedule.anchored(anchor))
        self._entries[entry.id] = entry
        self._set(entry.id, progress)
        return progress

    def remove(self, entry_id: str) -> None:
        del self._given[entry_id], self._entries[entry_id], self._progress[entry_id]
        self._next.pop(entry_id, None)
        self._queued.discard(entry_id)

    def next_due(self) -> datetime | None:
        """When something is due next; None when nothing ever is."""
        while self._heap:
            due, entry_id = self._heap[0]
            if self._is_current(due, entry_id):
                return due
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
            progress = self._progress[entry_id]
            if progress.queued is None or progress.paused is not None:
                continue
            if not is_running(entry_id, progress.last_id):
                decisions.append(Decision(entry_id, progress.queued, progress.queued, "fired", "queued until now"))
        settled = {decision.entry_id for decision in decisions}
        kept: list[tuple[datetime, str]] = []
        while len(decisions) < limit and (due := self.next_due()) is not None and due <= now:
            entry_id = heapq.heappop(self._heap)[1]
            kept.append((due, entry_id))
            if entry_id not in settled:  # its queued slot first, and what came due since by the next call
                decisions += self._decide(self._entries[entry_id], now, watched_since, is_running)
            settled.add(entry_id)
        for item in kept:
            heapq.heappush(self._heap, item)
        return decisions

    def apply(self, decision: Decision, at: datetime) -> Progress:
        """Count a decision as made. Returns the progress of its entry."""
        progress = advanced(self._progress[decision.entry_id], decision, at)
        self._set(decision.entry_id, progress)
        return progress

    def set_progress(self, entry_id: str, progress: Progress) -> None:
        """Replace what is known of an entry: it was paused, or somebody else decided."""
        self._set(entry_id, progress)

    def _set(self, entry_id: str, progress: Progress) -> None:
        entry = self._entries[entry_id]
        self._progress[entry_id] = progress
        (self._queued.add if progress.queued is not None else self._queued.discard)(entry_id)
        slot = None if is_finished(entry, progress) else _next_slot(entry.slots, progress.decided)
        if slot is None:
            self._next.pop(entry_id, None)
            return
        due = entry.due_at(slot)
        before = self._next.get(entry_id)
        self._next[entry_id] = (due, slot)
        if before is None or before[0] != due:
            heapq.heappush(self._heap, (due, entry_id))

    def _is_current(self, due: datetime, entry_id: str) -> bool:
        """Whether the heap's item still says when the entry is due; it stays there when the entry changes."""
        current = self._next.get(entry_id)
        return current is not None and current[0] == due

    def _decide(self, entry: Entry, now: datetime, watched_since: datetime, is_running: IsRunning) -> list[Decision]:
        """Decisions for all slots of one entry that are due."""
        progress = self._progress[entry.id]
        last = self._last_due(entry, progress.decided, now)
        if last is None:
            return []
        if progress.paused is not None:
            reason = f"paused: {progress.paused}" if progress.paused else "paused"
            return [_skipped(entry, progress.decided, last, reason)]
        on_time_after = min(now - timedelta(seconds=entry.misfire.grace_seconds), watched_since) - _BLINK
        missed = last_between(entry.slots, progress.decided, min(on_time_after, last))
        decisions: list[Decision] = []
        if missed is not None:
            more = missed < last
            decisions += _for_missed(entry, progress.decided, missed, now, on_time_follows=more)
        after = progress.decided if missed is None else missed
        decisions += [Decision(entry.id, slot, slot, "fired") for slot in between(entry.slots, after, last)]
        decisions = _within_count(entry, progress, decisions)
        if entry.overlap != "allow":
            decisions = _without_overlap(entry, progress, decisions, is_running)
        return decisions

    def _last_due(self, entry: Entry, decided: datetime, now: datetime) -> datetime | None:
        """The last slot whose time has come; with jitter that of the last one may be still ahead."""
        last = last_between(entry.slots, decided, now)
        if last is not None and entry.jitter_seconds and entry.due_at(last) > now:
            return last_between(entry.slots, decided, last - _BLINK)
        return last


def _next_slot(schedule: Schedule, moment: datetime) -> datetime | None:
    return _next_of_cron(schedule, moment) if isinstance(schedule, Cron) else schedule.next_after(moment)


@lru_cache(maxsize=8192)  # thousands of entries share their expressions, and at a start their moment, too
def _next_of_cron(cron: Cron, moment: datetime) -> datetime | None:
    return cron.next_after(moment)


def is_finished(entry: Entry, progress: Progress) -> bool:
    """Whether the entry has fired as often as it may."""
    return entry.max_count is not None and progress.fired >= entry.max_count


def advanced(progress: Progress, decision: Decision, at: datetime) -> Progress:
    """The progress after a decision."""
    progress = replace(
        progress,
        decided=max(progress.decided, decision.last),
        queued=decision.last if decision.outcome == "queued" else progress.queued,
        last_outcome=decision.outcome,
        last_reason=decision.reason,
    )
    if decision.outcome == "skipped":
        return replace(progress, skipped=progress.skipped + (decision.count or 0))
    if not decision.fires:
        return progress
    return replace(
        progress,
        fired=progress.fired + 1,
        last_slot=decision.last,
        last_id=decision.message_id,
        last_at=at,
        queued=None if progress.queued == decision.last else progress.queued,
    )


def _skipped(entry: Entry, after: datetime, last: datetime, reason: str) -> Decision:
    first, count = last, 0
    for slot in between(entry.slots, after, last):
        first, count = min(first, slot), count + 1
        if count > _COUNTED:
            return Decision(entry.id, first, last, "skipped", reason, None)
    return Decision(entry.id, first, last, "skipped", reason, count)


def _for_missed(
    entry: Entry, after: datetime, missed: datetime, now: datetime, *, on_time_follows: bool
) -> list[Decision]:
    """Decisions for the slots in (after, missed], of which `missed` is the last.

    Args:
        on_time_follows: a later slot fires anyway; for `once` it stands for the missed ones.
    """
    rule = entry.misfire
    if rule.rule == "skip":
        return [_skipped(entry, after, missed, "missed")]
    oldest = after
    if rule.window_seconds is not None:
        oldest = max(after, now - timedelta(seconds=rule.window_seconds) - _BLINK)
    if rule.rule == "once":
        if on_time_follows or missed <= oldest:
            return [_skipped(entry, after, missed, "missed; a later one fires" if on_time_follows else "too old")]
        chosen = [missed]
    else:
        chosen = _latest(entry, oldest, missed, rule.limit)
    decisions: list[Decision] = []
    last_skipped = last_between(entry.slots, after, (chosen[0] if chosen else missed + _BLINK) - _BLINK)
    if last_skipped is not None:
        reason = "too old" if last_skipped <= oldest else "missed; a later one fires"
        decisions.append(_skipped(entry, after, last_skipped, reason))
    return decisions + [Decision(entry.id, slot, slot, "caught up", "missed") for slot in chosen]


def _latest(entry: Entry, after: datetime, last: datetime, limit: int) -> list[datetime]:
    """Up to `limit` slots in (after, last], the latest ones, ascending."""
    found: list[datetime] = []
    bound = last
    while len(found) < limit:
        slot = last_between(entry.slots, after, bound)
        if slot is None:
            break
        found.append(slot)
        bound = slot - _BLINK
    return found[::-1]


def _within_count(entry: Entry, progress: Progress, decisions: list[Decision]) -> list[Decision]:
    """Without the firings that the entry's count has no room for: after the last one there are no slots."""
    if entry.max_count is None:
        return decisions
    left = entry.max_count - progress.fired - (progress.queued is not None)
    kept: list[Decision] = []
    for decision in decisions:
        if decision.fires:
            if left <= 0:
                break
            left -= 1
        kept.append(decision)
    return kept


def _without_overlap(
    entry: Entry, progress: Progress, decisions: list[Decision], is_running: IsRunning
) -> list[Decision]:
    """Of several firings at once the first counts as running when the next is looked at."""
    kept: list[Decision] = []
    running_id = progress.last_id if progress.last_id and is_running(entry.id, progress.last_id) else ""
    has_queued = progress.queued is not None
    for decision in decisions:
        if decision.fires and (running_id or has_queued):
            outcome: Outcome = "skipped"
            reason, cancels = f"{running_id or 'the one before'} still runs", ""
            if entry.overlap == "cancel":
                outcome, reason, cancels = decision.outcome, "in place of the one before", running_id
            elif entry.overlap == "queue-one" and not has_queued:
                outcome, has_queued = "queued", True
            decision = replace(decision, outcome=outcome, reason=reason, cancels=cancels)
        if decision.fires:
            running_id = message_id(entry.id, decision.last)
        kept.append(decision)
    return kept
