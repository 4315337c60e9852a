"""--weights and --first: what is typed, and the queues that it means."""

from __future__ import annotations

import click
import pytest

from lightbus import Api, Bus, Event
from lightbus.cli.ordering import order_of, parsed_order
from lightbus.core.errors import ConfigError
from lightbus.core.turns import QueueOrder


class Shop(Api, name="tests.ordering", version="1.0"):
    class sold(Event):
        number: int


def bus() -> Bus:
    bus = Bus("shop", url="memory://")
    bus.on(Shop.sold, name="stock")(lambda event: None)
    bus.on(Shop.sold, name="bill")(lambda event: None)
    return bus


def test_weights_and_first_are_read() -> None:
    assert parsed_order("a=3, b=1,", ("c", "d")) == QueueOrder({"a": 3, "b": 1}, ("c", "d"))
    assert parsed_order("=x=2", ()) == QueueOrder({"=x": 2})
    assert parsed_order("", ()) == QueueOrder()


@pytest.mark.parametrize(
    ("weights", "first", "says"),
    [
        ("a", (), "NAME=N with N from 1 to 1000, got 'a'"),
        ("a=0", (), "got 'a=0'"),
        ("a=-1", (), "got 'a=-1'"),
        ("a=1.5", (), "got 'a=1.5'"),
        ("a=1001", (), "got 'a=1001'"),
        ("=3", (), "got '=3'"),
        ("a=3,a=2", (), "names 'a' twice"),
        ("", ("a", "b", "a"), "a queue twice: a,b,a"),
    ],
)
def test_what_is_wrong_is_said(weights: str, first: tuple[str, ...], says: str) -> None:
    with pytest.raises(click.UsageError, match=says.replace("(", r"\(")):
        parsed_order(weights, first)


def test_names_are_those_of_the_served_queues() -> None:
    order = order_of(QueueOrder({"shop.on.stock": 2}, ["shop.on.bill"]), [bus()], ())
    assert order == QueueOrder({"shop.on.stock": 2}, ["shop.on.bill"])
    with pytest.raises(ConfigError, match=r"names shop.on.bill, which this worker does not serve; it"):
        order_of(QueueOrder(first=["shop.on.bill"]), [bus()], ("shop.on.stock",))
    with pytest.raises(ConfigError, match=r"names stok, which"):
        order_of(QueueOrder({"stok": 2}), [bus()], ())
