"""`bus.remote`: a client of what a worker announces, without its contract in this program."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from lightbus import Api, ApiError, BadArguments, Bus, ConfigError, Event, NotServed, rpc
from lightbus.contracts.document import api_document
from lightbus.contracts.remote import remote_class
from lightbus.core.schema import encode_event, event_decoder
from lightbus.describing import Load, RunningWorker, describe
from lightbus.drivers.memory import MemoryTransport
from lightbus.drivers.memory_broker import MemoryBroker
from lightbus.worker.answering import answered_here
from tests.contracts.samples import Shop
from tests.processes import wait_for

from .workers import working

SECONDS = 20.0


class Tickets(Api, name="support.tickets", version="1.2"):
    class created(Event):
        id: int
        email: str = ""

    class NotFound(ApiError):
        id: int

    @rpc(timeout_seconds=5.0, errors=[NotFound])
    def get(self, *, id: int, words: list[str] | None = None, price: Decimal = Decimal("1.5")) -> dict[str, str]:
        raise NotImplementedError


class OurTickets(Tickets):
    @rpc()
    def get(self, *, id: int, words: list[str] | None = None, price: Decimal = Decimal("1.5")) -> dict[str, str]:
        if id == 404:
            raise Tickets.NotFound(id=id)
        return {"id": str(id), "words": repr(words), "price": repr(price)}


@pytest.fixture
def shell() -> Iterator[tuple[Bus, list[Tickets.created]]]:
    """A bus on which somebody serves Tickets, and the events that were heard there."""
    broker = MemoryBroker()
    owner, caller = (Bus(name, transport=MemoryTransport(broker)) for name in ("support", "shell"))
    owner.serve(OurTickets())
    heard: list[Tickets.created] = []
    owner.on(Tickets.created, name="hear")(heard.append)
    said = describe(owner, RunningWorker())
    with working(owner), answered_here(lambda: [(owner.transport, said)], Load):
        yield caller, heard
    caller.close()


def test_calls_and_events_have_the_names_of_the_contract(shell: tuple[Bus, list[Tickets.created]]) -> None:
    bus, heard = shell
    tickets = bus.remote("support.tickets", wait_seconds=SECONDS)

    assert tickets.get(id=7) == {"id": "7", "words": "None", "price": "Decimal('1.5')"}, "the owner's defaults hold"
    assert tickets.get.start(id=8, words=["a"], price="2").result(SECONDS)["words"] == "['a']"
    with pytest.raises(ApiError) as caught:
        tickets.get(id=404)
    assert (type(caught.value).__name__, caught.value.id) == ("NotFound", 404)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="gett"):
        tickets.gett(id=7)
    assert "get" in dir(tickets)
    assert list(inspect.signature(tickets.get.rpc.function).parameters) == ["self", "id", "words", "price"]
    bus.fire(tickets.created(id=9))
    wait_for(lambda: heard, SECONDS, "the event")
    assert heard == [Tickets.created(id=9)]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"id": "seven"}, "id: Expected `int`"),
        ({}, "id"),
        ({"id": 7, "idd": 8}, "idd"),
        ({"id": 7, "words": [1]}, "str"),
    ],
    ids=["type", "missing", "unknown", "inside"],
)
def test_what_does_not_fit_fails_before_it_is_sent(
    shell: tuple[Bus, list[Tickets.created]], arguments: dict[str, Any], words: str
) -> None:
    tickets = shell[0].remote("support.tickets", wait_seconds=SECONDS)

    with pytest.raises(BadArguments, match=words):
        tickets.get(**arguments)


def test_an_api_that_nobody_announces_is_said_with_the_nearest(shell: tuple[Bus, list[Tickets.created]]) -> None:
    bus = shell[0]
    bus.remote("support.tickets", wait_seconds=SECONDS)  # the worker is there
    with pytest.raises(NotServed, match=r"did you mean 'support\.tickets'"):
        bus.remote("support.ticket", wait_seconds=1.0)


def test_every_kind_of_type_can_be_sent_as_plain_data() -> None:
    made: Any = remote_class(api_document(Shop))
    event = made.shipped(
        id="5f0c7bb1-d9c0-4f0e-8b6f-0e6a2f1f9a11", at="2026-11-24T00:00:00Z",
        parcels=[{"weight": "1.5", "to": {"street": "Long"}}],
    )  # fmt: skip

    assert made.quote.errors["Refused"](reason="full", until=date(2026, 1, 1)).reason == "full"
    decoded = event_decoder(Shop.shipped)(encode_event(event))
    assert decoded.parcels[0].weight == Decimal("1.5")  # type: ignore[attr-defined]
    assert decoded.mode == "sea", "what was left out has the owner's default"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["__init__", "_caller", "a b", "class", "x: int = exit()"])
@pytest.mark.parametrize("place", ["calls", "events", "errors", "arguments"])
def test_a_name_that_is_no_python_name_is_refused(name: str, place: str) -> None:
    document = api_document(Tickets)
    if place == "arguments":
        document["calls"]["get"]["arguments"]["properties"][name] = {"type": "integer"}
    else:
        document[place][name] = next(iter(document[place].values()))

    with pytest.raises(ConfigError, match="no name that a Python program can use"):
        remote_class(document)


def test_a_schema_that_contains_itself_ends() -> None:
    document = api_document(Tickets)
    document["$defs"]["Deep"] = {"type": "array", "items": {"$ref": "#/$defs/Deep"}}
    document["calls"]["get"]["arguments"]["properties"]["deep"] = {"$ref": "#/$defs/Deep"}

    made: Any = remote_class(document)

    assert "deep" in inspect.signature(made.get.function).parameters
