"""Several runners on one store: each slot is sent once, through every death, outage and set clock."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightbus_scheduler import Entry, Every, Firing, Job, Misfire, Progress, Runner, between, message_id
from lightbus_scheduler import new_command as command
from lightbus_scheduler.plain import Plain, entry_from

T0 = datetime(2025, 3, 30, 0, 0, tzinfo=timezone.utc)


class Away(Exception):
    pass


class Clock:
    """One machine's; `skew` is what its wall clock is wrong by."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.skew = 0.0

    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.passed + self.skew)

    def monotonic(self) -> float:
        return self.passed


@dataclass
class Broker:
    """What survives: records, messages, commands, and who leads."""

    records: dict[str, Plain] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    waiting: dict[str, Plain] = field(default_factory=dict)
    leader: object = None
    terms: int = 0
    away: bool = False
    fails: str = ""  #: how the next commit goes wrong: `before` it is carried out, or `after`


class Store:
    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def lead(self) -> str:
        if self.broker.away:
            raise Away("the broker is away")
        if self.broker.leader is None:
            self.broker.leader, self.broker.terms = self, self.broker.terms + 1
        return str(self.broker.terms) if self.broker.leader is self else ""

    def load(self) -> Iterator[tuple[str, Plain]]:
        yield from list(self.broker.records.items())

    def commands(self) -> Sequence[tuple[str, Plain]]:
        return list(self.broker.waiting.items())

    def commit(self, records: Mapping[str, Plain | None], messages: Sequence[str], done: Sequence[str] = ()) -> None:
        fails, self.broker.fails = self.broker.fails, ""
        if fails == "before" or self.broker.away or self.broker.leader is not self:
            raise Away("not carried out")
        for entry_id, record in records.items():
            if record is None:
                self.broker.records.pop(entry_id, None)
            else:
                self.broker.records[entry_id] = record
        self.broker.sent += messages
        for tag in done:
            del self.broker.waiting[tag]
        if fails == "after":
            raise Away("carried out, and the answer was lost")

    def resign(self) -> None:
        if self.broker.leader is self:
            self.broker.leader = None


def job_of(definition: Plain) -> Job:
    return Job(entry_from(definition), None, "stored", definition)


def runner(broker: Broker, clock: Clock, *entries: Entry, seeds: Mapping[str, Progress] | None = None) -> Runner[str]:
    def make(firing: Firing) -> Sequence[str]:
        if firing.job.entry.id == "broken":
            raise ValueError("no such task")
        return [firing.message_id]

    return Runner(
        [Job(entry, None) for entry in entries], Store(broker), make, clock, job_of, (Away,), seeds=seeds or {}
    )  # fmt: skip


def run(one: Runner[str], clock: Clock, seconds: float) -> None:
    """Let a runner do as it likes for that long."""
    end = clock.passed + seconds
    while clock.passed < end:
        clock.passed = min(end, clock.passed + (one.step() or 0.001))
    one.step()


def every(period: float, entry_id: str = "e", **options: object) -> Entry:
    return Entry(id=entry_id, schedule=Every(timedelta(seconds=period), T0), **options)  # type: ignore[arg-type]


def ids(entry: Entry, until: float, after: float = 0.0) -> list[str]:
    span = T0 + timedelta(seconds=after), T0 + timedelta(seconds=until)
    return [message_id(entry.id, slot) for slot in between(entry.slots, *span)]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["step", "step", "step", "kill", "freeze", "lost lead", "away", "back", "before", "after"]),
            st.integers(0, 2),
            st.floats(0, 5),
        ),
        max_size=60,
    )
)
def test_each_slot_is_sent_once_through_deaths_freezes_and_outages(events: list[tuple[str, int, float]]) -> None:
    """Three runners on machines whose clocks are up to 5 s apart; one that was frozen still believes that it leads."""
    entries = [every(7, "sevens", misfire=Misfire("all")), every(11, "elevens", misfire=Misfire("all"))]
    broker, clocks = Broker(), [Clock(), Clock(), Clock()]
    for clock, skew in zip(clocks, (0.0, 2.5, -2.5), strict=True):
        clock.skew = skew
    runners = [runner(broker, clock, *entries) for clock in clocks]
    for event, number, seconds in [("step", 2, 0.0), *events, ("back", 0, 0), *[("step", n, 10.0) for n in (0, 1, 2)]]:
        for clock in clocks:
            clock.passed += seconds
        match event:
            case "step":
                runners[number].step()
            case "kill":
                runners[number].store.resign()
                runners[number] = runner(broker, clocks[number], *entries)
            case "freeze" | "lost lead":
                broker.leader = None  # the others may lead; this one is not told
            case "away" | "back":
                broker.away = event == "away"
            case _:
                broker.fails = event
    for one in runners:
        for _ in range(20):
            one.step()
    sent = Counter(broker.sent)
    assert set(sent.values()) <= {1}
    for entry in entries:
        until = (datetime.fromisoformat(str(broker.records[entry.id]["decided"])) - T0).total_seconds()
        assert set(ids(entry, until, -2.5)) == set(sent) & set(ids(entry, 10_000, -10))


