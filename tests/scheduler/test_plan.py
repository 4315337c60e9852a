"""Every slot gets exactly one decision, whoever looks and when; and each policy decides as it says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightbus_scheduler import Cron, Decision, Entry, Every, Misfire, Plan, Progress, between, message_id
from lightbus_scheduler.entries import Overlap
from lightbus_scheduler.plain import plain_progress, progress_from

T0 = datetime(2025, 3, 30, 0, 0, tzinfo=timezone.utc)
MODEST = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def seconds(n: float) -> datetime:
    return T0 + timedelta(seconds=n)


def plan_of(*entries: Entry, decided: datetime = T0) -> Plan:
    plan = Plan()
    for entry in entries:
        plan.put(entry, Progress(decided=decided))
    return plan


def decide(plan: Plan, now: datetime, watched_since: datetime = T0) -> list[Decision]:
    """All that is due, decided and counted."""
    every: list[Decision] = []
    while decisions := plan.due(now, watched_since=watched_since):
        for decision in decisions:
            plan.apply(decision, now)
        every += decisions
    return every


def brief(decisions: list[Decision]) -> list[tuple[str, float, float]]:
    return [(d.outcome, (d.first - T0).total_seconds(), (d.last - T0).total_seconds()) for d in decisions]


def every(period: float, **options: object) -> Entry:
    return Entry(id="e", schedule=Every(timedelta(seconds=period), T0), **options)  # type: ignore[arg-type]


@MODEST
@given(
    st.sampled_from([Misfire("skip"), Misfire("once"), Misfire("all", limit=3), Misfire("all", window_seconds=200)]),
    st.sampled_from([0.0, 20.0, 500.0]),
    st.lists(st.tuples(st.floats(0, 400), st.booleans(), st.booleans()), min_size=1, max_size=12),
)
def test_each_slot_gets_one_decision_whenever_somebody_wakes_and_whoever_starts_anew(
    misfire: Misfire, jitter: float, wakes: list[tuple[float, bool, bool]]
) -> None:
    """Wakes: seconds after the one before; whether that is a restart; whether nothing is recorded the first time."""
    entries = [
        Entry(id="interval", schedule=Every(timedelta(seconds=37), T0), misfire=misfire, jitter_seconds=jitter),
        Entry(id="cron", schedule=Cron("*/2 * * * *", "Europe/Berlin"), misfire=misfire, jitter_seconds=jitter),
    ]
    plan, now, watched = plan_of(*entries), T0, T0
    decided: Counter[tuple[str, datetime]] = Counter()
    for pause, restarts, fails in wakes:
        now += timedelta(seconds=pause)
        if restarts:
            kept = {entry.id: progress_from(plain_progress(plan.progress(entry.id))) for entry in entries}
            plan, watched = Plan(), now
            for entry in entries:
                plan.put(entry, kept[entry.id])
        if fails:
            plan.due(now, watched_since=watched)
        for decision in decide(plan, now, watched):
            slots = between(
                plan.entry(decision.entry_id).slots, decision.first - timedelta(microseconds=1), decision.last
            )
            decided.update((decision.entry_id, slot) for slot in slots)
    for entry in entries:
        expected = [slot for slot in between(entry.slots, T0, now) if entry.due_at(slot) <= now]
        assert sorted(slot for name, slot in decided if name == entry.id) == expected
    assert set(decided.values()) <= {1}


def test_the_same_message_id_from_every_version() -> None:
    assert message_id("report", T0) == "c19b97cf-3b85-5871-bc10-52a613c54e55"


def test_what_is_late_while_somebody_watches_fires_and_what_was_missed_follows_the_policy() -> None:
    late = decide(plan_of(every(100, misfire=Misfire("skip"))), seconds(350))
    assert brief(late) == [("fired", 100, 100), ("fired", 200, 200), ("fired", 300, 300)]
    missed = decide(plan_of(every(100, misfire=Misfire("skip"))), seconds(350), watched_since=seconds(350))
    assert brief(missed) == [("skipped", 100, 200), ("fired", 300, 300)]


@pytest.mark.parametrize(
    "misfire, expected",
    [
        (Misfire("skip"), [("skipped", 100, 900)]),
        (Misfire("once"), [("skipped", 100, 800), ("caught up", 900, 900)]),
        (Misfire("once", window_seconds=60), [("skipped", 100, 900)]),
        (Misfire("all", limit=2), [("skipped", 100, 700), ("caught up", 800, 800), ("caught up", 900, 900)]),
        (Misfire("all", window_seconds=200), [("skipped", 100, 700), ("caught up", 800, 800), ("caught up", 900, 900)]),
        (Misfire("skip", grace_seconds=99), [("skipped", 100, 800), ("fired", 900, 900)]),
    ],
)
def test_missed_slots(misfire: Misfire, expected: list[tuple[str, float, float]]) -> None:
    decisions = decide(plan_of(every(100, misfire=misfire)), seconds(990), watched_since=seconds(990))
    assert brief(decisions) == expected
    assert sum(d.count or 0 for d in decisions) == 9


def test_a_year_of_missed_seconds_is_decided_without_counting_them() -> None:
    plan = plan_of(every(1, misfire=Misfire("once")))
    now = T0 + timedelta(days=365, seconds=0.5)
    decisions = decide(plan, now, watched_since=now)
    assert [d.outcome for d in decisions] == ["skipped"] + ["fired"] * 60
    assert decisions[0].count is None
    assert decide(plan, now, watched_since=now) == []


def test_nothing_fires_again_when_the_clock_is_set_back() -> None:
    plan = plan_of(every(10))
    assert len(decide(plan, seconds(100))) == 10
    assert decide(plan, seconds(30)) == []
    assert brief(decide(plan, seconds(110))) == [("fired", 110, 110)]


def test_jitter_is_the_same_for_everybody_and_keeps_the_order_of_slots() -> None:
    entry = every(60, jitter_seconds=300)
    slots = list(between(entry.slots, T0, seconds(6000)))
    due = [entry.due_at(slot) for slot in slots]
    assert due == sorted(due)
    assert all(timedelta(0) <= at - slot < timedelta(seconds=60) for at, slot in zip(due, slots, strict=True))
    assert len({(at - slot) for at, slot in zip(due, slots, strict=True)}) > 90
    assert [entry.due_at(slot) for slot in slots] == due


def test_start_end_and_count_bound_the_slots() -> None:
    plan = plan_of(every(10, start=seconds(20), end=seconds(50), max_count=3))
    assert brief(decide(plan, seconds(100))) == [("fired", 20, 20), ("fired", 30, 30), ("fired", 40, 40)]
    assert plan.next_due() is None


def test_what_comes_due_in_a_pause_is_skipped_with_the_note() -> None:
    plan = plan_of(every(10))
    plan.set_progress("e", Progress(decided=T0, paused="moving house"))
    (decision,) = decide(plan, seconds(35))
    assert (decision.outcome, decision.reason, decision.count) == ("skipped", "paused: moving house", 3)


@pytest.mark.parametrize(
    "overlap, outcomes",
    [
        ("allow", ["fired", "fired", "fired"]),
        ("skip", ["fired", "skipped", "skipped"]),
        ("queue-one", ["fired", "queued", "skipped"]),
        ("cancel", ["fired", "fired", "fired"]),
    ],
)
def test_a_firing_that_still_runs(overlap: Overlap, outcomes: list[str]) -> None:
    plan, running = plan_of(every(10, overlap=overlap)), True
    seen: list[Decision] = []
    for n in (10, 20, 30):
        for decision in plan.due(seconds(n), watched_since=T0, is_running=lambda entry, message: running):
            plan.apply(decision, seconds(n))
            seen.append(decision)
    assert [d.outcome for d in seen] == outcomes
    if overlap == "cancel":
        assert seen[1].cancels == seen[0].message_id
    running = False
    after = plan.due(seconds(31), watched_since=T0, is_running=lambda entry, message: running)
    assert brief(after) == ([("fired", 20, 20)] if overlap == "queue-one" else [])


def test_a_firing_that_is_known_to_be_over_or_not_heard_of_for_too_long_holds_up_nothing() -> None:
    plan = plan_of(every(10, overlap="skip", overlap_limit_seconds=25))
    outcomes = []
    for n in range(10, 100, 10):
        for decision in plan.due(seconds(n), watched_since=T0, is_running=lambda entry, message: True):
            progress = plan.apply(decision, seconds(n))
            outcomes.append(decision.outcome)
            if n >= 60:
                plan.set_progress("e", replace(progress, over=True))
    assert outcomes == ["fired", "skipped", "skipped", "fired", "skipped", "skipped", "fired", "fired", "fired"]


def test_an_entry_replaced_or_removed_leaves_no_old_slot_behind() -> None:
    plan = plan_of(every(10), Entry(id="other", schedule=Every(timedelta(seconds=7), T0)))
    plan.put(every(100), Progress(decided=T0))
    plan.remove("other")
    assert brief(decide(plan, seconds(150))) == [("fired", 100, 100)]
