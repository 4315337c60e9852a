"""Whose turn it is among queues: weights, ranks, and what follows from both."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightbus.core.topology import Queue
from lightbus.core.turns import QueueOrder, Turns


def queue(name: str, weight: int = 1, rank: int = 0) -> Queue:
    return Queue(name=name, weight=weight, rank=rank)


def taken(turns: Turns, waiting: dict[str, int], count: int) -> str:
    """The queues of the next messages, where so many wait in each."""
    order = ""
    left = dict(waiting)
    for _ in range(count):
        rows = turns.rows([name for name, number in left.items() if number])
        name = rows[0][1][0]
        left[name] -= 1
        order += name
        turns.had(1)
    return order


def test_even_queues_take_turns() -> None:
    turns = Turns([queue("a"), queue("b"), queue("c")])
    assert turns.are_even
    assert taken(turns, {"a": 9, "b": 9, "c": 9}, 6) == "abcabc"


def test_a_weight_is_the_share_in_a_row_of_turns_and_not_a_block() -> None:
    turns = Turns([queue("a", 3), queue("b")])
    assert not turns.are_even
    assert taken(turns, {"a": 99, "b": 99}, 8) == "aabaaaba"
    assert turns.rows(["b"]) == [(0, ["b"])]


def test_weights_are_shortened() -> None:
    assert len(Turns([queue("a", 300), queue("b", 100)]).rows(["a", "b"])[0][1]) == 4
    assert Turns([queue("a", 7), queue("b", 7)]).are_even


def test_a_later_rank_has_its_turn_when_the_earlier_have_nothing() -> None:
    turns = Turns([queue("a", rank=0), queue("b", rank=1), queue("c", rank=1)])
    assert taken(turns, {"a": 3, "b": 9, "c": 9}, 7)[:3] == "aaa"
    assert [rank for rank, _ in turns.rows(["b", "a"])] == [0, 1]


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 20), min_size=2))
def test_over_some_rows_each_has_exactly_its_share(weights: dict[str, int]) -> None:
    turns = Turns([queue(name, weight) for name, weight in weights.items()])
    total = sum(weights.values())
    counts = Counter(taken(turns, dict.fromkeys(weights, 10**6), 3 * total))
    assert counts == Counter({name: 3 * weight for name, weight in weights.items()})


@pytest.mark.parametrize(
    ("name", "weight", "rank"), [("high", 3, 2), ("urgent", 1, 0), ("soon", 5, 1), ("other", 1, 2)]
)
def test_an_order_gives_queues_their_weight_and_rank(name: str, weight: int, rank: int) -> None:
    order = QueueOrder({"high": 3, "soon": 5}, ["urgent", "soon"])
    applied = order.applied(Queue(name=name))
    assert (applied.weight, applied.rank) == (weight, rank)
    assert applied == Queue(name=name)  # it is the same queue on the broker
