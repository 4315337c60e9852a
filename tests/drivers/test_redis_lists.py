"""Which lists of Redis are asked for: the pure part."""

from __future__ import annotations

from lightbus.core.topology import Queue
from lightbus.drivers.kombu.redis_layout import RedisLayout
from lightbus.drivers.kombu.redis_lists import Lists

LAYOUT = RedisLayout("p.", ":", (0, 6), "_kombu.binding.%s")


def lists_of(*names: str) -> Lists:
    return Lists(LAYOUT, [Queue(name=name) for name in names])


def asked(lists: Lists) -> list[list[str]]:
    return [[key for key, _ in group] for group in lists.turns()]


def test_at_first_every_list_may_have_something_by_priority_step() -> None:
    lists = lists_of("a", "b")
    assert asked(lists) == [["p.a", "p.b"], ["p.a:6", "p.b:6"]]
    assert lists.turns()[1][1] == ("p.b:6", "b")
    assert len(lists) == 4


def test_an_empty_list_is_left_out_until_something_comes_to_it() -> None:
    lists = lists_of("a", "b")
    lists.leave(["p.a", "p.a:6", "p.b", "p.b:6"])
    assert not lists.promising
    lists.look_at([b"p.b:6", b"lightbus.unacked", b"somebody.elses"])
    assert lists.promising
    assert asked(lists) == [["p.b:6"]]
    lists.look_at_all()
    assert {key for group in asked(lists) for key in group} == {"p.a", "p.b", "p.a:6", "p.b:6"}


def test_queues_take_turns_also_when_one_message_is_taken_at_a_time() -> None:
    lists = lists_of("a", "b", "c")
    first = []
    for _ in range(6):
        first.append(asked(lists)[0][0])
        lists.had_turns(1)
    assert first == ["p.a", "p.b", "p.c"] * 2


def test_a_rank_comes_before_the_priorities_of_the_next_and_a_weight_is_a_number_of_turns() -> None:
    lists = Lists(LAYOUT, [Queue(name="low", rank=1), Queue(name="a", weight=2), Queue(name="b")])
    assert asked(lists) == [["p.a", "p.b", "p.a"], ["p.a:6", "p.b:6", "p.a:6"], ["p.low"], ["p.low:6"]]
