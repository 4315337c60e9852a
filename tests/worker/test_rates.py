"""Rates: how often handlers begin, in one worker and in all, and that what waits harms nobody."""

from __future__ import annotations

import itertools
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightbus import Api, Bus, ConfigError, DeclarationError, Event, Rate, rpc
from lightbus.core.rate import MOST_DELAY_SECONDS, MOST_HELD_SECONDS, Bucket, take
from lightbus.worker import Rates, WorkerOptions
from tests.processes import wait_for
from tests.runtime.workers import working


@pytest.mark.parametrize(
    "text, per_second", [("100/s", 100), ("10/m", 10 / 60), ("2/h", 2 / 3600), ("0.5/s", 0.5), ("3", 3)]
)
def test_a_rate_is_written_as_celery_writes_it(text: str, per_second: float) -> None:
    assert Rate.parse(text).per_second == pytest.approx(per_second)


@pytest.mark.parametrize("text", ["10/d", "fast", "", "-1/s", "0/s"])
def test_anything_else_is_no_rate(text: str) -> None:
    with pytest.raises(DeclarationError):
        Rate.parse(text)


@given(st.lists(st.floats(0.0, 3.0), max_size=60), st.sampled_from([0.1, 1.0, 7.0]))
def test_two_turns_are_never_nearer_than_the_interval(pauses: list[float], interval: float) -> None:
    bucket, now, turns = Bucket(), 1000.0, []
    for pause in pauses:
        now += pause
        bucket, turn = take(bucket, interval, now, most_wait_seconds=MOST_HELD_SECONDS)
        assert 0.0 <= turn.wait_seconds <= (MOST_HELD_SECONDS if turn.granted else MOST_DELAY_SECONDS + interval)
        if turn.granted:
            turns.append(now + turn.wait_seconds)
    assert all(later - sooner >= interval - 1e-6 for sooner, later in itertools.pairwise(turns))


def test_what_gets_no_turn_is_told_moments_as_far_apart_as_the_turns() -> None:
    bucket, _ = take(Bucket(), 10.0, 1000.0, most_wait_seconds=0.0)
    waits = []
    for _ in range(4):
        bucket, turn = take(bucket, 10.0, 1000.0, most_wait_seconds=0.0)
        assert not turn.granted
        waits.append(turn.wait_seconds)
    assert waits == pytest.approx([10.0, 20.0, 30.0, 40.0])


@pytest.mark.parametrize("jump_seconds", [-1e6, 1e6])
def test_a_clock_that_jumps_does_not_stop_a_rate(jump_seconds: float) -> None:
    bucket, _ = take(Bucket(), 1.0, 2e6, most_wait_seconds=5.0)
    _, turn = take(bucket, 1.0, 2e6 + jump_seconds, most_wait_seconds=0.0)
    assert turn.wait_seconds <= MOST_HELD_SECONDS + 1.0


def test_the_processes_of_a_worker_share_a_rate_and_one_that_is_killed_takes_no_lock_with_it() -> None:
    rates = Rates({"a": Rate(0.001), "b": None})
    for number in range(8):  # each asks for a turn; only the first of all gets it
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, b"1" if rates.take("a", most_wait_seconds=0.0).granted else b"0")
            os.kill(os.getpid(), 9)
        os.waitpid(pid, 0)
        rest = rates.take("a", most_wait_seconds=0.0)
        assert os.read(reader, 1) == (b"1" if number == 0 else b"0")
        assert not rest.granted
        os.close(reader)
        os.close(writer)


def test_a_rate_is_changed_at_run_time_for_all_processes() -> None:
    rates = Rates({"a": None, "b": None})
    assert not rates.any
    pid = os.fork()
    if pid == 0:
        rates.set("a", Rate(0.5))
        os._exit(0)
    os.waitpid(pid, 0)

    assert rates.any
    assert rates.interval_seconds("a") == 2.0
    rates.set("a", None)
    assert not rates.any
    with pytest.raises(ConfigError, match="'c'"):
        rates.set("c", Rate(1.0))


class Limited(Api, name="tests.rates", version="1.0"):
    class slow(Event):
        number: int

    class quick(Event):
        number: int

    @rpc(timeout_seconds=20.0)
    def ask(self) -> int:
        raise NotImplementedError


class Worker:
    def __init__(self, url: str, app: str, rate: Rate | str) -> None:
        self.bus = Bus(app, url=url)
        self.slow: list[tuple[int, float]] = []
        self.quick: list[int] = []
        self.bus.on(Limited.slow, name="slow", rate=rate)(self.handle_slow)
        self.bus.on(Limited.quick, name="quick")(lambda event: self.quick.append(event.number))

    def handle_slow(self, event: Limited.slow) -> None:
        self.slow.append((event.number, time.monotonic()))


