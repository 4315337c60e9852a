from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightbus.core.pending import Pending


def test_an_answer_takes_its_slot_out_once() -> None:
    pending: Pending[str] = Pending()
    pending.add("a", "slot", deadline=5.0)

    assert pending.take("a") == "slot"
    assert pending.take("a") is None
    assert pending.expire(10.0) == []


def test_an_id_is_waited_for_once() -> None:
    pending: Pending[str] = Pending()
    pending.add("a", "slot", deadline=5.0)
    with pytest.raises(ValueError, match="'a'"):
        pending.add("a", "other", deadline=6.0)


@given(st.lists(st.tuples(st.sampled_from("at"), st.integers(0, 30), st.integers(0, 20))), st.integers(0, 25))
def test_every_slot_leaves_exactly_once_by_answer_or_by_deadline(steps: list[tuple[str, int, int]], now: int) -> None:
    pending: Pending[int] = Pending()
    waiting: dict[int, int] = {}
    for step, key, deadline in steps:
        if step == "a" and key not in waiting:
            pending.add(str(key), key, float(deadline))
            waiting[key] = deadline
        elif step == "t":
            assert pending.take(str(key)) == (key if waiting.pop(key, None) is not None else None)
    earliest = pending.next_deadline()
    assert (earliest is None) == (not waiting)
    assert earliest is None or earliest <= min(waiting.values())

    due = {key for key, deadline in waiting.items() if deadline <= now}
    assert sorted(pending.expire(float(now))) == sorted(due)
    assert len(pending) == len(waiting) - len(due)


def test_answered_calls_do_not_pile_up_in_the_deadlines() -> None:
    pending: Pending[int] = Pending()
    for n in range(10_000):
        pending.add(str(n), n, deadline=1e9)
        pending.take(str(n))
    assert len(pending._deadlines) < 200
