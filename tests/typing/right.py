"""Code that both type checkers accept without a word."""

from __future__ import annotations

from concurrent.futures import Future

from lightbus import AnyEvent, Api, ApiError, Bus, Event, RetryPolicy, rpc
from lightbus.testing import harness


class Tickets(Api, name="support.tickets", version="1.0"):
    class created(Event):
        id: int
        email: str = ""

    class NotFound(ApiError):
        id: int

    @rpc(timeout_seconds=2.0, errors=[NotFound])
    def status(self, *, id: int) -> str:
        raise NotImplementedError

    @rpc()
    def sizes(self, *, of: list[str], limit: int = 10) -> dict[str, int]:
        raise NotImplementedError


class OurTickets(Tickets):
    @rpc()
    def status(self, *, id: int) -> str:
        if id == 404:
            raise Tickets.NotFound("no such ticket", id=id)
        return "open"

    @rpc()
    def sizes(self, *, of: list[str], limit: int = 10) -> dict[str, int]:
        return {text: len(text) for text in of[:limit]}


bus = Bus("support")
bus.serve(OurTickets())


@bus.on(Tickets.created, retry=RetryPolicy(max_retries=1))
def thank(event: Tickets.created) -> None:
    print(event.id + 1, event.email.upper())


@bus.on("support.*.created", "sales.#", concurrency=2)
def record(event: AnyEvent) -> None:
    print(event.name.upper(), event.payload["id"])


@bus.on(Tickets.created, ordered_by=lambda event: event.email)
async def thank_later(event: Tickets.created) -> None:
    await bus.fire_async(Tickets.created(id=event.id))


def use() -> None:
    bus.fire(Tickets.created(id=1))
    tickets = bus.client(Tickets)
    status: str = tickets.status(id=1)
    same: str = bus.call(Tickets.status, id=1)
    later: Future[dict[str, int]] = tickets.sizes.start(of=[status, same])
    print(later.result()["open"] + 1)
    print(tickets.status.with_options(timeout_seconds=1.0)(id=1).upper())


async def use_async() -> None:
    status: str = await bus.client(Tickets).status.aio(id=1)
    sizes: dict[str, int] = await bus.call_async(Tickets.sizes, of=[status], limit=1)
    print(sizes)


def in_a_test() -> None:
    with harness(bus) as t:
        t.assert_fired(Tickets.created, id=1)
        t.times(2).simulate(Tickets.created, id=1, email="a@b.c")
        t.assert_called(Tickets.status, id=1)
        t.partial().assert_fired(Tickets.created)
        status: str = t.simulate(Tickets.status, id=1)
        t.stub(Tickets.status, returns=status)