def test_an_outage_of_the_broker_delays_firings_and_drops_none() -> None:
    broker, clock, entry = Broker(), Clock(), every(1, misfire=Misfire("skip", grace_seconds=5))
    one = runner(broker, clock, entry)
    run(one, clock, 3.5)
    broker.away = True
    run(one, clock, 60)
    assert len(broker.sent) == 3
    broker.away = False
    run(one, clock, 1)
    assert broker.sent == ids(entry, 64)


def test_a_clock_set_back_fires_nothing_again_and_one_set_forward_follows_the_policy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, clock, entry = Broker(), Clock(), every(10, misfire=Misfire("once"))
    one = runner(broker, clock, entry)
    run(one, clock, 105)
    clock.skew = -50
    run(one, clock, 40)
    assert broker.sent == ids(entry, 100)
    clock.skew = 3600
    run(one, clock, 1)
    assert "jumped by -50" in caplog.text
    assert "jumped by +3650" in caplog.text
    fired = ids(entry, 3600 + 145)
    assert broker.sent == [*ids(entry, 100), *fired[-6:]]  # the last minute is not missed yet, and stands for the rest


def test_an_interval_goes_on_through_restarts_that_come_more_often_than_it() -> None:
    broker, clock = Broker(), Clock()
    entry = Entry(id="e", schedule=Every(timedelta(seconds=100)))
    for _ in range(25):
        run(runner(broker, clock, entry), clock, 13)
        broker.leader = None
    assert broker.sent == [message_id("e", T0 + timedelta(seconds=n)) for n in (100, 200, 300)]


def test_what_another_scheduler_has_done_is_taken_over_so_that_no_interval_begins_anew() -> None:
    broker, clock = Broker(), Clock()
    entry = Entry(id="e", schedule=Every(timedelta(seconds=100)))
    seeds = {"e": Progress(decided=T0 - timedelta(seconds=70))}
    run(runner(broker, clock, entry, seeds=seeds), clock, 140)
    assert broker.sent == [message_id("e", T0 + timedelta(seconds=n)) for n in (30, 130)]


def test_an_entry_that_cannot_be_sent_is_skipped_with_the_reason_and_holds_up_no_other() -> None:
    broker, clock, entry = Broker(), Clock(), every(10)
    run(runner(broker, clock, every(10, "broken"), entry), clock, 25)
    assert broker.sent == ids(entry, 25)
    assert broker.records["broken"]["last_reason"] == "cannot be sent: no such task"


def test_commands_change_the_schedule_once_and_survive_the_leader() -> None:
    broker, clock, entry = Broker(), Clock(), every(10)
    one = runner(broker, clock, entry)
    run(one, clock, 5)
    definition = {"id": "new", "every_seconds": 4, "anchor": T0.isoformat()}
    broker.waiting = {
        "1": command("pause", "e", note="moving"),
        "2": command("add", "new", definition=definition),
        "3": command("trigger", "new"),
        "4": command("backfill", "e", after=(T0 - timedelta(seconds=30)).isoformat(), until=T0.isoformat()),
        "5": command("rm", "nobody"),
    }
    broker.fails = "after"  # of the first: it is carried out, and nobody knows
    run(one, clock, 8)
    assert not broker.waiting
    new = Entry(id="new", schedule=Every(timedelta(seconds=4), T0))
    assert len(broker.sent) == 1 + 3 + 2
    assert broker.sent[-2:] == ids(new, 13, 5)
    other = runner(broker, clock, entry)
    broker.leader = None
    broker.waiting = {"6": command("resume", "e"), "7": command("rm", "e")}
    run(other, clock, 9)
    assert broker.sent[6:] == [
        *ids(new, 16.1, 13),
        *sorted([*ids(entry, 20.1, 19), *ids(new, 20.1, 17)], key=broker.sent.index),
    ]
    assert "paused" not in broker.records["e"]
    assert broker.records["new"]["definition"] == definition


