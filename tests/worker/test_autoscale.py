"""How many processes a worker should have, without waiting for anything: time is an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightbus.core.errors import ConfigError
from lightbus.worker.autoscale import Autoscale, Load, Scaler

FULL = Load(slots=2, busy=2, waiting=5)
IDLE = Load(slots=2, busy=0, waiting=0)


def test_it_grows_by_one_when_all_slots_stayed_busy_and_messages_waited() -> None:
    scaler = Scaler(Autoscale(4, 1))

    assert scaler.wanted(2, FULL, 0.0) == 2
    assert scaler.wanted(2, FULL, 0.9) == 2
    assert scaler.wanted(2, FULL, 1.0) == 3
    assert scaler.wanted(3, FULL, 1.5) == 3  # the next step takes its time too
    assert scaler.wanted(3, FULL, 2.0) == 4
    assert scaler.wanted(4, FULL, 9.0) == 4


def test_a_pause_in_between_starts_the_time_anew() -> None:
    scaler = Scaler(Autoscale(4, 1))

    scaler.wanted(2, FULL, 0.0)
    scaler.wanted(2, Load(slots=2, busy=2, waiting=0), 0.5)
    scaler.wanted(2, FULL, 0.6)
    assert scaler.wanted(2, FULL, 1.5) == 2
    assert scaler.wanted(2, FULL, 1.6) == 3


def test_it_shrinks_by_one_after_a_long_time_with_a_process_too_many() -> None:
    scaler = Scaler(Autoscale(4, 1))

    assert scaler.wanted(3, IDLE, 0.0) == 3
    assert scaler.wanted(3, IDLE, 29.9) == 3
    assert scaler.wanted(3, IDLE, 30.0) == 2
    assert scaler.wanted(2, IDLE, 59.9) == 2
    assert scaler.wanted(2, IDLE, 60.0) == 1
    assert scaler.wanted(1, IDLE, 999.0) == 1


@given(
    st.integers(1, 5), st.integers(0, 5), st.integers(1, 3),
    st.lists(st.tuples(st.floats(0, 40), st.integers(0, 30), st.integers(0, 3)), max_size=60),
)  # fmt: skip
def test_it_stays_within_its_bounds_and_moves_one_step_at_a_time(
    minimum: int, more: int, threads: int, looks: list[tuple[float, int, int]]
) -> None:
    scaler = Scaler(Autoscale(minimum + more, minimum))
    processes, now, changed = minimum, 0.0, -1.0
    for pause, busy, waiting in looks:
        now += pause
        slots = processes * threads
        wanted = scaler.wanted(processes, Load(slots=slots, busy=min(busy, slots), waiting=waiting), now)
        assert minimum <= wanted <= minimum + more
        assert abs(wanted - processes) <= 1
        if wanted != processes:
            assert now - changed >= 1.0, "two steps within the time that one takes"
            changed = now
        processes = wanted


@pytest.mark.parametrize("text, maximum, minimum", [("10,2", 10, 2), ("4", 4, 1), ("3,3", 3, 3), ("10,0", 10, 1)])
def test_the_option_is_read_as_celery_does(text: str, maximum: int, minimum: int) -> None:
    assert Autoscale.parse(text) == Autoscale(maximum, minimum)


@pytest.mark.parametrize("text", ["", "x", "2,x", "1,2", "3,-1", "1,1,1"])
def test_a_wrong_option_is_said_in_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match="autoscale"):
        Autoscale.parse(text)
