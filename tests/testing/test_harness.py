"""The harness: what a test asserts and simulates, with identical parameters, through the real pipeline."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from lightbus import (
    Api,
    BadArguments,
    BrokerUnreachable,
    Bus,
    DeclarationError,
    Event,
    NotConfirmed,
    NotServed,
    RemoteError,
)
from lightbus.core.message import Route, Wire
from lightbus.drivers import open_transport
from lightbus.testing import Harness, harness
from lightbus.testing.verbs import Verbs
from tests.testing.apps import Orders, Shop, Support, Tickets


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def support() -> Support:
    return Support()


@pytest.fixture(params=["memory", "amqp", "redis", "sqlite"])
def t(request: pytest.FixtureRequest, shop: Shop, support: Support) -> Iterator[Harness]:
    """The same tests, whatever the broker."""
    fixture = {"amqp": "amqp_vhost_url", "redis": "redis_url", "sqlite": "sqlite_url"}.get(request.param)
    url = request.getfixturevalue(fixture) if fixture else ""
    with harness(shop.bus, support.bus, url=url) as started:
        yield started


def test_assert_and_simulate_take_the_same_parameters() -> None:
    """The promise itself, as a fact about the signatures: a reference, and then nothing but the payload."""

    def shape(method: object) -> list[tuple[str, object]]:
        parameters = list(inspect.signature(method).parameters.values())[1:]  # type: ignore[arg-type]
        return [("reference" if one.kind is one.POSITIONAL_ONLY else one.name, one.kind) for one in parameters]

    assert shape(Verbs.assert_fired) == shape(Verbs.assert_called) == shape(Verbs.simulate)
    assert [name for name, _ in shape(Verbs.simulate)] == ["reference", "args", "kwargs"]


def test_what_was_fired_can_be_asserted_and_simulated(t: Harness, shop: Shop, support: Support) -> None:
    shop.place(7, "a@b.c")

    t.assert_fired(Orders.placed, order=7, email="a@b.c")
    t.simulate(Orders.placed, order=7, email="a@b.c")
    t.assert_fired(Tickets.opened, ticket=7, title="order of a@b.c")
    assert support.seen == [("shop.orders.placed", 1, False)]


def test_events_wait_until_they_are_settled(t: Harness, shop: Shop, support: Support) -> None:
    shop.place(7, "a@b.c")
    assert support.seen == []

    t.settle()

    assert support.seen == [("shop.orders.placed", 1, False)]
    t.times(1).assert_fired(Tickets.opened, ticket=7, title="order of a@b.c")
    t.settle()
    assert len(support.seen) == 1


def test_a_message_that_was_not_sent_is_told_with_its_nearest(t: Harness, shop: Shop) -> None:
    with pytest.raises(AssertionError, match=r"shop.orders.placed\(order=7.* was not fired\nnothing was sent"):
        t.assert_fired(Orders.placed, order=7, email="a@b.c")
    shop.place(8, "a@b.c")
    shop.place(9, "x@y.z")
    with pytest.raises(AssertionError) as caught:
        t.assert_fired(Orders.placed, order=7, email="a@b.c")
    assert str(caught.value).splitlines() == [
        "shop.orders.placed(order=7, email='a@b.c', note='') was not fired",
        "the nearest of 2: shop.orders.placed(order=8, email='a@b.c', note='')",
        "    order: expected 7, fired with 8",
    ]
    with pytest.raises(AssertionError, match=r"was not fired\nsent were: shop.orders.placed \(2\)"):
        t.assert_fired(Orders.shipped, order=7)


def test_how_often_and_by_whom(t: Harness, shop: Shop) -> None:
    t.assert_nothing_sent()
    for _ in range(2):
        shop.place(7, "a@b.c")

    found = t.times(2).assert_fired(Orders.placed, order=7, email="a@b.c")
    assert [one.app for one in found] == ["shop", "shop"]
    assert t.times(0).assert_fired(Orders.placed, order=8, email="a@b.c") == []
    with pytest.raises(AssertionError, match="3 times, but 2 times"):
        t.times(3).assert_fired(Orders.placed, order=7, email="a@b.c")
    t.from_app("shop").assert_fired(Orders.placed, order=7, email="a@b.c")
    with pytest.raises(AssertionError, match="nothing was sent"):
        t.from_app("support").assert_fired(Orders.placed, order=7, email="a@b.c")
    with pytest.raises(AssertionError, match=r"nothing was to be sent, but: shop.orders.placed"):
        t.assert_nothing_sent()
    t.forget()
    t.assert_nothing_sent()


def test_some_fields_may_be_anything(t: Harness, shop: Shop) -> None:
    shop.place(7, "a@b.c")

    t.assert_fired(Orders.placed, order=7, email=t.ANY)
    t.partial().assert_fired(Orders.placed, order=7)
    with pytest.raises(AssertionError, match="order: expected 8, fired with 7"):
        t.partial().assert_fired(Orders.placed, order=8)
    with pytest.raises(AssertionError, match="ordr: expected 7, not there"):
        t.partial().assert_fired(Orders.placed, ordr=7)
    with pytest.raises(TypeError, match="all its fields"):
        t.partial().simulate(Orders.placed, order=7, email="a@b.c")


def test_parameters_that_do_not_fit_the_declaration_are_refused_on_either_side(t: Harness) -> None:
    for verb in (t.assert_fired, t.simulate):
        with pytest.raises(TypeError, match="ordr"):
            verb(Orders.placed, ordr=7, email="")  # type: ignore[call-arg]
        with pytest.raises(BadArguments, match=r"order: Expected `int`, got `str`, namely '7'"):
            verb(Orders.placed, order="7", email="")  # type: ignore[arg-type]
    for verb_of_a_call in (t.assert_called, t.simulate):
        with pytest.raises(BadArguments, match="tickt"):
            verb_of_a_call(Tickets.title, tickt=7)  # type: ignore[call-overload]
        with pytest.raises(BadArguments, match="ticket"):
            verb_of_a_call(Tickets.title, ticket="7")  # type: ignore[call-overload]
    with pytest.raises(BadArguments, match="Missing required argument 'ticket'"):
        t.assert_called(Tickets.title, language=t.ANY)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="an event class, a call of an Api or a task"):
        t.simulate("shop.orders.placed", order=7)  # type: ignore[call-overload]


def test_a_call_is_answered_while_its_caller_waits(t: Harness, shop: Shop) -> None:
    assert shop.ask(7) == "ticket 7 in en"

    t.assert_called(Tickets.title, ticket=7)
    t.assert_called(Tickets.title, ticket=7, language="en")
    with pytest.raises(AssertionError, match="language: expected 'pt', called with 'en'"):
        t.assert_called(Tickets.title, ticket=7, language="pt")


def test_a_simulated_call_gives_the_answer_or_what_its_handler_raised(t: Harness) -> None:
    assert t.simulate(Tickets.title, ticket=7, language="pt") == "ticket 7 in pt"
    with pytest.raises(Tickets.Closed) as caught:
        t.simulate(Tickets.title, ticket=404)
    assert caught.value.fields == {"ticket": 404}
    with pytest.raises(ValueError, match="no ticket -1"):  # and not RemoteError: the handler is here
        t.simulate(Tickets.title, ticket=-1)
    assert t.sent == ()


def test_a_caller_gets_the_errors_that_it_would_get_from_a_worker(t: Harness, shop: Shop) -> None:
    with pytest.raises(Tickets.Closed):
        shop.ask(404)
    with pytest.raises(RemoteError, match="no ticket -1"):
        shop.ask(-1)


def test_a_stub_answers_in_place_of_the_owner(shop: Shop) -> None:
    with harness(shop.bus) as t:
        with pytest.raises(NotServed, match=r"support\.tickets\.title"):
            shop.ask(1)
        t.stub(Tickets.title, returns="stubbed")
        assert shop.ask(1) == "stubbed"
        t.stub(Tickets.title, answers=lambda *, ticket, language: f"{ticket} {language}")
        assert shop.ask(2) == "2 en"
        t.stub(Tickets.title, raises=Tickets.Closed(ticket=3))
        with pytest.raises(Tickets.Closed):
            shop.ask(3)
        t.stub(Tickets.title, raises=OSError("away"))
        with pytest.raises(RemoteError, match="OSError: away"):
            shop.ask(4)
        t.stub(Tickets.title, returns=5)  # type: ignore[call-overload]
        with pytest.raises(RemoteError, match="returned 5"):
            shop.ask(5)
        with pytest.raises(TypeError, match="one of returns="):
            t.stub(Tickets.title)  # type: ignore[call-overload]
        t.times(6).assert_called(Tickets.title, ticket=t.ANY)


def test_what_nobody_under_test_handles_is_said(shop: Shop) -> None:
    with harness(shop.bus) as t:
        with pytest.raises(AssertionError, match=r"nobody under test listens to shop\.orders\.placed; there is none"):
            t.simulate(Orders.placed, order=1, email="")
        with pytest.raises(AssertionError, match=r"nobody under test serves support\.tickets\.title"):
            t.simulate(Tickets.title, ticket=1)


def test_a_failing_listener_raises_in_the_test_and_is_tried_again_as_time_passes(t: Harness, support: Support) -> None:
    support.failures_left = 2
    with pytest.raises(ConnectionError, match="the database is away"):
        t.simulate(Orders.placed, order=7, email="a@b.c")
    assert support.seen == [("shop.orders.placed", 1, False)]  # the other listener has had its turn
    t.times(0).assert_fired(Tickets.opened, ticket=7, title="order of a@b.c")

    began = time.monotonic()
    with pytest.raises(ConnectionError):
        t.advance()
    t.advance(3600)
    assert time.monotonic() - began < 60

    t.times(1).assert_fired(Tickets.opened, ticket=7, title="order of a@b.c")
    assert [one.invocation.attempt for one in t.handled if one.invocation and "open_ticket" in one.delivery.queue] == [
        1, 2, 3,
    ]  # fmt: skip
    with pytest.raises(AssertionError, match="nothing is delayed"):
        t.advance()


def test_what_fails_for_good_is_parked_with_its_reason(shop: Shop, support: Support) -> None:
    support.failures_left = 99
    with harness(shop.bus, support.bus, raises=False) as t:
        shop.place(7, "a@b.c")
        t.settle()
        assert t.parked == ()
        t.advance(60)
        (parked,) = t.parked
        assert (parked.name, parked.queue, parked.reason, parked.attempts) == (
            "shop.orders.placed", "support.on.open_ticket", "handler-failed", 3,
        )  # fmt: skip
        assert "the database is away" in parked.error
        assert support.bus.transport.message_count(support.bus.dead_letter_queue) == 1


def test_the_faults_of_a_broker(t: Harness, shop: Shop, support: Support) -> None:
    with t.broker_down(), pytest.raises(BrokerUnreachable):
        shop.place(1, "a@b.c")
    t.assert_nothing_sent()

    t.lose_confirm()
    with pytest.raises(NotConfirmed, match="may have the message"):
        shop.place(2, "a@b.c")
    t.settle()
    assert len(support.seen) == 1

    t.redeliver()
    assert support.seen[-1] == ("shop.orders.placed", 1, True)


def test_what_a_handler_knows_of_a_simulated_message(t: Harness, support: Support) -> None:
    t.meta(attempt=4, redelivered=True).simulate(Orders.shipped, order=7)
    t.times(2).simulate(Orders.shipped, order=8)
    assert support.seen == [("shop.orders.shipped", 4, True), *[("shop.orders.shipped", 1, False)] * 2]

    invocation = t.handled[0].invocation
    assert invocation is not None
    t.from_app("shop").simulate(Orders.shipped, order=9)
    assert t.handled[-1].delivery.wire.headers["cloudEvents_source"] == "/shop"


def test_a_message_that_goes_round_is_found_out() -> None:
    bus = Bus("round")

    @bus.on(Orders.shipped)
    def again(event: Orders.shipped) -> None:
        bus.fire(event)

    with harness(bus) as t, pytest.raises(AssertionError, match=r"10000 messages .* the last: shop.orders.shipped"):
        t.simulate(Orders.shipped, order=1)
        t.settle()


def test_a_test_may_be_a_coroutine(t: Harness, shop: Shop, support: Support) -> None:
    async def scenario() -> str:
        await shop.bus.fire_async(Orders.shipped(order=7))
        t.settle()  # its listener is a coroutine function too
        return await shop.tickets.title.aio(ticket=7)

    assert asyncio.run(scenario()) == "ticket 7 in en"
    assert support.seen == [("shop.orders.shipped", 1, False)]


def test_a_listener_that_is_added_during_the_test_gets_what_is_fired_then(t: Harness, shop: Shop) -> None:
    got: list[Event] = []
    shop.bus.on(Orders.placed, name="late")(got.append)
    t.settle()

    shop.place(7, "a@b.c")
    t.settle()

    assert got == [Orders.placed(order=7, email="a@b.c")]


def test_the_bus_has_its_own_broker_again_afterwards(shop: Shop) -> None:
    kept = shop.bus.transport
    with harness(shop.bus) as t:
        t.stub(Tickets.title, returns="x")
        assert shop.ask(1) == "x"
        assert shop.bus.transport is not kept
    assert shop.bus.transport is kept
    with pytest.raises(BrokerUnreachable):
        shop.ask(1)
    shop.bus.close()


def test_queues_of_others_on_a_real_broker_are_not_touched_and_ours_are_gone(broker_url: str, shop: Shop) -> None:
    with harness(shop.bus, Support().bus, url=broker_url):
        shop.place(7, "a@b.c")
    support = Support()
    with harness(shop.bus, support.bus, url=broker_url) as again:
        again.settle()
        assert again.handled == ()  # what the first test left behind went with its queues
    with closing(open_transport(broker_url)) as theirs:
        endpoint = next(one for one in support.bus.endpoints() if one.kind == "event")
        theirs.declare(endpoint.topology())
        queue = next(iter(endpoint.queues()))
        theirs.publish(Wire(body=b"theirs"), Route("", queue)).result(10)

        refusal = pytest.raises(AssertionError, match=r"has a queue 'support.on.*' already.*for tests alone")
        with refusal, harness(support.bus, url=broker_url):
            pass

        assert theirs.message_count(queue) == 1


def test_a_listener_of_an_api_hears_all_its_events(broker_url: str) -> None:
    heard: list[Event] = []
    app = Bus("archive")
    app.on(Orders, name="note")(heard.append)
    with pytest.raises(DeclarationError, match="an Api that has events"):
        app.on(Api)

    with harness(app, url=broker_url) as t:
        app.fire(Orders.placed(order=7, email="a@b.c"))
        app.fire(Orders.shipped(order=7))
        t.settle()
        t.simulate(Orders.shipped, order=8)

    assert heard == [Orders.placed(order=7, email="a@b.c"), Orders.shipped(order=7), Orders.shipped(order=8)]