def test_what_is_told_of_ends_outlives_the_leader_and_lets_the_next_slot_fire() -> None:
    broker, clock, entry = Broker(), Clock(), every(10, overlap="queue-one")
    one = runner(broker, clock, entry, every(1000, "other"))
    run(one, clock, 35)
    first, second = ids(entry, 20)
    assert one.looks_at_ends
    assert broker.sent == [first]  # the second waits, the third is skipped
    broker.fails = "before"
    assert not one.note_ends([("e", first)])
    run(one, clock, 0.5)
    assert broker.sent == [first]  # nobody knows of it, as the broker was away: it has to be told again
    assert one.note_ends([("e", "another"), ("nobody", first), ("e", first)])
    broker.leader = None
    other = runner(broker, clock, entry)
    run(other, clock, 0.5)
    assert broker.sent == [first, second]
    assert not runner(broker, clock, every(10, "plain")).looks_at_ends


def test_a_decision_far_ahead_of_the_clock_is_told_and_can_be_taken_back(caplog: pytest.LogCaptureFixture) -> None:
    broker, clock, entry = Broker(), Clock(), every(10)
    broker.records["e"] = {"decided": (T0 + timedelta(days=365)).isoformat()}
    one = runner(broker, clock, entry)
    run(one, clock, 15)
    assert broker.sent == []
    assert "was the clock ahead?" in caplog.text
    broker.waiting["1"] = command("rewind", "e")
    run(one, clock, 10)
    assert broker.sent == ids(entry, 25, 15)


def test_a_stored_entry_stands_as_text_in_little_room_and_is_read_when_it_is_due() -> None:
    broker, clock, reads = Broker(), Clock(), Counter[str]()

    def read(definition: Plain) -> Job:
        reads[definition["id"]] += 1
        return job_of(definition)

    for number in range(2000):
        cron = "0 0 30 3 *" if number == 7 else f"{number % 10} 5 29 2 *"
        definition = {"id": f"entry-{number}", "cron": cron, "tz": "UTC", "task": "proj.tasks.report"}
        broker.records[definition["id"]] = {"decided": T0.isoformat(), "definition": definition}
    broker.records["entry-7"] = {**broker.records["entry-7"], "decided": (T0 - timedelta(seconds=1)).isoformat()}
    one = Runner([], Store(broker), lambda firing: [firing.message_id], clock, read, (Away,))
    gc.collect()
    tracemalloc.start()
    try:
        run(one, clock, 0.01)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert broker.sent == [message_id("entry-7", T0)]
    assert reads == Counter({f"entry-{number}": 1 for number in range(2000)}) + Counter({"entry-7": 1})
    assert taken / 2000 < 700  # bytes; parsed and held with what it fires it would be several times as much


def test_a_take_over_keeps_the_term_up_and_notes_what_is_new_while_it_reads() -> None:
    broker, clock = Broker(), Clock()
    entries = [every(1000 + number, f"e{number}") for number in range(1200)]
    one = runner(broker, clock, *entries)
    written: list[int] = []
    commit = one.store.commit

    def noting(records: Mapping[str, Plain | None], messages: Sequence[str], done: Sequence[str] = ()) -> None:
        written.append(len(records))
        commit(records, messages, done)
        if len(written) == 2:
            broker.leader = None  # the term ends in the middle

    one.store.commit = noting  # type: ignore[method-assign]
    run(one, clock, 1)
    assert one.leading
    assert sum(written) == len(broker.records) == 1200
    assert max(written) <= 500
    assert len(written) >= 3


def test_a_kept_definition_of_another_entry_is_left_out_and_nothing_is_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, clock = Broker(), Clock()
    record = {"decided": T0.isoformat(), "definition": {"id": "other", "every_seconds": 1}}
    broker.records["e"] = record
    run(runner(broker, clock), clock, 5)
    assert "stored entry 'e' is left out" in caplog.text
    assert (broker.records, broker.sent) == ({"e": record}, [])


def test_a_slow_process_commits_what_it_has_made_before_its_lease_ends() -> None:
    """A batch that takes longer than the lease would be refused, made again, and refused again for ever."""
    broker, clock = Broker(), Clock()
    entries = [every(60, f"e{number:02}") for number in range(40)]
    one = runner(broker, clock, *entries)
    one.step()
    quick, sizes = one.make, []

    def make(firing: Firing) -> Sequence[str]:
        clock.passed += 0.05  # of a lease of a second
        return quick(firing)

    one.make = make
    clock.passed += 61
    while len(broker.sent) < len(entries):
        before, began = len(broker.sent), clock.passed
        one.step()
        sizes.append(len(broker.sent) - before)
        assert clock.passed - began <= 0.3
    assert sorted(broker.sent) == sorted(ids(entry, clock.passed)[-1] for entry in entries)
    assert min(sizes) >= 1