def test_messages_over_their_rate_hold_nobody_up_and_come_each_once(broker_url: str, prefix: str) -> None:
    worker = Worker(broker_url, prefix, "10/s")
    with working(worker.bus, options=WorkerOptions(threads=1, prefetch=8)):
        began = time.monotonic()
        for number in range(16):  # twice as many as the process may hold
            worker.bus.fire(Limited.slow(number=number))
        for number in range(20):
            worker.bus.fire(Limited.quick(number=number))
        wait_for(lambda: len(worker.quick) == 20, 30, "those without a rate")
        wait_for(lambda: len(worker.slow) >= 16, 60, "those with a rate")
    assert sorted(number for number, _ in worker.slow) == list(range(16))
    assert max(start for _, start in worker.slow) - began > 1.4  # 16 turns, a tenth of a second apart at least


def test_what_waits_for_its_turn_goes_back_at_a_stop(broker_url: str, prefix: str) -> None:
    worker = Worker(broker_url, prefix, "1/s")
    queue = worker.bus.endpoints()[0].topology().queues[0].name
    with working(worker.bus, options=WorkerOptions(threads=1, prefetch=8)):
        for number in range(5):  # one begins, as many as half of 8 may wait in memory
            worker.bus.fire(Limited.slow(number=number))
        wait_for(lambda: worker.slow and not worker.bus.transport.message_count(queue), 30, "all to be taken")
    first = [number for number, _ in worker.slow]
    assert worker.bus.transport.message_count(queue) == 5 - len(first)

    after = Worker(broker_url, prefix, "1000/s")
    with working(after.bus):
        wait_for(lambda: len(after.slow) >= 5 - len(first), 30, "the rest to be handled")
    assert sorted(first + [number for number, _ in after.slow]) == list(range(5))


def test_a_call_over_its_rate_is_answered_later(broker_url: str, prefix: str) -> None:
    class Ours(Limited):
        @rpc()
        def ask(self) -> int:
            return 7

    bus = Bus(prefix, url=broker_url)
    bus.serve(Ours(), rate="4/s")
    with working(bus, options=WorkerOptions(threads=1)):
        began = time.monotonic()
        assert [bus.client(Limited).ask() for _ in range(4)] == [7, 7, 7, 7]
        assert time.monotonic() - began > 0.7


def test_a_rate_of_all_workers_is_shared_by_workers_that_do_not_know_each_other(
    request: pytest.FixtureRequest, prefix: str
) -> None:
    for fixture in ("redis_url", "sqlite_url"):
        url = request.getfixturevalue(fixture)
        rate = Rate.parse("10/s", everywhere=True)
        one, other = Worker(url, prefix, rate), Worker(url, prefix, rate)
        began = time.monotonic()
        with working(one.bus), working(other.bus):
            for number in range(12):
                one.bus.fire(Limited.slow(number=number))
            wait_for(lambda one=one, other=other: len(one.slow) + len(other.slow) >= 12, 60, "all")
        assert sorted(number for number, _ in one.slow + other.slow) == list(range(12))
        assert max(start for _, start in one.slow + other.slow) - began > 1.0


@pytest.mark.parametrize("broker_url", ["amqp"], indirect=True)
def test_a_broker_that_cannot_count_refuses_a_rate_of_all_workers(broker_url: str, prefix: str) -> None:
    worker = Worker(broker_url, prefix, Rate.parse("10/s", everywhere=True))
    with pytest.raises(ConfigError, match="RabbitMQ cannot count"), working(worker.bus):
        pass


def test_a_rate_that_is_raised_while_messages_wait_has_effect_on_the_next(sqlite_url: str, prefix: str) -> None:
    worker = Worker(sqlite_url, prefix, "1/h")
    queue = worker.bus.endpoints()[0].topology().queues[0].name
    rates = Rates({queue: Rate.parse("1/h")})
    with working(worker.bus, options=WorkerOptions(threads=1, rates=rates)):
        worker.bus.fire(Limited.slow(number=0))
        worker.bus.fire(Limited.slow(number=1))
        wait_for(lambda: len(worker.slow) == 1, 30, "the first")
        rates.set(queue, None)
        for number in range(2, 6):
            worker.bus.fire(Limited.slow(number=number))
        # Number 1 waits for its rate, unless it was asked for only after the change.
        wait_for(lambda: {number for number, _ in worker.slow} >= {2, 3, 4, 5}, 30, "those after the change")
