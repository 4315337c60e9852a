"""How many messages a process holds: the policy, and what it does to the messages behind a long handler."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightbus import Api, Bus, Event
from lightbus.testing.bench import eventually
from lightbus.worker import WorkerOptions
from lightbus.worker.prefetch import BUFFER_BYTES, MOST, AdaptivePrefetch, Load, Pace
from tests.runtime.workers import working

SECONDS = st.floats(min_value=1e-6, max_value=1e5)
SLOTS = st.integers(min_value=1, max_value=200)


def settled(policy: AdaptivePrefetch, current: int, pace: Pace) -> int:
    """Where the policy comes to rest."""
    for _ in range(20):
        current = policy.next(current, pace)
    return current


@given(SLOTS, SECONDS, st.integers(1, 2000), st.floats(0, 1e9))
def test_the_prefetch_stays_between_the_slots_and_the_most_and_comes_to_rest(
    slots: int, seconds: float, current: int, size: float
) -> None:
    policy, pace = AdaptivePrefetch(slots), Pace(mean_seconds=seconds, mean_bytes=size)
    current = max(slots, min(current, MOST))

    rest = settled(policy, current, pace)

    assert slots <= rest <= max(MOST, slots)
    assert policy.next(rest, pace) == rest


@given(SLOTS, SECONDS, SECONDS)
def test_shorter_handlers_never_get_less_from_the_start(slots: int, one: float, two: float) -> None:
    policy = AdaptivePrefetch(slots)
    short, long = sorted((one, two))

    assert settled(policy, policy.first, Pace(mean_seconds=short)) >= settled(
        policy, policy.first, Pace(mean_seconds=long)
    )


@pytest.mark.parametrize(
    "slots, seconds, size, prefetch",
    [(1, 0.0005, 100, 500), (1, 1.0, 100, 1), (4, 60.0, 100, 4), (1, 0.01, 100, 26), (1, 0.0005, 10_000_000, 4)],
    ids=["short", "long", "long in threads", "middling", "big bodies"],
)
def test_short_handlers_hold_hundreds_and_long_ones_what_runs(
    slots: int, seconds: float, size: int, prefetch: int
) -> None:
    policy = AdaptivePrefetch(slots)
    assert settled(policy, policy.first, Pace(mean_seconds=seconds, mean_bytes=size)) == prefetch


@given(st.lists(st.tuples(st.integers(1, 1000), SECONDS), min_size=1))
def test_the_mean_lies_between_the_shortest_and_the_longest(looks: list[tuple[int, float]]) -> None:
    pace = Pace()
    for finished, mean in looks:
        pace = pace.after(finished=finished, busy_seconds=finished * mean, taken=1, taken_bytes=BUFFER_BYTES)

    assert pace.mean_seconds is not None
    means = [mean for _, mean in looks]
    assert min(means) * 0.999 <= pace.mean_seconds <= max(means) * 1.001
    assert pace.mean_bytes == BUFFER_BYTES


def test_nothing_is_stuck_while_a_slot_is_free_or_has_just_begun_or_nothing_waits() -> None:
    assert Load(places=2, running=2, last_start=100.0, waiting=1).is_stuck(now=100.6)
    assert not Load(places=2, running=1, last_start=100.0, waiting=1).is_stuck(now=100.6)
    assert not Load(places=2, running=2, last_start=100.0, waiting=1).is_stuck(now=100.1)
    assert not Load(places=2, running=2, last_start=100.0, waiting=0).is_stuck(now=100.6)


def test_coroutines_that_fill_the_prefetch_get_more_up_to_their_most() -> None:
    policy = AdaptivePrefetch(1, most_coroutines=5000)
    current = policy.first
    for _ in range(10):
        current = policy.next(current, Pace(mean_seconds=1.0), coroutines=min(current, 5000))

    assert current == 5001
    assert policy.next(current, Pace(mean_seconds=1.0), coroutines=0) == 1


class Work(Api, name="tests.prefetch", version="1.0"):
    class asked(Event):
        number: int


class Worker:
    """One of several processes of an app; the first event keeps it busy until it is let go."""

    def __init__(self, url: str, app: str) -> None:
        self.bus = Bus(app, url=url)
        self.done: list[int] = []
        self.began = threading.Event()
        self.let_go = threading.Event()
        self.bus.on(Work.asked, name="work")(self.handle)
        self.queue = self.bus.endpoints()[0].topology().queues[0].name

    def handle(self, event: Work.asked) -> None:
        if event.number == 0:
            self.began.set()
            assert self.let_go.wait(60)
        self.done.append(event.number)


@pytest.mark.parametrize("prefetch", [None, 100], ids=["adaptive", "fixed"])
def test_what_waits_behind_a_long_handler_is_done_by_another_process(
    broker_url: str, prefix: str, prefetch: int | None
) -> None:
    options = WorkerOptions(threads=1, prefetch=prefetch)
    busy, other = Worker(broker_url, prefix), Worker(broker_url, prefix)
    with working(busy.bus, options=options):
        busy.bus.fire(Work.asked(number=0))
        assert busy.began.wait(20)
        for number in range(1, 51):
            busy.bus.fire(Work.asked(number=number))
        with working(other.bus, options=options):
            # The long handler takes as long as this takes: nothing but the handing back can end the wait.
            eventually(lambda: len(other.done), lambda count: count == 50, "the other process to do the rest")
            assert sorted(other.done) == list(range(1, 51))
            assert busy.done == []
            busy.let_go.set()
            eventually(lambda: busy.done, lambda done: done == [0], "the long handler to end")
            busy.bus.fire(Work.asked(number=51))
            eventually(lambda: [*busy.done, *other.done], lambda done: 51 in done, "life to go on")


def test_a_process_that_was_stuck_takes_messages_again(broker_url: str, prefix: str) -> None:
    worker = Worker(broker_url, prefix)
    with working(worker.bus, options=WorkerOptions(threads=1)):
        worker.bus.fire(Work.asked(number=0))
        assert worker.began.wait(20)
        for number in range(1, 21):
            worker.bus.fire(Work.asked(number=number))
        eventually(
            lambda: worker.bus.transport.message_count(worker.queue), lambda count: count == 20, "all to be handed back"
        )
        worker.let_go.set()

        eventually(lambda: sorted(worker.done), lambda done: done == list(range(21)), "all to be handled")


def test_short_handlers_make_a_process_hold_hundreds(amqp_vhost_url: str, prefix: str) -> None:
    worker = Worker(amqp_vhost_url, prefix)
    transport = worker.bus.transport
    transport.declare(worker.bus.endpoints()[0].topology())
    total, last_short = 3600, 3000
    for number in [*range(1, last_short + 1), 0, *range(last_short + 2, total + 1)]:
        worker.bus.fire(Work.asked(number=number))

    with working(worker.bus, options=WorkerOptions(threads=1)):
        assert worker.began.wait(30)
        # What is not in the broker's queue is in the process, until it is handed back.
        eventually(lambda: transport.message_count(worker.queue), lambda count: count <= total - last_short - 200, "")
        worker.let_go.set()
        eventually(lambda: len(worker.done), lambda count: count >= total, "all to be handled")
