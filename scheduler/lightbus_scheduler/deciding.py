"""What is decided of the slots of one entry that are due, by its policies, and what is known of it afterwards. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from .entries import Decision, Entry, Outcome, Progress, message_id
from .kinds import between, last_between

#: Entry id and message id to: may that message still be waiting or being handled? False only when it surely is not.
IsRunning = Callable[[str, str], bool]

#: More skipped slots than that in a row are not counted one by one.
_COUNTED = 1000
_BLINK = timedelta(microseconds=1)


def nothing_runs(entry_id: str, message_id: str) -> bool:
    return False


def decide(
    entry: Entry, progress: Progress, now: datetime, watched_since: datetime, is_running: IsRunning
) -> list[Decision]:
    """Decisions for all slots of one entry that are due at `now`.

    Args:
        watched_since: as of `Plan.due`.
    """
    last = _last_due(entry, progress.decided, now)
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
        decisions = _without_overlap(entry, progress, decisions, now, is_running)
    return decisions


def _last_due(entry: Entry, decided: datetime, now: datetime) -> datetime | None:
    """The last slot whose time has come; with jitter that of the last one may be still ahead."""
    last = last_between(entry.slots, decided, now)
    if last is not None and entry.jitter_seconds and entry.due_at(last) > now:
        return last_between(entry.slots, decided, last - _BLINK)
    return last


def may_run(entry: Entry, progress: Progress, now: datetime, is_running: IsRunning) -> bool:
    """Whether the last firing may still be waiting or being handled."""
    if progress.last_slot is None or progress.over:
        return False
    if progress.last_at is not None and now - progress.last_at > timedelta(seconds=entry.overlap_limit_seconds):
        return False
    return is_running(entry.id, progress.last_id(entry.id))


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
        last_at=at,
        over=False,
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
    entry: Entry, progress: Progress, decisions: list[Decision], now: datetime, is_running: IsRunning
) -> list[Decision]:
    """Of several firings at once the first counts as running when the next is looked at."""
    kept: list[Decision] = []
    running_id = progress.last_id(entry.id) if may_run(entry, progress, now, is_running) else ""
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
